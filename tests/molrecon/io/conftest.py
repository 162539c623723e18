"""Small valid input files, made by the tests themselves."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest


def random_kspace(*shape: int, seed: int = 3) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(np.complex64)


def ismrmrd_header(encoded=(16, 10, 1), recon=(8, 8, 1), encoded_fov=(32.0, 25.0, 5.0), limits=(0, 9, 5)) -> str:
    def space(name, matrix, fov):
        sizes = "".join(f"<{axis}>{size}</{axis}>" for axis, size in zip("xyz", matrix, strict=True))
        millimetres = "".join(f"<{axis}>{size}</{axis}>" for axis, size in zip("xyz", fov, strict=True))
        return f"<{name}><matrixSize>{sizes}</matrixSize><fieldOfView_mm>{millimetres}</fieldOfView_mm></{name}>"

    recon_fov = tuple(fov * r / e for fov, r, e in zip(encoded_fov, recon, encoded, strict=True))
    minimum, maximum, center = limits
    return (
        '<?xml version="1.0" encoding="utf-8"?><ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD">'
        "<experimentalConditions><H1resonanceFrequency_Hz>123000000</H1resonanceFrequency_Hz></experimentalConditions>"
        f"<encoding>{space('encodedSpace', encoded, encoded_fov)}{space('reconSpace', recon, recon_fov)}"
        f"<encodingLimits><kspace_encoding_step_1><minimum>{minimum}</minimum><maximum>{maximum}</maximum>"
        f"<center>{center}</center></kspace_encoding_step_1></encodingLimits>"
        "<trajectory>cartesian</trajectory></encoding></ismrmrdHeader>"
    )


def write_fastmri(path: Path, datasets: dict[str, object], attributes: dict[str, object] | None = None) -> Path:
    with h5py.File(path, "w") as file:
        for name, value in datasets.items():
            file[name] = value
        file.attrs.update(attributes or {})
    return path


@pytest.fixture
def kspace():
    return random_kspace


@pytest.fixture
def header():
    return ismrmrd_header


@pytest.fixture
def fastmri_file(tmp_path):
    def make(datasets, attributes=None, name="file1000001.h5"):
        return write_fastmri(tmp_path / name, datasets, attributes)

    return make

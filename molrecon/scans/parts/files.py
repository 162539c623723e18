"""Writing what is asked for beside the image."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np

from molrecon.io import write_atomically, write_nifti
from molrecon.io.hdf5 import hdf5_file
from molrecon.scans.parts.wanted import Parts
from molrecon.scans.preparation import PreparedVolume, unmixed_maps
from molrecon.scans.reconstruction import Reconstruction


def write_parts(folder: str | Path, name: str, parts: Parts, prepared: PreparedVolume, result: Reconstruction) -> None:
    """Write the files of `parts.files()`. NIfTI have the geometry and the times of the image itself.

    Args:
        folder, name: of the files.
        parts: what is asked for.
        prepared: the scan, of a series its first frame: the others have its maps.
        result: with the complex image and the noise maps that are asked for.

    Raises:
        ValueError: a result without them. OSError: a file cannot be written.
    """
    for suffix in parts.files():
        path = Path(folder) / f"{name}{suffix}"
        if suffix.endswith(".npy"):
            content = io.BytesIO()
            np.save(content, unmixed_maps(prepared) if suffix == "_maps.npy" else covariance(prepared))
            write_atomically(path, content.getvalue())
        elif suffix.endswith(".h5"):
            with hdf5_file(path) as file:
                file.create_dataset("reconstruction", data=_complex(result))
        else:
            time = None if result.image.ndim == 3 else np.nan if result.time_step is None else result.time_step
            write_nifti(path, VALUES[suffix](result), result.voxel_size, time, result.geometry)


def covariance(prepared: PreparedVolume) -> np.ndarray:
    """Return the noise covariance (coil, coil) complex128 that was used: of the noise scan, or white."""
    measured = prepared.volume.noise_covariance
    if measured is not None:
        return np.asarray(measured, np.complex128)
    return prepared.sample_noise_level**2 * np.eye(prepared.volume.n_coils, dtype=np.complex128)


def _complex(result: Reconstruction) -> np.ndarray:
    if result.complex_image is None:
        raise ValueError("write_parts: a result without its complex image, expected one with it")
    return result.complex_image


def _noise(result: Reconstruction) -> tuple[np.ndarray, np.ndarray]:
    if result.noise is None:
        raise ValueError("write_parts: a result without noise maps, expected one with them")
    return result.noise


VALUES: dict[str, Callable[[Reconstruction], np.ndarray]] = {
    "_part-mag.nii.gz": lambda result: result.image,
    "_part-phase.nii.gz": lambda result: np.angle(_complex(result)),
    "_part-real.nii.gz": lambda result: _complex(result).real,
    "_part-imag.nii.gz": lambda result: _complex(result).imag,
    "_desc-noise.nii.gz": lambda result: _noise(result)[0],
    "_desc-gfactor.nii.gz": lambda result: _noise(result)[1],
}

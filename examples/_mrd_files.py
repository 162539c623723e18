"""Radial and spiral MRD files, written by the ismrmrd package, of samples that are sums written out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import ismrmrd
import numpy as np


def radial(spokes: int, matrix: int, *, golden: bool = False, first: int = 0) -> np.ndarray:
    """Return spokes with two samples a cycle, (spokes, 2 matrix, 2), in cycles per field of view."""
    step = np.pi * (np.sqrt(5) - 1) / 2 if golden else np.pi / spokes
    angles = (first + np.arange(spokes)) * step
    radii = (np.arange(2 * matrix) - matrix) / 2
    return radii[None, :, None] * np.stack([np.cos(angles), np.sin(angles)], -1)[:, None]


def spiral(arms: int, samples: int, matrix: int, *, pitch: float = 2.5) -> np.ndarray:
    """Return arms that are dense in the centre and `pitch` cycles apart outside, (arms, samples, 2)."""
    share = np.linspace(0, 1, samples)
    radius = matrix / 2 * share
    distance = 0.8 + (pitch - 0.8) * np.clip((share - 0.35) / 0.3, 0, 1)
    turn = np.concatenate([[0], np.cumsum(np.diff(radius) * 2 * np.pi / (arms * distance[1:]))])
    angles = turn + 2 * np.pi * np.arange(arms)[:, None] / arms
    return radius[None, :, None] * np.stack([np.cos(angles), np.sin(angles)], -1)


def measure(coil_images: np.ndarray, trajectory: np.ndarray) -> np.ndarray:
    """Return samples (coil, readout, sample) of images (coil, rows, cols): the Fourier sum, term by term."""
    rows, cols = coil_images.shape[1:]
    points = trajectory.reshape(-1, 2)
    along_rows = np.exp(-2j * np.pi * np.outer(points[:, 0], (np.arange(rows) - rows // 2) / rows))
    along_cols = np.exp(-2j * np.pi * np.outer(points[:, 1], (np.arange(cols) - cols // 2) / cols))
    samples = np.stack([((along_rows @ one) * along_cols).sum(1) for one in coil_images])
    return samples.reshape(len(coil_images), *trajectory.shape[:-1]) / np.sqrt(rows * cols)


def noise(rng: np.random.Generator, level: float, *shape: int) -> np.ndarray:
    return level * (rng.normal(size=shape) + 1j * rng.normal(size=shape)) / np.sqrt(2)


def readouts(samples: np.ndarray, coordinates: np.ndarray | None, **idx: int) -> list[ismrmrd.Acquisition]:
    """Return the acquisitions of samples (coil, readout, sample), with coordinates (readout, sample, axes)."""
    found = []
    for number in range(samples.shape[1]):
        own = [] if coordinates is None else [coordinates[number].astype(np.float32)]
        one = ismrmrd.Acquisition.from_array(np.ascontiguousarray(samples[:, number], np.complex64), *own)
        one.idx.kspace_encode_step_1 = number
        one.read_dir[:], one.phase_dir[:], one.slice_dir[:] = (1, 0, 0), (0, 1, 0), (0, 0, 1)
        one.position[:] = (10, 20, 30 + 5 * idx.get("slice", 0))
        for name, value in idx.items():
            setattr(one.idx, name, value)
        found.append(one)
    return found


def header(kind: str, matrix: Sequence[int], recon: Sequence[int] | None = None, depth: int = 1) -> str:
    """Return the XML of an encoding with pixels of 2 mm."""

    def space(name: str, size: Sequence[int]) -> str:
        rows, cols = size
        return (
            f"<{name}><matrixSize><x>{rows}</x><y>{cols}</y><z>{depth}</z></matrixSize>"
            f"<fieldOfView_mm><x>{2 * rows}</x><y>{2 * cols}</y><z>5</z></fieldOfView_mm></{name}>"
        )

    return (
        '<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD"><acquisitionSystemInformation/><encoding>'
        f"{space('encodedSpace', matrix)}{space('reconSpace', recon or matrix)}<encodingLimits/>"
        f"<trajectory>{kind}</trajectory></encoding></ismrmrdHeader>"
    )


def write(path: Path, xml: str, acquisitions: Sequence[ismrmrd.Acquisition]) -> Path:
    with ismrmrd.Dataset(str(path), "dataset", create_if_needed=True) as dataset:
        dataset.write_xml_header(xml.encode())
        for acquisition in acquisitions:
            dataset.append_acquisition(acquisition)
    return path

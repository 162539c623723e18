"""The centre of k-space of a trajectory, as the calibration data of a scan on the grid."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from molrecon.io import RawVolume
from operators import gridded_calibration

MOST_SAMPLES = 400_000  # of a slice: more make the centre no better


def calibration_on_grid(volumes: Sequence[RawVolume]) -> np.ndarray:
    """Return calibration data (slices, coil, rows, cols) complex64 on the grid, zero outside the centre.

    Slice by slice it is fitted to the samples of all volumes together, see `gridded_calibration`: with readouts that
    turn from frame to frame many frames have a dense centre where one has none.

    Args:
        volumes: with trajectories, of the same slices, coils and grid.

    Raises:
        ValueError: the centre is not sampled densely enough.
    """
    first = volumes[0]
    rows, cols = _grid(first)
    slices, coils = first.kspace.shape[:2]
    count = max(1, min(len(volumes), MOST_SAMPLES // (first.kspace.shape[2] * first.kspace.shape[3])))
    calibration = np.zeros((slices, coils, rows, cols), np.complex64)
    for k in range(slices):
        kspace = np.concatenate([one.kspace[k].reshape(coils, -1) for one in volumes[:count]], 1)
        points = np.concatenate([_points(one, k).reshape(-1, 2) for one in volumes[:count]])
        if not kspace.any():
            continue
        try:
            region = gridded_calibration(torch.from_numpy(kspace), torch.from_numpy(points)).kspace.numpy()
        except ValueError as error:
            raise ValueError(f"slice {k}: {error}") from error
        top, left = rows // 2 - region.shape[-2] // 2, cols // 2 - region.shape[-1] // 2
        calibration[k, :, top : top + region.shape[-2], left : left + region.shape[-1]] = region
    return calibration


def _points(volume: RawVolume, k: int) -> np.ndarray:
    if volume.trajectory is None:
        raise ValueError("calibration_on_grid: samples on the grid, expected a trajectory")
    return volume.trajectory[k % len(volume.trajectory)]


def _grid(volume: RawVolume) -> tuple[int, int]:
    rows, cols = volume.grid or volume.kspace.shape[-2:]
    return rows, cols

"""Where the samples of a volume lie, how much of k-space each stands for, and the operator of both."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
from torch import Tensor

from operators import NonCartesianSense, WeightedSense
from operators.density_weighted import noise_gain


@final
@dataclass(frozen=True, eq=False)
class Trajectory:
    """Where the samples of a volume lie, and their weights for its density.

    Attributes:
        points: (slices or 1, readouts, samples, 2) float64, in cycles per field of view.
        weights: W, (slices or 1, readouts, samples) float64, from `density_compensation`.
        grid: (rows, cols) of the image.
    """

    points: Tensor
    weights: Tensor
    grid: tuple[int, int]

    @property
    def noise_gain(self) -> float:
        """The level of white noise in the weighted samples that stands for that of a sample, mean over slices."""
        return float(noise_gain(self.weights).mean())

    def effective_samples(self, k: int) -> float:
        """Return `(sum w)^2 / sum w^2` of slice k, the number of samples of that level that weigh as all do."""
        w = self.weights[k % len(self.weights)]
        return float(w.sum().square() / w.square().sum())

    def weigh(self, kspace: Tensor) -> Tensor:
        """Return `W^(1/2) b` of samples (slices, coil, readouts, samples), in their precision."""
        return self.weights.sqrt().to(kspace.real.dtype)[:, None] * kspace

    def operator(self, maps: Tensor, slices: slice | list[int]) -> WeightedSense:
        """Return `W^(1/2) A` of some slices with their maps (slices, coil, rows, cols), or (slices, set, coil, ...)."""
        points, weights = self.points, self.weights
        if len(points) > 1:
            points, weights = points[slices], weights[slices]
        return WeightedSense(NonCartesianSense(maps, points), weights)


def check_arrays(trajectory: np.ndarray | None, grid: tuple[int, int] | None, sampling_mask: np.ndarray | None) -> None:
    """Raise ValueError for a trajectory that is none: without a grid or outside it, of another shape, with a mask."""
    if (trajectory is None) != (grid is None):
        missing = "trajectory" if trajectory is None else "grid"
        raise ValueError(f"Scan.from_arrays: no {missing}, expected both or none")
    if trajectory is None or grid is None:
        return
    if sampling_mask is not None:
        raise ValueError("Scan.from_arrays: a sampling mask with a trajectory, expected none")
    if trajectory.ndim not in (4, 5) or trajectory.shape[-1] != 2 or trajectory.dtype.kind != "f":
        raise ValueError(
            f"Scan.from_arrays: trajectory {trajectory.shape} of dtype {trajectory.dtype}, expected real (slices or 1,"
            " readouts, samples, 2), or with the repetitions in front"
        )
    reach = np.abs(trajectory).reshape(-1, 2).max(0)
    if not (reach <= np.array(grid) / 2).all():
        raise ValueError(
            f"Scan.from_arrays: a trajectory that reaches {reach[0]:.4g} and {reach[1]:.4g}, expected at most"
            f" {grid[0] / 2:g} and {grid[1] / 2:g} cycles per field of view"
        )

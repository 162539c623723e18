"""Where the samples of a volume lie, how much of k-space each stands for, and the operator of both."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

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

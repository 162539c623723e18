"""One small problem of every family of operators, single precision, a smooth object and four coils."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from molrecon.guarantees.certify import CertifiedScan
from operators import (
    Dense,
    Flatten,
    LinearOperator,
    NonCartesianSense,
    Sense,
    kt_interleaved_mask,
    orthonormal_matrix,
    poisson_disc_mask,
    radial_trajectory,
    random_mask,
)

NOISE = 0.01
COILS = 4
TIGHTNESS = "tightness"  # the property that tests record, for the summary


@dataclass(frozen=True, eq=False)
class Family:
    """A problem, and the operator as a function of its coil maps where it has any."""

    problem: CertifiedScan
    maps: Tensor | None
    rebuild: Callable[[Tensor], LinearOperator] | None


def blobs(shape: tuple[int, ...], seed: int) -> Tensor:
    """Return an object (1, *shape) complex64 of magnitude about 1: a box in a smooth blob, with a smooth phase."""
    axes = torch.meshgrid(*[torch.linspace(-1, 1, n) for n in shape], indexing="ij")
    radius = sum((axis.square() for axis in axes), torch.zeros(shape))
    inside = torch.stack([(axis - 0.1 * seed).abs() < 0.4 for axis in axes]).all(0)
    return ((torch.exp(-2 * radius) + 0.5 * inside) * torch.exp(1j * axes[-1]))[None]


def smooth_maps(shape: tuple[int, ...], seed: int) -> Tensor:
    """Return coil maps (1, coil, *shape) complex64 with a root sum of squares of one."""
    generator = torch.Generator().manual_seed(seed)
    axes = torch.meshgrid(*[torch.linspace(-1, 1, n) for n in shape], indexing="ij")
    coils = []
    for _ in range(COILS):
        centre = 2 * torch.rand(len(shape), generator=generator) - 1
        square = sum(((axis - c).square() for axis, c in zip(axes, centre, strict=True)), torch.zeros(shape))
        coils.append(torch.exp(-square + 1j * (centre[0] * axes[-1] - centre[-1] * axes[0])))
    maps = torch.stack(coils)
    return (maps / torch.linalg.vector_norm(maps, dim=0))[None]


def measured(name: str, operator: LinearOperator, image: Tensor, seed: int) -> CertifiedScan:
    kspace = operator(image)
    noise = NOISE * torch.randn(kspace.shape, dtype=kspace.dtype, generator=torch.Generator().manual_seed(seed))
    if isinstance(operator, Sense):
        noise = operator.sampling(noise)
    return CertifiedScan(name, kspace + noise, operator, NOISE)


def cartesian_2d(seed: int = 0) -> Family:
    mask = torch.from_numpy(random_mask(20, 3.0, 0.2, [seed]))[None, None]
    return _sense("2D", (16, 20), mask, None, seed)


def cartesian_3d(seed: int = 0) -> Family:
    mask = torch.from_numpy(poisson_disc_mask((6, 8), 3.0, seed, calibration=(2, 2)))[None, :, None]
    return _sense("3D", (6, 8, 8), mask, None, seed)


def dynamic(seed: int = 0) -> Family:
    mask = torch.from_numpy(kt_interleaved_mask(5, 10, 4, num_low=2))[None, :, None]
    return _sense("2D+time", (5, 8, 10), mask, 2, seed)


def non_cartesian(seed: int = 0) -> Family:
    shape = (16, 16)
    trajectory = radial_trajectory(9, 24, 16)
    maps = smooth_maps(shape, seed)

    def rebuild(maps: Tensor) -> NonCartesianSense:
        return NonCartesianSense(maps, trajectory, toeplitz=False)

    problem = measured("non-Cartesian", NonCartesianSense(maps, trajectory), blobs(shape, seed), seed)
    return Family(problem, maps, rebuild)


def compressed_sensing(seed: int = 0) -> Family:
    shape = (14, 12)
    operator = Dense(orthonormal_matrix(56, 14 * 12, seed).float()) @ Flatten(shape)
    return Family(measured("CS", operator, blobs(shape, seed), seed), None, None)


def _sense(name: str, shape: tuple[int, ...], mask: Tensor, fourier_ndim: int | None, seed: int) -> Family:
    maps = smooth_maps(shape, seed)

    def rebuild(maps: Tensor) -> Sense:
        return Sense(maps, mask, fourier_ndim)

    return Family(measured(name, rebuild(maps), blobs(shape, seed), seed), maps, rebuild)


FAMILIES: dict[str, Callable[[], Family]] = {
    "2D": cartesian_2d,
    "3D": cartesian_3d,
    "2D+time": dynamic,
    "non-Cartesian": non_cartesian,
    "CS": compressed_sensing,
}
NDIM = {"2D": 2, "3D": 3, "2D+time": 3, "non-Cartesian": 2, "CS": 2}

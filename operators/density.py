"""Density compensation: the share of k-space that each sample of a trajectory stands for."""

from __future__ import annotations

from collections.abc import Sequence
from math import pi

import torch
from torch import Tensor

from operators.nufft import NUFFT, check_trajectory


def density_compensation(
    trajectory: Tensor, spatial: Sequence[int], *, n_steps: int = 30, accuracy: float = 1e-6
) -> Tensor:
    """Return weights w for any trajectory, (batch or 1, *samples) float64, by the fixed point of Pipe and Menon:

        w <- w / (C w),    C_ij = |(F F^H)_ij|^2,    starting from w = 1

    with the `NUFFT` F of the image size. C is the trajectory convolved with the transform of the autocorrelated field
    of view, which is never negative; one pair of NUFFTs of twice the image size applies it. At the fixed point the
    weighted normal operator keeps the size of every plane wave that was measured, `f_i F^H W F f_i^H = 1` for the rows
    f_i of F. The units are such that a Cartesian grid has w = 1.

    Args:
        trajectory: (batch or 1, *samples, ndim) real, in cycles per field of view.
        spatial: image size.
        n_steps: iterations; the weights settle in ten to thirty.
        accuracy: of the NUFFT.

    Raises:
        ValueError, TypeError: as `NUFFT`; n_steps below 1.

    Reference: Pipe and Menon, Magn Reson Med 41, 1999; Johnson and Pipe, Magn Reson Med 61, 2009 (the kernel).
    """
    if n_steps < 1:
        raise ValueError(f"density_compensation: n_steps is {n_steps}, expected at least 1")
    spatial = tuple(spatial)
    check_trajectory("density_compensation", trajectory, spatial)
    double = tuple(2 * n for n in spatial)
    nufft = NUFFT(2 * trajectory.double(), double, accuracy=accuracy)
    overlap = torch.ones(double, dtype=torch.float64, device=trajectory.device)  # of the field of view with itself
    for axis, n in enumerate(spatial):
        lags = torch.arange(-n, n, dtype=torch.float64, device=trajectory.device)
        overlap *= (1 - lags.abs() / n).reshape(-1, *[1] * (len(spatial) - 1 - axis))
    overlap *= 2.0 ** len(spatial)  # the transforms are scaled to 2 N, C to N
    weights = torch.ones(trajectory.shape[:-1], dtype=torch.complex128, device=trajectory.device)
    for _ in range(n_steps):
        weights = weights / nufft(overlap * nufft.adjoint(weights)).real
    return weights.real


def radial_density_compensation(trajectory: Tensor) -> Tensor:
    """Return the ramp for spokes through the centre, (batch or 1, spokes, readout) in the dtype of the trajectory:

        w_j = c_d (f(|k_j| + dk / 2) - f(|k_j| - dk / 2)) / (2 n_spokes),    f(u) = sign(u) |u|^d

    the area (d = 2, c = pi) or volume (d = 3, c = 4 pi / 3) of the ring or shell around each sample, shared among the
    spokes: |k| dk pi / n_spokes in 2D, and the disc of the centre besides. In the units of `density_compensation`.

    Args:
        trajectory: (batch or 1, spokes, readout, 2 or 3) real, in cycles per field of view, the same field of view
            along all axes: equally spaced samples on full spokes whose directions are spread evenly.

    Raises:
        ValueError: another shape, fewer than two samples on a spoke.
        TypeError: a trajectory that is not real.

    Reference: Bernstein, King, Zhou, Handbook of MRI Pulse Sequences, 2004, section 17.6; O'Sullivan, IEEE TMI 4, 1985.
    """
    if trajectory.ndim != 4 or trajectory.shape[-1] not in (2, 3) or trajectory.shape[2] < 2:
        raise ValueError(
            f"radial_density_compensation: trajectory {tuple(trajectory.shape)}, expected (batch, spokes, readout, 2 or"
            " 3) with at least two samples on a spoke"
        )
    if not torch.is_floating_point(trajectory):
        raise TypeError(
            f"radial_density_compensation: trajectory has dtype {trajectory.dtype}, expected a real floating dtype"
        )
    ndim, n_spokes = trajectory.shape[-1], trajectory.shape[1]
    radius = torch.linalg.vector_norm(trajectory, dim=-1)
    half = torch.linalg.vector_norm(trajectory[:, :, 1:2] - trajectory[:, :, :1], dim=-1) / 2
    outer, inner = radius + half, radius - half
    volume = pi if ndim == 2 else 4 * pi / 3
    return volume * (outer**ndim - inner.sign() * inner.abs() ** ndim) / (2 * n_spokes)

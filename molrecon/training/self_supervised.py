"""Training without references: the network gets a part of the measured samples and is judged by the others.

Source: Yaman, Hosseini, Moeller, Ellermann, Ugurbil, Akcakaya, Self-supervised learning of physics-guided
reconstruction neural networks without fully sampled reference data (SSDU), Magn Reson Med 84, 2020.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from molrecon.simulation.problem import Problem
from molrecon.solvers.batched import norm

SHARE = 0.4  # of the samples outside the kept centre; the paper's rho
WIDEST_CENTRE = 24  # samples along each axis: what ESPIRiT uses
GAUSSIAN_WIDTH = 0.25  # standard deviation of the Gaussian choice as a fraction of each axis

Choice = Literal["uniform", "gaussian"]
KspaceLoss = Callable[[Tensor], Tensor]


def split(
    problem: Problem, rng: np.random.Generator, share: float = SHARE, choice: Choice = "gaussian"
) -> tuple[Problem, KspaceLoss]:
    """Return the problem of the samples Theta, and the loss of an image at the other samples, Lambda.

    Theta and Lambda part the measured samples. What is parted follows the mask of each sample of the batch: whole lines
    where it does not vary along an axis, single samples where it varies along all of them. Theta keeps the fully
    sampled centre that the sensitivity maps come from: a block of at most 24 samples along each undersampled axis and
    of at most half of what was measured. Of the others, the share rho goes to Lambda (in the paper the centre kept is
    4 x 4, and rho refers to all).

    The loss of an image x is `|y - A x|_2 / |y|_2 + |y - A x|_1 / |y|_1` on Lambda, y what was measured there, the mean
    over the batch. `problem.reference` is handed on and never looked at.

    Args:
        problem: the measurement, of any number of spatial axes.
        rng: source of the choice; every sample of the batch has its own, also where they share the mask.
        share: rho, between 0 and 1.
        choice: "gaussian", more often near the centre of k-space, with the density `exp(-d^2 / (2 (n / 4)^2))` of the
            distance d from it along undersampled axes of n samples, or "uniform".

    Returns:
        the problem with Theta as its mask, and image (batch, *spatial) -> scalar loss, differentiable.

    Raises:
        ValueError: a share out of range, an unknown choice, or a mask with fewer than two samples outside its centre.
    """
    if not 0 < share < 1 or choice not in ("uniform", "gaussian"):
        raise ValueError(f"split: share {share} and choice {choice!r}, expected 0 to 1 and gaussian or uniform")
    operator = problem.operator
    maps, ndim = operator.sensitivity_maps, operator.encoding.fourier_ndim
    measured = operator.sampling_mask.cpu().numpy()
    measured = np.broadcast_to(measured, (len(problem.kspace), *measured.shape[1:]))
    chosen = torch.from_numpy(np.stack([_chosen(mask, ndim, rng, share, choice) for mask in measured]))
    chosen = chosen.to(operator.sampling_mask.device)
    kind = type(operator)
    kept = kind(maps, operator.sampling_mask & ~chosen, ndim)
    judged = kind(maps, chosen, ndim)
    target = judged.sampling(problem.kspace)
    given = Problem(kept.sampling(problem.kspace), kept, problem.reference, problem.noise_level)
    return given, lambda image: normalised_l1_l2(judged(image), target)


def normalised_l1_l2(kspace: Tensor, target: Tensor) -> Tensor:
    """Return the batch mean of `|y - k|_2 / |y|_2 + |y - k|_1 / |y|_1`; a sample whose target y is zero adds nothing.

    Args:
        kspace: k (batch, ...) complex.
        target: y, shape of k.

    Source: Yaman et al. 2020, equation 9.
    """
    error = kspace - target
    tiny = torch.finfo(target.dtype).tiny
    two, one = norm(target), target.abs().flatten(1).sum(1)
    loss = norm(error) / two.clamp_min(tiny) + error.abs().flatten(1).sum(1) / one.clamp_min(tiny)
    return torch.where(two > 0, loss, torch.zeros_like(loss)).mean()


def _chosen(mask: np.ndarray, fourier_ndim: int, rng: np.random.Generator, share: float, choice: Choice) -> np.ndarray:
    """Return Lambda of one mask (*spatial), of its shape."""
    varying = [a for a in range(-mask.ndim, 0) if bool((mask != np.take(mask, [0], a)).any())]
    lines = mask[tuple(slice(None) if a in varying else slice(1) for a in range(-mask.ndim, 0))]
    axes = [a for a in varying if a >= -fourier_ndim]
    distance = {a: _along(np.arange(lines.shape[a]) - lines.shape[a] // 2, a, mask.ndim) for a in axes}
    free = np.argwhere(lines & ~_centre(lines, distance))
    if len(free) < 2:
        raise ValueError(
            f"split: mask {mask.shape} has {len(free)} samples or lines outside its fully sampled centre,"
            " expected two or more"
        )
    log_density = np.zeros(lines.shape)
    if choice == "gaussian":
        for a, d in distance.items():
            log_density = log_density - 0.5 * (d / (GAUSSIAN_WIDTH * lines.shape[a])) ** 2
    # The largest keys: a draw without replacement, in proportion to the density (Efraimidis and Spirakis 2006).
    keys = log_density[tuple(free.T)] + rng.gumbel(size=len(free))
    count = min(max(1, round(share * len(free))), len(free) - 1)
    chosen = np.zeros(lines.shape, bool)
    chosen[tuple(free[np.argsort(-keys, kind="stable")[:count]].T)] = True
    return chosen & mask


def _centre(lines: np.ndarray, distance: dict[int, np.ndarray]) -> np.ndarray:
    """Return the widest block around the zero frequency that `split` keeps, equally wide along the given axes."""
    centre = np.zeros(lines.shape, bool)
    for half in range(1, WIDEST_CENTRE // 2 + 1):
        block = np.ones(lines.shape, bool)
        for d in distance.values():
            block = block & (-half <= d) & (d < half)
        if not distance or not lines[block].all() or 2 * block.sum() > lines.sum() or (block == centre).all():
            break
        centre = block
    return centre


def _along(values: np.ndarray, axis: int, ndim: int) -> np.ndarray:
    """Return values (n,) as an array of `ndim` axes with n entries along one."""
    return values.reshape([-1 if a == axis else 1 for a in range(-ndim, 0)])

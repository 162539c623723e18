"""The Lipschitz penalty of approximately monotone models: a local estimate and its log barrier."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from molrecon.solvers.batched import norm, per_sample

ASCENT_STEPS = 2  # a step of training moves the weights little: the direction of the last one is nearly right
PERTURBATION = 0.05  # |v| / |x|
BARRIER_WIDTH = 0.01  # distance from the threshold at which the barrier becomes linear


def stretch(
    denoise: Callable[[Tensor], Tensor], image: Tensor, direction: Tensor, steps: int = ASCENT_STEPS
) -> tuple[Tensor, Tensor]:
    """Return `l = |H(x + v) - H(x)| / |v|` per sample, differentiable in the weights, and the v it was found with.

    v is moved from `direction` by steps of `v <- J^T (H(x + v) - H(x))` at constant length `PERTURBATION |x|`, power
    iteration where H is linear. A lower bound of the local Lipschitz constant: it can be penalised, not certified.

    Args:
        denoise: H on real images (batch, channel, *spatial).
        image: x, detached.
        direction: where the search starts, any length, shape of x.
        steps: ascent steps.

    Source: Bungert, Raab, Roith, Schwinn, Tenbrinck, CLIP, SSVM 2021, algorithm 1.
    """
    length = PERTURBATION * norm(image).clamp_min(torch.finfo(image.dtype).tiny)

    def scaled(v: Tensor) -> Tensor:
        return v * per_sample(length / norm(v).clamp_min(torch.finfo(v.dtype).tiny), v)

    with torch.no_grad():
        fixed = denoise(image)
    v = scaled(direction)
    for _ in range(steps):
        v = v.requires_grad_()
        with torch.enable_grad():
            half_square = 0.5 * (denoise(image + v) - fixed).square().sum()
            (gradient,) = torch.autograd.grad(half_square, v)
        v = scaled(gradient.detach())
    return norm(denoise(image + v) - denoise(image)) / length, v


def log_barrier(estimate: Tensor, threshold: float) -> Tensor:
    """Return `-log(T - l)`, continued linearly from `l = T - BARRIER_WIDTH` on; shape of the estimate.

    Source: Pramanik, Zimmerman, Jacob, IEEE TCI 2023, section IV-B (log barrier); the linear continuation gives a
    step of the optimiser that lands beyond the barrier a way back.
    """
    gap = (threshold - estimate).clamp_min(BARRIER_WIDTH)
    beyond = (estimate - threshold + BARRIER_WIDTH).clamp_min(0) / BARRIER_WIDTH
    return beyond - gap.log()

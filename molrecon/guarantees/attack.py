"""Worst-case perturbations of the data, for any differentiable reconstruction."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from molrecon.solvers.batched import norm, per_sample


@final
@dataclass(frozen=True, eq=False)
class Attack:
    """The most harmful perturbation that was found, per sample.

    Attributes:
        perturbation: d, like the k-space, with `|d| <= radius`.
        change: (batch,), `|x(b + d) - target|` for this d; a lower bound of what is possible within the radius.
        history: (steps + 1, batch), the same at every point that was tried, the start included.
    """

    perturbation: Tensor
    change: Tensor
    history: Tensor


def worst_case_kspace(
    reconstruct: Callable[[Tensor], Tensor],
    kspace: Tensor,
    radius: float | Tensor,
    steps: int,
    *,
    generator: torch.Generator,
    project: Callable[[Tensor], Tensor] | None = None,
    reference: Tensor | None = None,
    start: Tensor | None = None,
    step_size: float = 1.0,
) -> Attack:
    """Maximise `|x(b + d) - target|` over `|d| <= radius` by projected gradient ascent, each sample by itself.

        d <- Q(d + step_size radius g / |g|),    g = P grad_d |x(b + d) - target|^2 / 2

    with P the projection on the measured samples and Q that on the ball. Every iterate is evaluated and the best is
    returned. For a linear reconstruction this is a damped power iteration.

    Args:
        reconstruct: x, k-space (batch, ...) to image (batch, *spatial), differentiable by autograd, samples independent
            of each other. Anything that such a function takes may stand for the k-space (sensitivity maps, for one).
        kspace: b, (batch, coil, *spatial) complex.
        radius: of the l2 ball, in the units of b; a number or (batch,), at least 0.
        steps: ascent steps, at least 1. Each costs one reconstruction with its gradient.
        generator: of the random start, on the device of the k-space.
        project: P, a linear orthogonal projection such as `A.sampling`, which zeroes what is not measured; the identity
            when None.
        reference: target, (batch, *spatial); x(b) when None, and the change is then that of the reconstruction.
        start: first d, scaled to the radius; random when None. d = 0 is a stationary point when the target is x(b).
        step_size: relative to the radius.

    Raises:
        ValueError: a negative radius, no steps, a step size that is not positive, a reconstruction that is not finite.

    The global generator is not touched, and no gradient flows to the parameters of `reconstruct`.

    Reference: Antun, Renna, Poon, Adcock, Hansen, PNAS 117, 2020 (instabilities of learned reconstructions); Madry et
    al., ICLR 2018 (projected gradient ascent).
    """
    size = torch.as_tensor(radius, dtype=kspace.real.dtype, device=kspace.device).expand(len(kspace))
    if steps < 1 or not step_size > 0 or not bool((size >= 0).all()):
        raise ValueError(
            f"worst_case_kspace: got radius {radius}, steps {steps} and step_size {step_size}, expected a radius of at"
            " least 0, at least one step and a positive step size"
        )
    kspace = kspace.detach()
    keep = project if project is not None else _identity
    if start is None:
        start = torch.randn(kspace.shape, dtype=kspace.dtype, device=kspace.device, generator=generator)
    change = _with_norm(keep(start.detach()), size)
    if reference is None:
        with torch.no_grad():
            reference = reconstruct(kspace)
    target = reference.detach()
    best = change
    history: list[Tensor] = []
    for step in range(steps + 1):
        distance, gradient = _ascent(reconstruct, kspace, change, target, needed=step < steps)
        if not bool(torch.isfinite(distance).all()):
            raise ValueError(f"worst_case_kspace: the reconstruction is not finite after {step} steps")
        history.append(distance)
        better = distance >= torch.stack(history).amax(0)
        best = torch.where(per_sample(better, change), change, best)
        if gradient is not None:
            change = change + _with_norm(keep(gradient), step_size * size)
            change = _with_norm(change, torch.minimum(norm(change), size))
    distances = torch.stack(history)
    return Attack(perturbation=best, change=distances.amax(0), history=distances)


def _ascent(
    reconstruct: Callable[[Tensor], Tensor], kspace: Tensor, change: Tensor, target: Tensor, *, needed: bool
) -> tuple[Tensor, Tensor | None]:
    """Return `|x(b + d) - target|` (batch,), and the gradient of half its square in d where it is needed."""
    with torch.set_grad_enabled(needed):
        point = change.detach().requires_grad_(needed)
        difference = reconstruct(kspace + point) - target
        distance = norm(difference)
    if not needed:
        return distance.detach(), None
    # The gradient of a sum over independent samples is each sample's own.
    (gradient,) = torch.autograd.grad(distance.square().sum() / 2, point)
    return distance.detach(), gradient


def _with_norm(x: Tensor, size: Tensor) -> Tensor:
    """Return x scaled to the norm `size` (batch,), per sample; a zero sample stays zero."""
    now = norm(x)
    factor = torch.where(now > 0, size / now.clamp_min(torch.finfo(now.dtype).tiny), 0.0)
    return per_sample(factor, x) * x


def _identity(x: Tensor) -> Tensor:
    return x

"""What a reconstruction or a solver returns: the value together with how far it is from the truth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, final

import torch
from torch import Tensor

Kind = Literal["certified", "estimated", "none"]


@final
@dataclass(frozen=True)
class Solution:
    """An image or another solution with its report, all of it per sample.

    Attributes:
        value: (batch, ...), the last or the best iterate.
        error_bound: (batch,), an upper bound of `|value - x*| / |value|` where x* is the exact solution of the method's
            own equation; NaN where nothing is known about that distance, and only there.
        residuals: (n_steps + 1, batch), the history of the bound, the start included; where there is no bound, of what
            the method watches instead (its relative residual, a duality gap).
        converged: (batch,) bool, the tolerance was reached; True for methods that iterate nothing.
        n_steps: (batch,) int, iterations or stages.
        stalled: (batch,) bool, not converged because the residual does not fall any further: the error bound is the
            accuracy attainable in this precision. None where a method does not look for it.
        kind: what the error bound rests on: "certified", true upper bounds, rounding included; "estimated", constants
            that were observed or assumed, such as those a solver was called with; "none", there is no bound.
        duality_gap: (batch,), of convex problems, relative to their objective's scale; None for all others.
        last_residual: (batch, ...), r at `value`: what is left there of the method's own equation. None where it was
            not asked for (`SolverSettings.keep_residual`), or a method has none.
    """

    value: Tensor
    error_bound: Tensor
    residuals: Tensor
    converged: Tensor
    n_steps: Tensor
    stalled: Tensor | None = None
    kind: Kind = "estimated"
    duality_gap: Tensor | None = None
    last_residual: Tensor | None = None

    def __repr__(self) -> str:
        """Return shape, dtype and the worst of the report in one line; the numbers are in the attributes."""
        dtype = str(self.value.dtype).removeprefix("torch.")
        bound = "no error bound" if self.kind == "none" else f"{self.kind} error_bound {_worst(self.error_bound)}"
        return (
            f"Solution(value {tuple(self.value.shape)} {dtype}, {bound}, {int(self.converged.sum())} of"
            f" {len(self.converged)} converged, n_steps {int(self.n_steps.amax()) if len(self.n_steps) else 0})"
        )

    def shortfall(self) -> str:
        """Return in words how many samples did not converge, and why; empty when all did."""
        missed = ~self.converged
        if not bool(missed.any()):
            return ""
        stalled = self.stalled if self.stalled is not None else torch.zeros_like(missed)
        reasons = []
        for which, reason in (
            (stalled, "reached the accuracy attainable in this precision"),
            (~stalled, "ran out of steps or left the finite numbers"),
        ):
            values = self.residuals[-1][missed & which]
            if len(values):
                quantity = "residual" if self.kind == "none" else "error bound"
                reasons.append(f"{len(values)} {reason} ({quantity} {float(values.max()):.1e} at worst)")
        return f"{int(missed.sum())} of {len(missed)} samples did not converge: {', '.join(reasons)}"

    def with_value(self, value: Tensor) -> Solution:
        """Return the same report on another value, such as the value in other units."""
        return replace(self, value=value)

    def with_residual_in(self, scale: Tensor, dtype: torch.dtype) -> Solution:
        """Return the same solution with `last_residual`, if there is one, in other units and another precision."""
        left = self.last_residual
        return self if left is None else replace(self, last_residual=left.to(dtype) * scale.detach())

    def error_bound_as(self, dtype: torch.dtype) -> Tensor:
        """Return `error_bound` for the value converted to another dtype, whose rounding it then holds."""
        return self.error_bound if self.value.dtype == dtype else self.error_bound + torch.finfo(dtype).eps

    def with_kind(self, kind: Kind) -> Solution:
        """Return the same solution with another word for what its bound rests on; "none" takes the bound away."""
        bound = torch.full_like(self.error_bound, torch.nan) if kind == "none" else self.error_bound
        return replace(self, kind=kind, error_bound=bound)


@final
@dataclass(frozen=True)
class Iterate:
    """One iterate on the way to a solution.

    Attributes:
        step: 0 for the first iterate.
        value: (batch, ...); of a sample that is finished, the last one.
        residual: (batch,), the entry of `Solution.residuals`: the iterate's error bound, or what is watched instead.
    """

    step: int
    value: Tensor
    residual: Tensor


def in_units(scale: Tensor, on_step: Callable[[Iterate], None] | None) -> Callable[[Iterate], None] | None:
    """Return the callback for iterates at unit scale; it hands them on in the units of the data."""
    if on_step is None:
        return None
    return lambda iterate: on_step(replace(iterate, value=iterate.value * scale))


def _worst(bound: Tensor) -> str:
    return f"<= {float(bound.detach().amax()):.1e}" if bound.numel() else "of no sample"


def unbounded_solution(image: Tensor, n_steps: int = 0) -> Solution:
    """Return what a method that solves no equation has to report: its image after so many stages, and no bound."""
    unknown = image.detach().real.new_full((len(image),), torch.nan)
    steps = torch.full((len(image),), n_steps, dtype=torch.int64, device=image.device)
    return Solution(image, unknown, unknown[None], torch.ones_like(steps, dtype=torch.bool), steps, kind="none")

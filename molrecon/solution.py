"""What a solver returns: the value together with how far it is from the truth."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Tensor


@final
@dataclass(frozen=True)
class Solution:
    """The result of an iterative solve, all of it per sample.

    Attributes:
        value: (batch, ...), the last iterate.
        error_bound: (batch,), an upper bound of `|value - x*| / |value|` where x* is the exact solution; a guarantee
            as far as the solver's constants are (see the model's certificate).
        residuals: (n_steps + 1, batch), that bound at every iterate, the start included.
        converged: (batch,) bool, the tolerance was reached.
        n_steps: (batch,) int, iterations used.
        stalled: (batch,) bool, not converged because the residual does not fall any further: the error bound is the
            accuracy attainable in this precision. None where a method does not look for it.
    """

    value: Tensor
    error_bound: Tensor
    residuals: Tensor
    converged: Tensor
    n_steps: Tensor
    stalled: Tensor | None = None

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
            found = self.error_bound[missed & which]
            if len(found):
                reasons.append(f"{len(found)} {reason} (error bound {float(found.max()):.1e} at worst)")
        return f"{int(missed.sum())} of {len(missed)} samples did not converge: {', '.join(reasons)}"

    def with_value(self, value: Tensor) -> Solution:
        """Return the same report on another value, such as the value in other units."""
        return replace(self, value=value)


def explicit_solution(image: Tensor) -> Solution:
    """Return what a method that iterates nothing has to report: its image, exact, after no step."""
    nothing = image.real.new_zeros(len(image))
    return Solution(image, nothing, nothing[None], nothing == 0, nothing.long())

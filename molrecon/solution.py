"""What a solver returns: the value together with how far it is from the truth."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import final

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
    """

    value: Tensor
    error_bound: Tensor
    residuals: Tensor
    converged: Tensor
    n_steps: Tensor

    def with_value(self, value: Tensor) -> Solution:
        """Return the same report on another value, such as the value in other units."""
        return replace(self, value=value)

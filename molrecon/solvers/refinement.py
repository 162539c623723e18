"""Residuals of an iterate in double precision, most of them at the price of single precision."""

from __future__ import annotations

from collections.abc import Callable
from typing import final

import torch
from torch import Tensor

from molrecon.solvers.batched import norm, per_sample

SHARE = 0.01  # of the residual, that the rounding of single precision may be
ROUNDINGS = 4  # of one application of the matrix, in eps


@final
class RefinedResidual:
    """`r(x) = s(x) - P x` of iterates x in double precision, with P applied in single precision while that suffices.

    P y is known in double precision for a reference y, an earlier iterate of the sample. With it

        P x = P y + P (x - y),

    and the second term rounds by eps times its own size, not by that of x. When what it rounds by reaches a hundredth
    of the residual, P x is computed in double precision, and x becomes the reference. In a solve that is once in ten to
    twenty steps. `exactly` is always in double precision: what is reported of a solution rests on that.

    Args:
        source: x -> s(x), in the precision of x.
        matrix: x -> P x, linear, in the precision that it is given.
        weight: (batch, 1, ...), the size of P at most, for the estimate of its rounding.
        narrow: the lower precision.
    """

    def __init__(
        self,
        source: Callable[[Tensor], Tensor],
        matrix: Callable[[Tensor], Tensor],
        weight: Tensor,
        narrow: torch.dtype,
    ) -> None:
        self._source, self._matrix, self._narrow = source, matrix, narrow
        self._weight = weight.flatten()
        self._reference: tuple[Tensor, Tensor] | None = None  # y, P y
        self._last: tuple[Tensor, Tensor] | None = None  # x, s(x)

    def __call__(self, x: Tensor) -> Tensor:
        """Return r(x), off by a hundredth of itself at most."""
        if self._reference is None:
            return self.exactly(x, torch.ones(len(x), dtype=torch.bool, device=x.device))
        reference, image = self._reference
        source = self._source_at(x)
        change = (x - reference).to(self._narrow)
        moved = self._matrix(change).to(self._narrow)
        r = source - image - moved
        rounding = ROUNDINGS * torch.finfo(self._narrow).eps * (norm(moved) + self._weight * norm(change))
        far = rounding > SHARE * norm(r)  # of residuals that are not finite, none
        return self._afresh(x, source, r, far) if bool(far.any()) else r

    def exactly(self, x: Tensor, samples: Tensor) -> Tensor:
        """Return r(x) in double precision of the marked samples (batch,) bool, and s(x) of the others.

        s is not computed again if x is the last iterate that was asked for, nor is P x if it is the reference.
        """
        source = self._source_at(x)
        if self._reference is not None and self._reference[0] is x:
            return source - self._reference[1]
        return self._afresh(x, source, source, samples)

    def _source_at(self, x: Tensor) -> Tensor:
        if self._last is None or self._last[0] is not x:
            self._last = (x, self._source(x))
        return self._last[1]

    def _afresh(self, x: Tensor, source: Tensor, r: Tensor, samples: Tensor) -> Tensor:
        """Return r with that of the marked samples (batch,) in double precision, whose reference x becomes."""
        image = self._matrix(x)
        marked = per_sample(samples, x)
        if self._reference is None:
            self._reference = (x, image)
        else:
            reference, image_before = self._reference
            self._reference = (torch.where(marked, x, reference), torch.where(marked, image, image_before))
        return torch.where(marked, source - image, r)

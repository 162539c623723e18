"""The identity, and operators on top of each other."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import reduce
from typing import final

import torch
from torch import Tensor, nn

from operators.linear import LinearOperator
from operators.shapes import MORE, Shapes


@final
class Identity(LinearOperator):
    """The operator I, on tensors (batch, ...) of any dtype.

    Raises:
        ValueError, when called: a tensor without a batch axis.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return x."""
        if x.ndim == 0:
            raise ValueError(f"Identity: input {tuple(x.shape)}, expected (batch, ...)")
        return x

    def adjoint(self, y: Tensor) -> Tensor:
        """Return y."""
        return self(y)

    def normal(self, x: Tensor) -> Tensor:
        """Return x."""
        return self(x)

    @property
    def shapes(self) -> Shapes:
        """(batch, ...) to the same."""
        return Shapes(("batch", MORE), ("batch", MORE))


@final
class VerticalStack(LinearOperator):
    """Operators on the same image, one on top of the other: `y = (A_1 x, ..., A_n x)`, concatenated along axis 1.

        VerticalStack([first_scan, second_scan], [8, 8])         two acquisitions, 8 coils each
        VerticalStack([Flatten(s) @ A, 0.1 * Flatten(t)], [m, n])   least squares with a penalty, as vectors

    `A^H y = sum_k A_k^H y_k`, and `A^H A = sum_k A_k^H A_k` by the normal operators of the parts, at their speed.

    Args:
        operators: A_k, at least one; ranges (batch, n_k, ...) that agree in all axes but axis 1.
        sizes: n_k.

    Raises:
        ValueError: no operators, another number of sizes; when called, ranges that do not fit.
        TypeError: parts that are no operators.
    """

    def __init__(self, operators: Sequence[LinearOperator], sizes: Sequence[int]) -> None:
        super().__init__()
        if not operators or len(operators) != len(sizes) or min(sizes) < 1:
            raise ValueError(
                f"VerticalStack: {len(operators)} operators and the sizes {tuple(sizes)}, expected a positive size for"
                " each of at least one operator"
            )
        for operator in operators:
            if not isinstance(operator, LinearOperator):
                raise TypeError(f"VerticalStack: got {type(operator).__name__}, expected a LinearOperator")
        self.operators = nn.ModuleList(operators)
        self.sizes = tuple(sizes)

    def forward(self, x: Tensor) -> Tensor:
        """Return `(A_1 x, ..., A_n x)`."""
        results = [operator(x) for operator in self._stacked()]
        for result, size in zip(results, self.sizes, strict=True):
            if result.shape[1] != size or result.shape[2:] != results[0].shape[2:]:
                raise ValueError(
                    f"VerticalStack: results {', '.join(str(tuple(y.shape)) for y in results)}, expected sizes"
                    f" {self.sizes} on axis 1 and equal ones on the others"
                )
        return torch.cat(results, dim=1)

    def adjoint(self, y: Tensor) -> Tensor:
        """Return `sum_k A_k^H y_k`."""
        if y.ndim < 2 or y.shape[1] != sum(self.sizes):
            raise ValueError(f"VerticalStack: measurements {tuple(y.shape)}, expected (batch, {sum(self.sizes)}, ...)")
        pairs = zip(self._stacked(), y.split(self.sizes, dim=1), strict=True)
        return _added(operator.adjoint(rows) for operator, rows in pairs)

    def normal(self, x: Tensor) -> Tensor:
        """Return `sum_k A_k^H A_k x`."""
        return _added(operator.normal(x) for operator in self._stacked())

    @property
    def sets(self) -> int | None:
        """Those of the first operator."""
        return self._stacked()[0].sets

    @property
    def shapes(self) -> Shapes | None:
        """The domain that the operators share, and all their ranges along axis 1."""
        stacked: Shapes | None = None
        for operator, size in zip(self._stacked(), self.sizes, strict=True):
            shapes = operator.shapes
            if shapes is None:
                return None
            shapes = shapes.before(Shapes(("batch", size, MORE), ("batch", sum(self.sizes), MORE)))
            stacked = shapes if stacked is None else stacked.merged(shapes)
        return stacked

    def extra_repr(self) -> str:
        """Return the operators, each with its size along axis 1."""
        pairs = zip(self._stacked(), self.sizes, strict=True)
        return ", ".join(f"{size}: {operator.formula()}" for operator, size in pairs)

    def _stacked(self) -> list[LinearOperator]:
        return [operator for operator in self.operators if isinstance(operator, LinearOperator)]


def _added(images: Iterable[Tensor]) -> Tensor:
    return reduce(torch.add, images)

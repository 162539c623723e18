"""Linear operators with exact adjoints: the shape every acquisition model takes here."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import final

import torch
from torch import Tensor, nn


class LinearOperator(nn.Module, ABC):
    """A linear map `y = A x` on batched tensors, with its adjoint `A^H y` and normal operator `A^H A x`.

    Subclasses define `forward` and `adjoint`, and override `normal` where the physics makes it cheaper than the
    two in turn. The batch is the first axis of input and output. Physical constants are non-persistent buffers, so
    that `.to(device)` moves them and a state dict holds weights only.
    """

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Return `A x`."""

    @abstractmethod
    def adjoint(self, y: Tensor) -> Tensor:
        """Return `A^H y`, where `<A x, y> = <x, A^H y>` for all x and y."""

    def normal(self, x: Tensor) -> Tensor:
        """Return `A^H A x`."""
        return self.adjoint(self(x))

    @property
    def H(self) -> LinearOperator:  # noqa: N802
        """The adjoint as an operator of its own."""
        return Adjoint(self)

    def __matmul__(self, other: LinearOperator) -> LinearOperator:
        """Return the composition `A B`, which applies `other` first."""
        if not isinstance(other, LinearOperator):
            raise TypeError(f"LinearOperator @: got {type(other).__name__}, expected a LinearOperator")
        return Composition(self, other)


@final
class Adjoint(LinearOperator):
    """The operator `A^H`; its adjoint is A again."""

    def __init__(self, operator: LinearOperator) -> None:
        super().__init__()
        self.operator = operator

    def forward(self, x: Tensor) -> Tensor:
        """Return `A^H x`."""
        return self.operator.adjoint(x)

    def adjoint(self, y: Tensor) -> Tensor:
        """Return `A y`."""
        return self.operator(y)

    @property
    def H(self) -> LinearOperator:  # noqa: N802
        """The operator A itself."""
        return self.operator


@final
class Composition(LinearOperator):
    """The product `A B`: `forward(x) = A(B x)`, `adjoint(y) = B^H(A^H y)`."""

    def __init__(self, outer: LinearOperator, inner: LinearOperator) -> None:
        super().__init__()
        self.outer = outer
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        """Return `A(B x)`."""
        return self.outer(self.inner(x))

    def adjoint(self, y: Tensor) -> Tensor:
        """Return `B^H(A^H y)`."""
        return self.inner.adjoint(self.outer.adjoint(y))

    def normal(self, x: Tensor) -> Tensor:
        """Return `B^H(A^H A)(B x)`, using the outer operator's own normal form."""
        return self.inner.adjoint(self.outer.normal(self.inner(x)))


def require_complex(who: str, name: str, tensor: Tensor) -> None:
    """Raise TypeError unless `tensor` is complex."""
    if not torch.is_complex(tensor):
        raise TypeError(f"{who}: {name} has dtype {tensor.dtype}, expected a complex dtype")

"""Linear operators with exact adjoints: the shape every acquisition model takes here."""

from __future__ import annotations

import cmath
import copy
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, TypeVar, final

import torch
from torch import Tensor, nn

from operators.conversion import keeping_kind
from operators.shapes import Shapes

Operator = TypeVar("Operator", bound="LinearOperator")


class LinearOperator(nn.Module, ABC):
    """A linear map `y = A x` on batched tensors, with its adjoint `A^H y` and normal operator `A^H A x`.

    Subclasses define `forward` and `adjoint`, and override `normal` where the physics makes it cheaper than the
    two in turn. The batch is the first axis of input and output. Physical constants are non-persistent buffers, so
    that they move with the operator and a state dict holds weights only.

    Operators make operators: `A @ B`, `A + B`, `A - B`, `2 * A`, `A / 2`, `-A`, `A.H`, and `VerticalStack`.

    `repr(A)` says from which shape to which A maps, for subclasses that define `shapes` and what is made of them.

    `.to(...)`, `.double()`, `.float()` and the like change the operator in place, as they do any torch module; complex
    tensors stay complex and masks stay masks (`keeping_kind`). `on` returns a changed copy instead.
    """

    @property
    def sets(self) -> int | None:
        """The number of images that make one sample, an axis after the batch; None without such an axis."""
        return None

    @property
    def shapes(self) -> Shapes | None:
        """Domain and range, which `repr` shows; None for an operator that does not state them."""
        return None

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

    def on(
        self: Operator, device: torch.device | str | int | None = None, dtype: torch.dtype | None = None
    ) -> Operator:
        """Return a copy of the operator on another device, in another precision, or both; this one stays as it is.

        What does not change is shared, not copied: maps that are on the device already are the same tensor in both.
        Parameters (`BinaryDense`) are copied, so that a gradient of the copy does not reach this operator.

        Args:
            device: None for where it is.
            dtype: a floating or complex dtype, of which the precision is taken; None for the one it has.
        """
        copied = copy.deepcopy(self, {id(buffer): buffer for buffer in self.buffers()})
        return copied.to(device=device, dtype=dtype)

    def to(self: Operator, *args: Any, **kwargs: Any) -> Operator:
        """Move or convert this operator in place and return it, as `nn.Module.to` does, but see `keeping_kind`."""
        # torch warns that complex modules are a new feature of its own; of a dtype only the precision is needed here.
        arguments: list[Any] = []
        for value in args:
            arguments += [value.device, value.dtype] if isinstance(value, Tensor) else [value]
        like = kwargs.pop("tensor", None)
        if isinstance(like, Tensor):
            kwargs |= {"device": like.device, "dtype": like.dtype}
        if isinstance(kwargs.get("dtype"), torch.dtype):
            kwargs["dtype"] = kwargs["dtype"].to_real()
        plain: list[Any] = [value.to_real() if isinstance(value, torch.dtype) else value for value in arguments]
        super().to(*plain, **kwargs)
        return self

    def _apply(self: Operator, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Operator:
        super()._apply(keeping_kind(fn), recurse)
        return self

    def __matmul__(self, other: LinearOperator) -> LinearOperator:
        """Return the composition `A B`, which applies `other` first."""
        if not isinstance(other, LinearOperator):
            raise TypeError(f"LinearOperator @: got {type(other).__name__}, expected a LinearOperator")
        return Composition(self, other)

    def __add__(self, other: LinearOperator) -> LinearOperator:
        """Return the sum `A + B`."""
        return Sum(self, other) if isinstance(other, LinearOperator) else NotImplemented

    def __sub__(self, other: LinearOperator) -> LinearOperator:
        """Return the difference `A - B`."""
        return Sum(self, Scaled(-1, other)) if isinstance(other, LinearOperator) else NotImplemented

    def __mul__(self, factor: complex) -> LinearOperator:
        """Return `factor A`."""
        return Scaled(factor, self) if isinstance(factor, int | float | complex) else NotImplemented

    __rmul__ = __mul__

    def __truediv__(self, divisor: complex) -> LinearOperator:
        """Return `A / divisor`."""
        return Scaled(1 / divisor, self) if isinstance(divisor, int | float | complex) else NotImplemented

    def __neg__(self) -> LinearOperator:
        """Return `-A`."""
        return Scaled(-1, self)

    def __repr__(self) -> str:
        name, formula = type(self).__name__, self.formula()
        words = (str(self.shapes or ""), "" if formula == name else formula, self.extra_repr())
        return f"{name}({', '.join(filter(None, words))})"

    def extra_repr(self) -> str:
        """Return what follows the shapes in `repr`; without shapes, the names and shapes of the tensors held."""
        tensors = () if self.shapes else (*self.named_parameters(), *self.named_buffers())
        return ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in tensors)

    def formula(self) -> str:
        """Return the operator as it is written in sums and products of operators: its kind."""
        return type(self).__name__


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

    @property
    def shapes(self) -> Shapes | None:
        """Those of A, exchanged."""
        inner = self.operator.shapes
        return inner and Shapes(inner.range, inner.domain)

    def formula(self) -> str:
        """Return `A.H`."""
        return f"{_bracketed(self.operator)}.H"


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

    @property
    def sets(self) -> int | None:
        """Those of the inner operator, which takes the images."""
        return self.inner.sets

    @property
    def shapes(self) -> Shapes | None:
        """Domain of the inner, range of the outer operator."""
        inner, outer = self.inner.shapes, self.outer.shapes
        return inner.before(outer) if inner and outer else None

    def formula(self) -> str:
        """Return `A @ B`."""
        outer = self.outer.formula() if isinstance(self.outer, Composition) else _bracketed(self.outer)
        return f"{outer} @ {_bracketed(self.inner)}"


@final
class Sum(LinearOperator):
    """The sum `A + B` of operators with the same domain and range.

    Raises:
        ValueError, when called: ranges of different shapes.
    """

    def __init__(self, first: LinearOperator, second: LinearOperator) -> None:
        super().__init__()
        self.first = first
        self.second = second

    def forward(self, x: Tensor) -> Tensor:
        """Return `A x + B x`."""
        return self._added(self.first(x), self.second(x))

    def adjoint(self, y: Tensor) -> Tensor:
        """Return `A^H y + B^H y`."""
        return self._added(self.first.adjoint(y), self.second.adjoint(y))

    @property
    def sets(self) -> int | None:
        """Those of the first operator."""
        return self.first.sets

    def _added(self, a: Tensor, b: Tensor) -> Tensor:
        if a.shape != b.shape:
            # adding would broadcast them, of which the adjoint is another operator
            raise ValueError(f"Sum: results {tuple(a.shape)} and {tuple(b.shape)} of {self}, expected the same shape")
        return a + b

    @property
    def shapes(self) -> Shapes | None:
        """Those that the operators have in common."""
        first, second = self.first.shapes, self.second.shapes
        return first.merged(second) if first and second else None

    def formula(self) -> str:
        """Return `A + B`, or `A - B`."""
        if isinstance(self.second, Scaled) and self.second.factor == -1:
            subtracted = self.second.operator
            brackets = "({})" if isinstance(subtracted, Sum) else "{}"
            return f"{self.first.formula()} - {brackets.format(subtracted.formula())}"
        return f"{self.first.formula()} + {self.second.formula()}"


@final
class Scaled(LinearOperator):
    """The operator `factor A`; its adjoint is `conj(factor) A^H`, its normal operator `|factor|^2 A^H A`.

    Args:
        factor: a finite number, real for operators on real tensors.
        operator: A.

    Raises:
        ValueError: a factor that is not finite.
    """

    def __init__(self, factor: complex, operator: LinearOperator) -> None:
        super().__init__()
        if not cmath.isfinite(factor):
            raise ValueError(f"Scaled: factor is {factor}, expected a finite number")
        self.factor = factor
        self.operator = operator

    def forward(self, x: Tensor) -> Tensor:
        """Return `factor A x`."""
        y: Tensor = self.factor * self.operator(x)
        return y

    def adjoint(self, y: Tensor) -> Tensor:
        """Return `conj(factor) A^H y`."""
        return self.factor.conjugate() * self.operator.adjoint(y)

    def normal(self, x: Tensor) -> Tensor:
        """Return `|factor|^2 A^H A x`."""
        return abs(self.factor) ** 2 * self.operator.normal(x)

    @property
    def sets(self) -> int | None:
        """Those of A."""
        return self.operator.sets

    @property
    def shapes(self) -> Shapes | None:
        """Those of A."""
        return self.operator.shapes

    def formula(self) -> str:
        """Return `factor * A`."""
        return f"{self.factor:g} * {_bracketed(self.operator)}"


def _bracketed(operator: LinearOperator) -> str:
    formula = operator.formula()
    return f"({formula})" if isinstance(operator, Composition | Sum | Scaled) else formula


def require_complex(who: str, name: str, tensor: Tensor) -> None:
    """Raise TypeError unless `tensor` is complex."""
    if not torch.is_complex(tensor):
        raise TypeError(f"{who}: {name} has dtype {tensor.dtype}, expected a complex dtype")

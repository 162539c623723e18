"""Operators of other libraries from ours, and ours from theirs; each library is imported where it is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, final

import numpy as np
import torch
from torch import Tensor

from operators.linear import LinearOperator
from operators.shapes import Shapes

if TYPE_CHECKING:
    from deepinv.physics import LinearPhysics
    from sigpy.linop import Linop


def to_sigpy(operator: LinearOperator, input_shape: Sequence[int], output_shape: Sequence[int]) -> Linop:
    """Return the operator as a `sigpy.linop.Linop` on numpy arrays, its normal operator included.

    sigpy knows no batch, so neither does the result: it is the operator of one sample.

        to_sigpy(A, input_shape, output_shape) * x = A(x[None])[0]

    `.H` is the adjoint, and `.N` the operator's own `normal`, so that sigpy's solvers run at its speed. Arrays pass
    without a copy where numpy allows it; an operator on another device gets its arrays moved there and back.

    Args:
        operator: A, with batches of one allowed.
        input_shape: A's input shape without the batch, `(*spatial)` for `Sense`.
        output_shape: A's output shape without the batch, `(coil, *spatial)` for `Sense`.

    Raises:
        ImportError: sigpy is not installed.
        TypeError: not a LinearOperator.
        RuntimeError: from sigpy, around the ValueError or TypeError of an array that does not fit.
    """
    try:
        from sigpy.linop import Linop
    except ImportError as error:
        raise ImportError(
            f"to_sigpy: sigpy cannot be imported ({error}), expected it installed: pip install sigpy"
        ) from error

    _require_operator("to_sigpy", operator)

    class OperatorLinop(Linop):
        def __init__(self, operator: LinearOperator, output_shape: Sequence[int], input_shape: Sequence[int]) -> None:
            super().__init__(output_shape, input_shape, repr_str=type(operator).__name__)
            self.operator = operator

        def _apply(self, array: np.ndarray) -> np.ndarray:
            constant = next(self.operator.buffers(), None)
            # Read-only arrays and negative strides are what torch cannot share.
            x = torch.from_numpy(np.require(array, requirements=["C", "W"]))[None]
            with torch.no_grad():
                y = self.operator(x if constant is None else x.to(constant.device))[0]
            if [*x.shape[1:], *y.shape] != [*self.ishape, *self.oshape]:
                raise ValueError(
                    f"to_sigpy: {self.repr_str} maps {tuple(x.shape[1:])} to {tuple(y.shape)}, expected"
                    f" {tuple(self.ishape)} to {tuple(self.oshape)}"
                )
            return y.resolve_conj().resolve_neg().cpu().numpy()

        def _adjoint_linop(self) -> OperatorLinop:
            return OperatorLinop(self.operator.H, self.ishape, self.oshape)

        def _normal_linop(self) -> OperatorLinop:
            return OperatorLinop(_Normal(self.operator), self.ishape, self.ishape)

    return OperatorLinop(operator, output_shape, input_shape)


def from_sigpy(linop: Linop) -> LinearOperator:
    """Return a `sigpy.linop.Linop` as a LinearOperator that autograd differentiates: the backward pass is the adjoint.

    Args:
        linop: A, from arrays of shape `linop.ishape` to arrays of shape `linop.oshape`.

    Returns:
        The operator (batch, *linop.ishape) to (batch, *linop.oshape), each sample through the Linop on its own, with
        `linop.N` as `normal`. The Linop sees numpy arrays: tensors on another device are moved to the CPU and back.

    Raises:
        ImportError: sigpy is not installed.
        TypeError: not a Linop.
        ValueError, when called: an input of another shape.
    """
    try:
        from sigpy.linop import Linop
    except ImportError as error:
        raise ImportError(
            f"from_sigpy: sigpy cannot be imported ({error}), expected it installed: pip install sigpy"
        ) from error
    if not isinstance(linop, Linop):
        raise TypeError(f"from_sigpy: got {type(linop).__name__}, expected a sigpy.linop.Linop")
    return _FromSigpy(linop)


def to_deepinv(operator: LinearOperator, *, is_complex: bool = True) -> LinearPhysics:
    """Return the operator as a `deepinv.physics.LinearPhysics`, which deepinv's solvers and networks take.

    deepinv's tensors are real, with channels after the batch. Complex data have two channels, the real and the
    imaginary part, as in `deepinv.physics.MultiCoilMRI`:

        image (batch, *spatial) complex         <->  x (batch, 2, *spatial) real
        k-space (batch, coil, *spatial) complex <->  y (batch, 2, coil, *spatial) real

    The real view keeps inner products, `<x, z> = Re <x_complex, z_complex>`, so the adjoint stays one. With
    `is_complex=False` images (batch, *spatial) have one channel and measurements are passed as they are, as in
    `deepinv.physics.CompressedSensing`.

    `A_adjoint_A` is the operator's own `normal`. The physics holds a copy of the operator, which shares its maps and
    masks: `.to(device)` moves the copy, and the operator stays where it is. Noise and
    solvers are deepinv's defaults; set `physics.noise_model` for noise. Parameters that deepinv hands to each call are
    for its noise model and do not reach the operator. deepinv's `adjointness_test` takes one
    sample of a batch, which an operator with maps or masks of several samples refuses.

    Args:
        operator: A, linear over the complex numbers, or real for `is_complex=False`.
        is_complex: whether A takes and gives complex tensors.

    Raises:
        ImportError: deepinv cannot be imported.
        TypeError: not a LinearOperator.
        ValueError, when called: real or imaginary part missing in axis 1.
    """
    try:
        from deepinv.physics import LinearPhysics
    except ImportError as error:
        raise ImportError(
            f"to_deepinv: deepinv cannot be imported ({error}), expected it installed: pip install deepinv, with the"
            " torchvision made for the installed torch"
        ) from error

    _require_operator("to_deepinv", operator)
    to_image, from_image = (_to_complex, _from_complex) if is_complex else (_drop_channel, _add_channel)
    to_data, from_data = (_to_complex, _from_complex) if is_complex else (_same, _same)

    own = operator.on()  # deepinv moves what it is given in place

    class OperatorPhysics(LinearPhysics):
        def __init__(self) -> None:
            super().__init__()
            self.operator = own

        def A(self, x: Tensor, **_: Any) -> Tensor:  # noqa: N802
            return from_data(self.operator(to_image(x)))

        def A_adjoint(self, y: Tensor, **_: Any) -> Tensor:  # noqa: N802
            return from_image(self.operator.adjoint(to_data(y)))

        def A_adjoint_A(self, x: Tensor, **_: Any) -> Tensor:  # noqa: N802
            return from_image(self.operator.normal(to_image(x)))

    return OperatorPhysics()


@final
class _Normal(LinearOperator):
    """`A^H A` as an operator of its own: its own adjoint."""

    def __init__(self, operator: LinearOperator) -> None:
        super().__init__()
        self.operator = operator

    def forward(self, x: Tensor) -> Tensor:
        return self.operator.normal(x)

    def adjoint(self, y: Tensor) -> Tensor:
        return self.operator.normal(y)

    @property
    def shapes(self) -> Shapes | None:
        inner = self.operator.shapes
        return inner and Shapes(inner.domain, inner.domain)


@final
class _FromSigpy(LinearOperator):
    def __init__(self, linop: Linop) -> None:
        super().__init__()
        self.linop = linop

    def forward(self, x: Tensor) -> Tensor:
        return _apply(x, self.linop)

    def adjoint(self, y: Tensor) -> Tensor:
        return _apply(y, self.linop.H)

    def normal(self, x: Tensor) -> Tensor:
        return _apply(x, self.linop.N)

    @property
    def shapes(self) -> Shapes:
        return Shapes(("batch", *self.linop.ishape), ("batch", *self.linop.oshape))

    def extra_repr(self) -> str:
        return str(self.linop)


class _ApplyLinop(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, linop: Linop) -> Tensor:
        ctx.linop, ctx.is_complex = linop, x.is_complex()
        samples = x.detach().resolve_conj().resolve_neg().cpu().numpy()
        return torch.from_numpy(np.stack([linop(sample) for sample in samples])).to(x.device)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        grad = _apply(grads[0], ctx.linop.H)
        return grad if ctx.is_complex or not grad.is_complex() else grad.real, None


def _apply(x: Tensor, linop: Linop) -> Tensor:
    if x.ndim == 0 or len(x) == 0 or list(x.shape[1:]) != linop.ishape:
        raise ValueError(
            f"from_sigpy: input {tuple(x.shape)} does not fit {linop}, expected (batch, *{tuple(linop.ishape)})"
        )
    y: Tensor = _ApplyLinop.apply(x, linop)
    return y


def _require_operator(who: str, operator: object) -> None:
    if not isinstance(operator, LinearOperator):
        raise TypeError(f"{who}: got {type(operator).__name__}, expected a LinearOperator")


def _to_complex(x: Tensor) -> Tensor:
    if x.ndim < 2 or x.shape[1] != 2 or x.is_complex():
        raise ValueError(f"to_deepinv: input {tuple(x.shape)} {x.dtype}, expected real (batch, 2, ...)")
    return torch.complex(x[:, 0], x[:, 1])


def _from_complex(x: Tensor) -> Tensor:
    return torch.view_as_real(x.resolve_conj()).movedim(-1, 1)


def _drop_channel(x: Tensor) -> Tensor:
    if x.ndim < 2 or x.shape[1] != 1:
        raise ValueError(f"to_deepinv: input {tuple(x.shape)}, expected one channel (batch, 1, ...)")
    return x[:, 0]


def _add_channel(x: Tensor) -> Tensor:
    return x[:, None]


def _same(x: Tensor) -> Tensor:
    return x

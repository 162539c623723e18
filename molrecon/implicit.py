"""The one autograd Function for implicit gradients. It knows no solver and no model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class _ImplicitGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, residual: Tensor, value: Tensor, solve_adjoint: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.solve_adjoint = solve_adjoint
        return value.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return ctx.solve_adjoint(grad), None, None


def implicit_gradient(value: Tensor, residual: Tensor, solve_adjoint: Callable[[Tensor], Tensor]) -> Tensor:
    """Return `value`, with the gradient of the root that it is.

    `value` solves `r(x, theta) = 0`. By the implicit function theorem `dl/dtheta = <w, dr/dtheta>` with
    `(-dr/dx)^H w = dl/dx`. The gradient handed to `residual` is w, so every tensor theta that `residual` was computed
    from (weights, lambda, k-space, maps) receives its own, without a formula of its own.

    Args:
        value: the root, detached, any shape, real or complex.
        residual: `r(value, theta)`, same shape, computed with gradients enabled at the detached root.
        solve_adjoint: maps `dl/dx` to w.

    Raises:
        ValueError: shapes of value and residual differ.

    The graph holds one evaluation of r, whatever the number of iterations that led to the root.
    Reference: Bai, Kolter, Koltun, Deep equilibrium models, NeurIPS 2019, theorem 1.
    """
    if value.shape != residual.shape:
        raise ValueError(f"implicit_gradient: residual {tuple(residual.shape)} does not fit value {tuple(value.shape)}")
    return _ImplicitGradient.apply(residual, value.detach(), solve_adjoint)

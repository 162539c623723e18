"""The one autograd Function for implicit gradients, and the report of its solve. It knows no solver and no model."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from molrecon.solvers.solution import Solution

logger = logging.getLogger(__name__)


class _ImplicitGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, residual: Tensor, value: Tensor, solve_adjoint: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.solve_adjoint = solve_adjoint
        return value.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return ctx.solve_adjoint(grad.resolve_conj()), None, None


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


def report_backward(answer: Solution, on_backward: Callable[[Solution], None] | None, who: str) -> None:
    """Hand the Solution of a gradient's linear system to the caller, or log a warning when it did not converge.

    Autograd gives a backward pass no way to return a report, and a wrong gradient looks like any other.
    """
    if on_backward is not None:
        on_backward(answer)
    elif shortfall := answer.shortfall():
        logger.warning("%s: the gradient's linear system: %s", who, shortfall)

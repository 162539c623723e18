"""Batched conjugate gradients for Hermitian positive definite systems, differentiable by the implicit theorem."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from molrecon.solvers.batched import dot, norm, per_sample
from molrecon.solvers.implicit import implicit_gradient, report_backward
from molrecon.solvers.solution import Solution


@torch.no_grad()
def conjugate_gradient(
    matrix: Callable[[Tensor], Tensor],
    right_side: Tensor,
    *,
    start: Tensor | None = None,
    tol: float | Tensor = 1e-6,
    max_steps: int = 100,
    smallest_eigenvalue: float | Tensor = 1.0,
    verify: bool = True,
) -> Solution:
    """Solve `P x = y` for each sample by conjugate gradients; no gradients flow (see `solve_hermitian`).

    Args:
        matrix: x -> P x, Hermitian positive definite on each sample, (batch, ...) to (batch, ...).
        right_side: y (batch, ...), real or complex.
        start: first iterate; zero when None. Warm starts cost one application of P.
        tol: stop a sample when `|y - P x| <= tol |y|`; a number or one per sample (batch,).
        max_steps: iterations at most.
        smallest_eigenvalue: a lower bound of P's spectrum, for the error bound.
        verify: compute the last residual afresh (one more application of P). The recurrence's own residual goes on
            falling when rounding has stopped the true one, so without it the error bound is no bound.

    Returns:
        Solution with `error_bound = |y - P x| / (smallest_eigenvalue |x|)`, the rounding of a computed residual added.
        Finished samples are frozen.

    Reference: Hestenes and Stiefel, J Res NBS 49, 1952.
    """
    if start is None:
        x = torch.zeros_like(right_side)
        residual = right_side.clone()
    else:
        x = start.clone()
        residual = right_side - matrix(x)
    tiny = torch.finfo(right_side.real.dtype).tiny
    goal = tol * norm(right_side)
    square = dot(residual, residual)
    direction = residual
    n_steps = torch.zeros(len(x), dtype=torch.int64, device=x.device)
    history = [square.sqrt()]
    for _ in range(max_steps):
        active = history[-1] > goal
        if not bool(active.any()):
            break
        image = matrix(direction)
        curvature = dot(direction, image)
        step = torch.where(active & (curvature > 0), square / curvature.clamp_min(tiny), 0.0)
        x = x + per_sample(step, x) * direction
        residual = residual - per_sample(step, x) * image
        new_square = dot(residual, residual)
        direction = residual + per_sample(new_square / square.clamp_min(tiny), x) * direction
        square = new_square
        n_steps += active
        history.append(square.sqrt())
    if verify:
        image = matrix(x)
        rounding = 4 * torch.finfo(right_side.real.dtype).eps * (norm(right_side) + norm(image))
        history[-1] = norm(right_side - image)
        converged = history[-1] <= goal + rounding
        history[-1] = history[-1] + torch.where(norm(right_side) > 0, rounding, 0.0)
    else:
        converged = history[-1] <= goal
    residuals = torch.stack(history) / (smallest_eigenvalue * norm(x)).clamp_min(tiny)
    return Solution(value=x, error_bound=residuals[-1], residuals=residuals, converged=converged, n_steps=n_steps)


def solve_hermitian(
    matrix: Callable[[Tensor], Tensor],
    right_side: Tensor,
    *,
    tol: float = 1e-6,
    max_steps: int = 100,
    smallest_eigenvalue: float | Tensor = 1.0,
    verify: bool = True,
    on_backward: Callable[[Solution], None] | None = None,
) -> Solution:
    """Solve `P x = y` as `conjugate_gradient` does, with gradients for y and for every tensor that P depends on.

    The gradient is that of the exact solution, `w = P^-1 dl/dx`, found by a second solve to the same tolerance.
    Never differentiate through the iterations themselves: with a detached warm start that gradient is wrong.
    `verify` is that of the solve, not of the one for the gradient. `on_backward` is called with the Solution of
    that second solve; without it one that misses `tol` is logged.
    """
    solution = conjugate_gradient(
        matrix, right_side, tol=tol, max_steps=max_steps, smallest_eigenvalue=smallest_eigenvalue, verify=verify
    )
    if not torch.is_grad_enabled():
        return solution

    def solve_adjoint(grad: Tensor) -> Tensor:
        answer = conjugate_gradient(matrix, grad, tol=tol, max_steps=max_steps, smallest_eigenvalue=smallest_eigenvalue)
        report_backward(answer, on_backward, "solve_hermitian")
        return answer.value

    value = implicit_gradient(solution.value, right_side - matrix(solution.value), solve_adjoint)
    return solution.with_value(value)

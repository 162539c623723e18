"""The fixed point of a map of which nothing is known, with its implicit gradient."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from molrecon.fixed_point import WINDOW, solve_fixed_point
from molrecon.implicit import implicit_gradient, report_backward
from molrecon.solution import Solution


@final
@dataclass
class EquilibriumSolver:
    """How a fixed point and its gradient are sought.

    Attributes:
        tol: goal for the relative residual `|r(x)| / |x|` of each sample.
        max_steps: iterations at most.
        window: Anderson differences; 0 for the plain iteration.
        backward_tol, backward_max_steps: the same for the gradient's linear system.
    """

    tol: float = 1e-4
    max_steps: int = 50
    window: int = WINDOW
    backward_tol: float = 1e-2
    backward_max_steps: int = 30

    def __call__(
        self,
        residual: Callable[[Tensor], Tensor],
        first: Tensor,
        *,
        on_backward: Callable[[Solution], None] | None,
        who: str,
    ) -> Solution:
        """Return the root of r per sample, as far as it was found, differentiable by the implicit function theorem.

        Anderson acceleration with the plain step `x + r(x)` as its fallback, which promises nothing here. Whether
        there is a root, only one, and how far it is, is unknown: `error_bound` is NaN. A sample that has not
        converged keeps its best iterate; so does a gradient.

        Args:
            residual: r on x (batch, ...), real or complex; its graph is that of one evaluation.
            first: where to start; no gradient flows to it.
            on_backward: called with the Solution of the gradient's linear system. Without it a system that misses
                `backward_tol` is logged as a warning.
            who: the model's name for messages.

        Raises:
            FloatingPointError: the residual is not finite at the first iterate.
        """
        solution = self._solve(residual, first.detach(), self.tol, self.max_steps)
        if not bool(torch.isfinite(solution.residuals[0]).all()):
            raise FloatingPointError(f"{who}: the network has no finite value at the first iterate")
        if not torch.is_grad_enabled():
            return solution
        root = solution.value.clone().requires_grad_()
        at_root = residual(root)

        def solve_adjoint(grad: Tensor) -> Tensor:
            def adjoint_residual(w: Tensor) -> Tensor:
                (pulled,) = torch.autograd.grad(at_root, root, w, retain_graph=True)
                return grad + pulled

            zero = torch.zeros_like(grad)
            answer = self._solve(adjoint_residual, zero, self.backward_tol, self.backward_max_steps)
            report_backward(answer, on_backward, who)
            return answer.value

        return solution.with_value(implicit_gradient(root.detach(), at_root, solve_adjoint))

    def _solve(
        self,
        equation: Callable[[Tensor], Tensor],
        first: Tensor,
        tol: float,
        max_steps: int,
    ) -> Solution:
        solution = solve_fixed_point(
            equation,
            lambda r: r,
            first,
            tol=tol,
            max_steps=max_steps,
            window=self.window,
            rounding=torch.finfo(first.dtype).eps,
        )
        return solution.with_kind("none")

"""The fixed point of a map of which nothing is known, with its implicit gradient."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor
from torchdeq import get_deq

from molrecon.solvers.fixed_point import WINDOW
from molrecon.solvers.implicit import report_backward
from molrecon.solvers.solution import Iterate, Solution
from molrecon.solvers.torchdeq_solver import solver_with_window


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
        on_step: Callable[[Iterate], None] | None = None,
        keep_residual: bool = False,
    ) -> Solution:
        """Return the root of r per sample, as far as it was found, differentiable by the implicit function theorem.

        torchdeq finds the fixed point of `x + r(x)` and its implicit gradient, both by `safeguarded_anderson`:
        Anderson acceleration with the plain step as its fallback, which promises nothing here. Whether there is a
        root, only one, and how far it is, is unknown: `error_bound` is NaN. A sample that has not converged
        keeps its best iterate; so does a gradient.

        Args:
            residual: r on x (batch, ...), real or complex; one evaluation of it is kept for the gradient, which makes
                another.
            first: where to start; no gradient flows to it.
            on_backward: called with the Solution of the gradient's linear system. Without it a system that misses
                `backward_tol` is logged as a warning.
            who: the model's name for messages.
            on_step: called with every iterate, the first one included.
            keep_residual: return r of the solution as its `last_residual`.

        Raises:
            FloatingPointError: the residual is not finite at the first iterate.
            RuntimeError: in a backward pass with `create_graph=True`.
        """
        window = solver_with_window(self.window)
        deq = get_deq(
            ift=True,  # the default gradient is that of one step
            f_solver=window,
            f_tol=self.tol,
            f_max_iter=self.max_steps,
            f_stop_mode="rel",
            b_solver=window,
            b_tol=self.backward_tol,
            b_max_iter=self.backward_max_steps,
            b_stop_mode="rel",
        ).train(torch.is_grad_enabled())

        def report(info: dict[str, Any]) -> None:
            if torch.is_grad_enabled():
                raise RuntimeError(f"{who}: the implicit gradient cannot be differentiated again (create_graph=True)")
            report_backward(info["solution"].with_kind("none"), on_backward, who)

        options = {"on_step": on_step, "keep_residual": keep_residual}
        (value,), info = deq(lambda x: x + residual(x), first.detach(), options, backward_writer=report)
        solution: Solution = info["solution"].with_kind("none")
        if not bool(torch.isfinite(solution.residuals[0]).all()):
            raise FloatingPointError(f"{who}: the network has no finite value at the first iterate")
        # In training torchdeq returns the map's value at the fixed point. What is reported is the iterate before it.
        return solution.with_value(solution.value + (value - value.detach()))

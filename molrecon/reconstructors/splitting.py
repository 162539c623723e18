"""Forward-backward splitting: the iteration that finds MOL's equilibrium, and its gradient."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import final

import torch
from torch import Tensor

from molrecon.networks import Denoiser
from molrecon.networks.full_precision import full_precision
from molrecon.solvers.batched import norm
from molrecon.solvers.conjugate_gradient import conjugate_gradient
from molrecon.solvers.fixed_point import solve_fixed_point
from molrecon.solvers.implicit import implicit_gradient, report_backward
from molrecon.solvers.refinement import RefinedResidual
from molrecon.solvers.solution import Iterate, Solution
from molrecon.solvers.solver_settings import SolverSettings
from operators import LinearOperator

INNER_TOL = 0.05  # of the inner CG, relative to the outer residual; with 0.1 easy problems take more steps than plain


@final
@dataclass(frozen=True)
class ForwardBackward:
    """Forward-backward splitting for `(I + lambda A^H A) x = s(x)`, with a map s that contracts by `1 - m`.

    One step is `x <- x + (I + lambda A^H A)^-1 r(x)` with `r(x) = s(x) - (I + lambda A^H A) x`. The equilibrium has
    `s(x) = H(x) + lambda A^H b`, its gradient `s(w) = dl/dx + J_H^H w`. The residual is that of A; the inverse of trial
    steps is that of its principal coils, which takes a few steps more in less time.
    """

    operator: LinearOperator
    few_coils: LinearOperator  # of the trial steps
    weight: Tensor  # lambda (batch, 1, ...)
    monotonicity: float  # m
    rounding: Tensor  # (batch,) of a computed residual, relative to |x|
    narrow: torch.dtype  # of the inner solves
    window: int
    relaxation: float = 1.0  # alpha of the trial steps

    def solve(
        self,
        source: Callable[[Tensor], Tensor],
        first: Tensor,
        tol: float,
        max_steps: int,
        on_step: Callable[[Iterate], None] | None = None,
        keep_residual: bool = False,
    ) -> Solution:
        """Return the solution x, iterated in the precision of `first`."""
        m = self.monotonicity
        careful_tol = m / 4

        def plain(x: Tensor) -> Tensor:
            return source(x) - self.regularised(x)

        residual: Callable[[Tensor], Tensor] = plain
        if first.dtype != self.narrow:
            residual = RefinedResidual(source, self.regularised, self.weight, self.narrow)
        with full_precision(first.device):
            return solve_fixed_point(
                residual,
                partial(self.inverse, self.few_coils, tol=INNER_TOL, identity=1 / self.relaxation),
                first,
                tol=tol,
                max_steps=max_steps,
                monotonicity=m,
                contraction=(1 - m) * (1 + careful_tol) + careful_tol,
                window=self.window,
                careful=partial(self.inverse, self.operator, tol=careful_tol),
                rounding=self.rounding,
                exactly=residual.exactly if isinstance(residual, RefinedResidual) else None,
                on_step=on_step,
                keep_residual=keep_residual,
            )

    def regularised(self, x: Tensor) -> Tensor:
        """Return `(I + lambda A^H A) x` in the precision of x, or of the operator's maps if that is higher."""
        return x + self.weight * self.operator.normal(x)

    def inverse(self, operator: LinearOperator, r: Tensor, tol: float, identity: float = 1.0) -> Tensor:
        """Return `(c I + lambda A^H A)^-1 r`, c = `identity`, A = `operator`, up to a residual of `tol |r|`."""

        def matrix(x: Tensor) -> Tensor:
            return (identity * x + self.weight * operator.normal(x)).to(self.narrow)

        return conjugate_gradient(matrix, r.to(self.narrow), tol=tol, verify=False).value


def with_implicit_gradient(
    value: Tensor,
    denoise: Callable[[Tensor], Tensor],
    data_term: Callable[[Tensor], Tensor],
    splitting: ForwardBackward,
    wide: torch.dtype,
    solver: SolverSettings,
) -> Tensor:
    """Return the equilibrium x of `H(x) + data_term(x) = x` with the gradient of the implicit function theorem."""
    root = value.requires_grad_()
    with full_precision(root.device):
        denoised = denoise(root)
    fixed = root.detach()
    residual = denoised + data_term(fixed).to(splitting.narrow) - fixed

    def solve_adjoint(grad: Tensor) -> Tensor:
        def source(w: Tensor) -> Tensor:
            (pulled,) = torch.autograd.grad(denoised, root, w.to(splitting.narrow), retain_graph=True)
            return grad + pulled

        zero = torch.zeros_like(grad, dtype=wide)
        answer = splitting.solve(source, zero, solver.backward_tol, solver.backward_max_steps)
        report_backward(answer, solver.on_backward, "MOL")
        return answer.value.to(splitting.narrow)

    return implicit_gradient(fixed, residual, solve_adjoint)


def residual_rounding(
    network: Denoiser,
    operator: LinearOperator,
    weight: Tensor,
    image: Tensor,
    narrow: torch.dtype,
    solver: SolverSettings,
) -> Tensor:
    """Return what a computed residual may be off by, relative to |x|, (batch,): the rounding of the network.

    Without refinement that of `lambda A^H A x` counts too; it is that of an image like the one given.
    """
    rounding = weight.new_full((len(weight),), network.rounding(narrow.to_real()))
    if solver.refine:
        return rounding
    size = norm(image).clamp_min(torch.finfo(narrow).tiny)
    return rounding * (1 + 2 * norm(weight * operator.normal(image)) / size)

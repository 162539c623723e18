"""Safeguarded Anderson acceleration: the one fixed-point solver, for the equilibrium, its gradient, and torchdeq."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torchdeq.solver import register_solver

from molrecon.batched import norm, per_sample, rows
from molrecon.solution import Solution

WINDOW = 5  # differences kept; more gains little and the least squares lose conditioning
RIDGE = 1e-8  # regularisation of the least squares relative to the largest difference
PATIENCE = 10  # steps without a new best residual after which the attainable accuracy is reached


@torch.no_grad()
def solve_fixed_point(
    residual: Callable[[Tensor], Tensor],
    precondition: Callable[[Tensor], Tensor],
    start: Tensor,
    *,
    tol: float,
    max_steps: int,
    monotonicity: float = 1.0,
    contraction: float = 1.0,
    window: int = WINDOW,
    careful: Callable[[Tensor], Tensor] | None = None,
    rounding: float = 0.0,
) -> Solution:
    """Find the root of `r(x)` by `x <- x + P^-1 r(x)` with type-II Anderson acceleration and a safeguard, per sample.

    A trial point of a sample is taken only if its residual is at most `contraction` times the last one; else the
    sample takes the careful plain step and forgets its history. With a careful step that contracts the residual by
    `contraction`, the accelerated iteration therefore contracts at least as fast, at every step: it converges
    wherever the plain iteration does. (A geometric, hence summable, bound, as in Zhang, O'Donoghue, Boyd, SIAM J
    Optim 30, 2020.)

    Args:
        residual: x (batch, ...) -> r(x); for a fixed-point map T it is `T(x) - x`.
        precondition: r -> P^-1 r; the identity for a plain fixed-point map. It may be approximate.
        start: first iterate (batch, ...), real or complex.
        tol: a sample is finished when its error bound is at most this.
        max_steps: steps at most.
        monotonicity: m with `|x - x*| <= |r(x)| / m`, for the error bound.
        contraction: factor by which an accepted extrapolation must reduce the residual.
        window: number of differences kept; 0 is the plain iteration, of careful steps only.
        rounding: relative rounding error of a computed residual; `rounding |x|` is added to |r(x)| in the bound.
        careful: r -> P^-1 r, accurate enough for the plain step to contract by `contraction`; `precondition` when None.

    Returns:
        Solution with `error_bound = |r(x)| / (m |x|)`. Finished samples are frozen; a sample whose residual is not
        finite or stops improving is frozen at its best iterate, and reported as not converged.
    """
    careful = careful or precondition
    tiny = torch.finfo(start.real.dtype).tiny
    x, r = start, residual(start)
    size = norm(r)

    def bound(x: Tensor, size: Tensor) -> Tensor:
        value = size / (monotonicity * norm(x)).clamp_min(tiny) + rounding / monotonicity
        return torch.where(torch.isfinite(value), value, torch.inf)

    history = [bound(x, size)]
    best, best_size, best_bound = x, size, history[0]
    n_steps = torch.zeros_like(size, dtype=torch.int64)
    best_step = n_steps.clone()
    memory = _Memory(window)
    for step in range(1, max_steps + 1):
        active = (best_bound > tol) & (step - best_step <= PATIENCE) & torch.isfinite(size)
        if not bool(active.any()):
            break
        update = precondition(r) if window else careful(r)
        candidate = x + update
        if window:
            candidate = memory.extrapolate(candidate, update)
        candidate = torch.where(per_sample(active, x), candidate, x)
        new_r = residual(candidate)
        new_size = norm(new_r)
        if window:
            rejected = active & ~(new_size <= contraction * size)
            if bool(rejected.any()):
                memory.forget(rejected)
                candidate = torch.where(per_sample(rejected, x), x + careful(r), candidate)
                new_r = residual(candidate)
                new_size = norm(new_r)
        x, r, size = candidate, new_r, new_size
        n_steps += active
        current = bound(x, size)
        better = active & (size < best_size)
        best = torch.where(per_sample(better, x), x, best)
        best_size = torch.where(better, size, best_size)
        best_bound = torch.where(better, current, best_bound)
        best_step = torch.where(better, step, best_step)
        history.append(torch.where(active, current, history[-1]))
    return Solution(
        value=best,
        error_bound=best_bound,
        residuals=torch.stack(history),
        converged=best_bound <= tol,
        n_steps=n_steps,
    )


class _Memory:
    """The last differences of updates and of plain steps; the least squares of type-II Anderson on them, per sample."""

    def __init__(self, window: int) -> None:
        self.window = window
        self.last: tuple[Tensor, Tensor] | None = None
        self.updates: list[Tensor] = []
        self.plains: list[Tensor] = []

    def extrapolate(self, plain: Tensor, update: Tensor) -> Tensor:
        """Return `plain - sum_j gamma_j dplain_j` with `gamma = argmin |update - sum_j gamma_j dupdate_j|`."""
        if self.last is not None:
            self.plains = [*self.plains, plain - self.last[0]][-self.window :]
            self.updates = [*self.updates, update - self.last[1]][-self.window :]
        self.last = (plain, update)
        if not self.updates:
            return plain
        differences = torch.stack([rows(d) for d in self.updates], dim=-1)
        scale = torch.linalg.vector_norm(differences, dim=1).amax(-1)
        ridge = RIDGE**0.5 * scale[:, None, None] * torch.eye(len(self.updates), dtype=scale.dtype, device=scale.device)
        q, triangle = torch.linalg.qr(torch.cat([differences, ridge], dim=1))
        # A sample without a history has zero columns, and a unit diagonal makes its coefficients zero.
        empty = (triangle.diagonal(dim1=-2, dim2=-1) == 0).to(triangle.dtype)
        projected = q[:, : differences.shape[1]].mT @ rows(update)[..., None]
        gamma = torch.linalg.solve_triangular(triangle + torch.diag_embed(empty), projected, upper=True)
        for j, difference in enumerate(self.plains):
            plain = plain - per_sample(gamma[:, j, 0], plain) * difference
        return plain

    def forget(self, samples: Tensor) -> None:
        """Drop the history of the marked samples (batch,) bool."""
        self.updates = [torch.where(per_sample(samples, d), 0, d) for d in self.updates]
        self.plains = [torch.where(per_sample(samples, d), 0, d) for d in self.plains]


def _torchdeq_solver(
    func: Callable[[Tensor], Tensor],
    x0: Tensor,
    max_iter: int = 50,
    tol: float = 1e-3,
    stop_mode: str = "rel",
    indexing: list[int] | None = None,
    **unused: Any,
) -> tuple[Tensor, list[Tensor], dict[str, Tensor]]:
    """`solve_fixed_point` with torchdeq's signature for solvers; torchdeq passes on options meant for others."""
    solution = solve_fixed_point(
        lambda x: func(x) - x, lambda r: r, x0, tol=tol, max_steps=max_iter, contraction=unused.get("contraction", 1.0)
    )
    info = {
        "abs_lowest": solution.error_bound * norm(solution.value),
        "rel_lowest": solution.error_bound,
        "nstep": solution.n_steps,
        "abs_trace": solution.residuals.T * norm(solution.value)[:, None],
        "rel_trace": solution.residuals.T,
    }
    return solution.value, [solution.value] * len(indexing or []), info


register_solver("safeguarded_anderson", _torchdeq_solver)

"""Safeguarded Anderson acceleration: the one fixed-point solver, for the equilibrium and its gradient.

`molrecon.solvers.torchdeq_solver` hands it to torchdeq.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from molrecon.solvers.batched import norm, per_sample, rows
from molrecon.solvers.solution import Iterate, Solution

WINDOW = 10  # differences kept; more gain little on the packaged model, and cost memory
RIDGE = 1e-8  # regularisation of the least squares, relative to each difference's square; in single precision 100 eps
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
    rounding: float | Tensor = 0.0,
    exactly: Callable[[Tensor, Tensor], Tensor] | None = None,
    relative: bool = True,
    on_step: Callable[[Iterate], None] | None = None,
    keep_residual: bool = False,
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
        careful: r -> P^-1 r, accurate enough for the plain step to contract by `contraction`; `precondition` when None.
        rounding: relative rounding error of a computed residual, a number or one per sample (batch,); `rounding |x|` is
            added to |r(x)| in the bound.
        exactly: (x, samples) -> r(x) of the marked samples (batch,) bool, where `residual` is an approximation. It is
            asked before a sample is found finished, and for the best iterate of those that are not: the bounds that are
            returned rest on it.
        relative: False: `tol` and the bounds returned are lengths in the units of x, not shares of |x|, which say
            nothing where the root is zero.
        on_step: called with every iterate, the start included.
        keep_residual: return r of the solution as its `last_residual`.

    Returns:
        Solution with `error_bound = |r(x)| / (m |x|)`, or `|r(x)| / m` when not `relative`. A finished sample is
        frozen, and so is, at its best iterate and reported as not converged, one whose residual is not finite.
        `stalled` marks samples that were frozen because the residual fell below its own rounding error, or found no new
        minimum in 10 steps: their error bound is the accuracy attainable in this precision. No sample sees the others,
        so each gets what it would get alone.
    """
    careful = careful or precondition
    tiny = torch.finfo(start.real.dtype).tiny
    x, r = start, residual(start)
    if exactly is not None:
        r = exactly(x, torch.ones(len(x), dtype=torch.bool, device=x.device))
    size = norm(r)
    floor = torch.as_tensor(rounding / monotonicity, dtype=size.dtype, device=size.device).expand_as(size)

    def attainable(x: Tensor) -> Tensor:
        return floor if relative else floor * norm(x)

    def bound(x: Tensor, size: Tensor) -> Tensor:
        unit = (monotonicity * norm(x)).clamp_min(tiny) if relative else monotonicity
        value = size / unit + attainable(x)
        return torch.where(torch.isfinite(value), value, torch.inf)

    history = [bound(x, size)]
    best, best_size, best_bound = x, size, history[0]
    best_r = r if keep_residual else None
    n_steps = torch.zeros_like(size, dtype=torch.int64)
    best_step = n_steps.clone()
    stalled = torch.zeros_like(size, dtype=torch.bool)
    memory = _Memory(window)
    if on_step is not None:
        on_step(Iterate(0, x, history[0]))
    for step in range(1, max_steps + 2):
        finite = torch.isfinite(size)
        at_rounding = best_bound <= 2 * attainable(best)
        stalled = finite & (best_bound > tol) & ((step - best_step > PATIENCE) | at_rounding)
        active = (best_bound > tol) & finite & ~stalled
        if step > max_steps or not bool(active.any()):
            break
        # Samples that have stopped get a zero right side: no inner steps, and no values that are not finite.
        r = _chosen(active, r, r.new_zeros(()))
        update = precondition(r) if window else careful(r)
        candidate = memory.extrapolate(x, update) if window else x + update
        candidate = _chosen(active, candidate, x)
        new_r = residual(candidate)
        new_size = norm(new_r)
        if window:
            rejected = active & ~(new_size <= contraction * size)
            if bool(rejected.any()):
                memory.forget(rejected)
                candidate = torch.where(per_sample(rejected, x), x + careful(r), candidate)
                new_r = residual(candidate)
                new_size = norm(new_r)
        arrived = active & (bound(candidate, new_size) <= tol)
        if exactly is not None and bool(arrived.any()):
            new_r = torch.where(per_sample(arrived, new_r), exactly(candidate, arrived), new_r)
            new_size = norm(new_r)
        x, r, size = candidate, new_r, new_size
        n_steps += active
        current = bound(x, size)
        better = active & (size < best_size)
        best = _chosen(better, x, best)
        best_r = None if best_r is None else _chosen(better, r, best_r)
        best_size = torch.where(better, size, best_size)
        best_bound = torch.where(better, current, best_bound)
        best_step = torch.where(better, step, best_step)
        history.append(torch.where(active, current, history[-1]))
        if on_step is not None:
            on_step(Iterate(step, x, history[-1]))
    missed = best_bound > tol
    if exactly is not None and bool(missed.any()):
        best_bound = torch.where(missed, bound(best, norm(exactly(best, missed))), best_bound)
    return Solution(
        value=best,
        error_bound=best_bound,
        residuals=torch.stack(history),
        converged=best_bound <= tol,
        n_steps=n_steps,
        stalled=stalled,
        last_residual=best_r,
    )


def _chosen(samples: Tensor, value: Tensor, other: Tensor) -> Tensor:
    """Return `value` for the marked samples (batch,) bool and `other` for the rest; no copy where all agree."""
    marked = samples.tolist()
    if all(marked):
        return value
    return torch.where(per_sample(samples, value), value, other) if any(marked) else other


class _Memory:
    """The last differences of updates and of iterates; the least squares of type-II Anderson on them, per sample.

    The Gram matrix of the differences grows by one row a step, which is cheaper than a QR factorisation of all of them
    in every step; the ridge bounds its condition. Differences are kept in the precision of the updates.
    """

    def __init__(self, window: int) -> None:
        self.window = window
        self.count = 0
        self.last: tuple[Tensor, Tensor] | None = None

    def extrapolate(self, x: Tensor, update: Tensor) -> Tensor:
        """Return `x + u - sum_j gamma_j (dx_j + du_j)` with `gamma = argmin |u - sum_j gamma_j du_j|`, u the update."""
        if self.last is None:
            size = (len(x), self.window, rows(update).shape[1])
            self.updates, self.iterates = update.real.new_zeros(size), update.real.new_zeros(size)
            self.gram = self.updates.new_zeros(len(x), self.window, self.window)
            self.last = (x, update)
            return x + update
        slot = self.count % self.window
        self.count += 1
        self.updates[:, slot] = rows(update - self.last[1])
        self.iterates[:, slot] = rows(x - self.last[0])
        self.gram[:, slot] = self._against_updates(rows(self.updates[:, slot]))
        self.gram[:, :, slot] = self.gram[:, slot]
        self.last = (x, update)
        gamma = self._coefficients(self._against_updates(rows(update)))[:, None]
        change = (gamma @ self.updates).add_(gamma @ self.iterates)[:, 0]
        if torch.is_complex(x):
            change = torch.view_as_complex(change.unflatten(1, (-1, 2)))
        return x + (update - change.reshape(x.shape))

    def _against_updates(self, vector: Tensor) -> Tensor:
        return (self.updates @ vector[..., None])[..., 0]

    def _coefficients(self, right_side: Tensor) -> Tensor:
        # A sample without a history has zero rows: a unit diagonal makes its coefficients zero.
        square = self.gram.diagonal(dim1=1, dim2=2)
        scale = torch.where(square > 0, square, 1.0).sqrt()
        ridge = max(RIDGE, 100 * torch.finfo(scale.dtype).eps)
        normalised = self.gram / (scale[:, :, None] * scale[:, None])
        normalised = normalised + torch.diag_embed(torch.where(square > 0, ridge, 1.0).to(scale.dtype))
        return torch.linalg.solve_ex(normalised, right_side / scale)[0] / scale

    def forget(self, samples: Tensor) -> None:
        """Drop the history of the marked samples (batch,) bool."""
        if self.count:
            for stored in (self.updates, self.iterates, self.gram):
                stored[samples] = 0

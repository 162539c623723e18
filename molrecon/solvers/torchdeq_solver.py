"""`solve_fixed_point` as a solver of torchdeq, under the name "safeguarded_anderson" once this module is imported.

    from torchdeq import get_deq
    from molrecon.solvers.torchdeq_solver import SAFEGUARDED_ANDERSON

    deq = get_deq(f_solver=SAFEGUARDED_ANDERSON, b_solver=SAFEGUARDED_ANDERSON, ift=True, ...)

What to know about torchdeq 0.1: `get_deq` accepts misspelt options in silence; without `ift=True` the gradient is that
of one step; a solve that failed raises nothing, so read `info["solution"]`, the `Solution` with what was reached.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torchdeq.solver import register_solver

from molrecon.solvers.batched import norm
from molrecon.solvers.fixed_point import WINDOW, solve_fixed_point
from molrecon.solvers.solution import Iterate

SAFEGUARDED_ANDERSON = "safeguarded_anderson"


def safeguarded_anderson(
    func: Callable[[Tensor], Tensor],
    x0: Tensor,
    max_iter: int = 50,
    tol: float = 1e-3,
    stop_mode: str = "abs",
    indexing: list[int] | None = None,
    *,
    contraction: float = 1.0,
    window: int = WINDOW,
    on_step: Callable[[Iterate], None] | None = None,
    keep_residual: bool = False,
) -> tuple[Tensor, list[Tensor], dict[str, Any]]:
    """Find the fixed point of `func` per sample: `solve_fixed_point` with the signature of torchdeq's solvers.

    Args:
        func: the map f on x (batch, ...), real or complex.
        x0: first iterate.
        max_iter: steps at most.
        tol: of the residual `|f(x) - x|` in the units of x for `stop_mode` "abs", relative to |x| for "rel".
        stop_mode: "abs" or "rel".
        indexing: torchdeq's list of steps whose iterates it wants; the fixed point stands for all of them.
        contraction: factor by which an accepted extrapolation must reduce the residual.
        window: differences kept; 0 for the plain iteration.
        on_step: called with every iterate, the start included.
        keep_residual: `info["solution"]` has its `last_residual`.

    Returns:
        Fixed point, its copies for `indexing`, and torchdeq's statistics: `abs_lowest`, `rel_lowest` (batch,) of the
        fixed point, `nstep` (batch,), `abs_trace`, `rel_trace` (batch, n_steps + 1) along the way, the one that was
        not asked for by the size of the fixed point. `info["solution"]` is the `Solution`, whose error bound is the
        residual in `stop_mode`.

    Raises:
        ValueError: another `stop_mode`.
    """
    if stop_mode not in ("abs", "rel"):
        raise ValueError(f"{SAFEGUARDED_ANDERSON}: stop_mode is {stop_mode!r}, expected 'abs' or 'rel'")
    relative = stop_mode == "rel"
    start = x0.detach().resolve_conj()
    solution = solve_fixed_point(
        lambda x: func(x) - x,
        lambda r: r,
        start,
        tol=tol,
        max_steps=max_iter,
        contraction=contraction,
        window=window,
        rounding=torch.finfo(start.dtype).eps,
        relative=relative,
        on_step=on_step,
        keep_residual=keep_residual,
    )
    length = norm(solution.value)
    other = length if relative else 1 / length.clamp_min(torch.finfo(length.dtype).tiny)
    lowest, trace = solution.error_bound, solution.residuals.T
    converted = lowest * other, trace * other[:, None]
    (absolute, absolute_trace), (share, share_trace) = (
        (converted, (lowest, trace)) if relative else ((lowest, trace), converted)
    )
    info = {
        "abs_lowest": absolute,
        "rel_lowest": share,
        "abs_trace": absolute_trace,
        "rel_trace": share_trace,
        "nstep": solution.n_steps,
        "solution": solution,
    }
    return solution.value, [solution.value] * len(indexing or []), info


def solver_with_window(window: int) -> str:
    """Return the name in torchdeq of the solver that keeps `window` differences.

    torchdeq hands no options to the solver of the gradient, so another window is a solver of another name.
    """
    name = SAFEGUARDED_ANDERSON if window == WINDOW else f"{SAFEGUARDED_ANDERSON}_{window}"
    register_solver(name, partial(safeguarded_anderson, window=window))
    return name


solver_with_window(WINDOW)

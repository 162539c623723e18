"""The one progress bar: it does not appear for short work, and rarely writes where stderr is a file."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TypeVar

from tqdm import tqdm

from molrecon.solvers.solution import Iterate
from molrecon.solvers.solver_settings import SolverSettings

T = TypeVar("T")

LONG_WORK_SECONDS = 4.0


def progress_bar(items: Iterable[T], description: str, enabled: bool, unit: str = "slice") -> Iterable[T]:
    """Return `items` with a bar on stderr that appears at once on a terminal, else after a few seconds of work."""
    if not enabled:
        return items
    terminal = sys.stderr.isatty()
    return tqdm(
        items,
        desc=description,
        unit=unit,
        delay=0.0 if terminal else LONG_WORK_SECONDS,
        mininterval=0.1 if terminal else LONG_WORK_SECONDS,
        leave=False,
    )


@contextmanager
def watched(solver: SolverSettings | None, description: str, enabled: bool) -> Iterator[SolverSettings | None]:
    """Yield solver settings whose iterations show as a bar on stderr, with the error bound; None for None."""
    if solver is None or not enabled:
        yield solver
        return
    terminal = sys.stderr.isatty()
    with tqdm(
        total=solver.max_steps,
        desc=description,
        unit="step",
        delay=0.0 if terminal else LONG_WORK_SECONDS,
        mininterval=0.1 if terminal else LONG_WORK_SECONDS,
        leave=False,
    ) as bar:

        def on_step(iterate: Iterate) -> None:
            if solver.on_step is not None:
                solver.on_step(iterate)
            bar.set_postfix(bound=f"{float(iterate.residual.max()):.1e}", refresh=False)
            bar.update(int(iterate.step > 0))

        yield replace(solver, on_step=on_step)

"""What a robustness evaluation returns: by method, the trials of perturbations of growing size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np


@final
@dataclass(frozen=True)
class Trial:
    """One perturbation d of a scan b, and what a method made of it.

    Attributes:
        level: `|d| / |b|`, in every slice.
        psnr: dB, of x(b + d) with maps, noise level, scale and phase held fixed as they were found for b.
        psnr_reestimated: the same with all this found anew from b + d: what a user gets.
        moved: `|x(b + d) - x(b)| / |x(b)|`, held fixed; of the slice with the largest.
        bound: the upper bound of that, likewise; None where none is known.
        tightness: `|x(b + d) - x(b)|`, the error bounds of both images taken off, over its bound, likewise; None where
            no bound is known.
        violations: slices that moved by more than the bound and the solver's own error bounds together.
        converged: every solve reached its tolerance.
        ascent: `|x(b + d) - reference| / |reference|` after each step of the search for d; empty for a random d.
    """

    level: float
    psnr: float
    psnr_reestimated: float
    moved: float
    bound: float | None
    tightness: float | None
    violations: int
    converged: bool
    ascent: tuple[float, ...] = ()


@final
@dataclass(frozen=True, eq=False)
class Curve:
    """A method's trials: `gaussian` several a level, `worst_case` one a level, both from level 0 upwards.

    `picture` (rows, cols) is the worst case of the shown level, held fixed; `guarantee` what its bounds rest
    on: "certified", "estimated" or "none".
    """

    guarantee: str
    gaussian: tuple[Trial, ...]
    worst_case: tuple[Trial, ...]
    picture: np.ndarray

    @property
    def trials(self) -> tuple[Trial, ...]:
        """All of them; the one at level 0, with which both begin, once."""
        return (*self.gaussian, *self.worst_case[1:])

    @property
    def violations(self) -> int:
        """Number of slices, in all trials, that moved by more than their bound."""
        return sum(trial.violations for trial in self.trials)

    @property
    def converged(self) -> bool:
        """Whether every solve of every trial reached its tolerance."""
        return all(trial.converged for trial in self.trials)


@final
@dataclass(frozen=True, eq=False)
class Robustness:
    """The curves by method, and what they have in common.

    `levels` start at 0; `shown_level` and `shown_slice` are those of the pictures, `reference` (rows, cols) theirs.
    """

    curves: dict[str, Curve]
    levels: tuple[float, ...]
    draws: int
    steps: int
    shown_level: float
    shown_slice: int
    reference: np.ndarray

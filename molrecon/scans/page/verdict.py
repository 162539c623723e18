"""The first lines of a page: what is certified about a volume, what is not, and how good that is as a whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, final

import numpy as np

from molrecon.io.volume import image_data_left_out, left_out_text
from molrecon.scans.reconstruction import Reconstruction

Level = Literal["good", "caution", "bad"]


@final
@dataclass(frozen=True)
class Verdict:
    """What to know before looking.

    Attributes:
        level: "bad" when slices have not converged or image data were left out; "caution" when nothing is certified or
            the data give reason for warnings; "good" otherwise.
        headline: one sentence.
        certified, not_certified: sentences.
    """

    level: Level
    headline: str
    certified: list[str]
    not_certified: list[str]


def verdict(result: Reconstruction) -> Verdict:
    """Judge a reconstruction by its certificate, its convergence, and the warnings about its data."""
    missed = np.flatnonzero(~result.converged)
    warned = len(result.warnings)
    incomplete = image_data_left_out(result.left_out)
    level: Level = "good"
    if warned or result.kind != "certified":
        level = "caution"
    if len(missed) or incomplete:
        level = "bad"
    headline = _converged(result, missed)
    if incomplete:
        headline += f" Incomplete: {left_out_text(result.left_out)} left out."
    if warned:
        headline += f" {_count(warned, 'warning')} about the data."
    return Verdict(level, headline, _certified(result), _not_certified(result, missed))


def listed(numbers: Sequence[int] | np.ndarray) -> str:
    """Return numbers in order as text, neighbours as ranges: "0 to 3, 7"."""
    ranges: list[str] = []
    values = [int(number) for number in numbers]
    start = 0
    for k, value in enumerate(values):
        if k + 1 < len(values) and values[k + 1] == value + 1:
            continue
        first = values[start]
        ranges.append(str(value) if first == value else f"{first}{',' if value == first + 1 else ' to'} {value}")
        start = k + 1
    return ", ".join(ranges)


def _converged(result: Reconstruction, missed: np.ndarray) -> str:
    n, solver = len(result.converged), result.solver
    if solver is None:
        return f"No error bound: {result.method} solves no equation to a tolerance."
    if len(missed):
        headline = f"Not converged: {_slices(missed, n)} missed the tolerance {solver.tol:g}"
        return headline + ("." if result.kind == "none" else f"; the error bound is at worst {_worst(result)}.")
    if result.kind == "none":
        return f"Converged, without an error bound: {_all(n)} reached the tolerance {solver.tol:g}."
    word = "Certified" if result.kind == "certified" else "Not certified"
    caution = "" if result.kind == "certified" else ", by constants that were estimated"
    return f"{word}: {_all(n)} within {solver.tol:g} of the exact solution{caution}; at worst {_worst(result)}."


def _certified(result: Reconstruction) -> list[str]:
    if result.kind != "certified":
        return []
    c = result.certificate
    return [
        f"The equation of {result.method} has exactly one solution, and each slice lies within its error bound of it:"
        f" |image - solution| / |image| is at most {_worst(result)}.",
        f"The proof rests on true upper bounds: Lip(H) is at most {c.lipschitz:.4g}, so m = {c.monotonicity:.4g}.",
    ]


def _not_certified(result: Reconstruction, missed: np.ndarray) -> list[str]:
    sentences = []
    if result.kind == "estimated":
        sentences.append("The error bounds rest on constants that were observed or assumed, not proved.")
    if result.kind == "none":
        sentences.append("How far the image is from the solution of any equation.")
    if len(missed) and result.solver is not None:
        sentences.append(f"The tolerance {result.solver.tol:g} in {_slices(missed, len(result.converged))}.")
    sentences.append(
        "That the image shows the anatomy as it is: a bound speaks of the method's equation, with the coil maps, the"
        " noise level and the samples that were used, and not of motion, wrong maps or lost signal."
    )
    if result.empty.any():
        sentences.append(f"Anything in slices {listed(np.flatnonzero(result.empty))}: they hold no data and are zero.")
    if result.left_out:
        sentences.append(f"What was left out of the file: {left_out_text(result.left_out)}.")
    return sentences


def _worst(result: Reconstruction) -> str:
    worst = int(np.argmax(result.error_bound))
    return f"{result.error_bound[worst]:.2g}" + (f" (slice {worst})" if len(result.error_bound) > 1 else "")


def _slices(which: np.ndarray, n: int) -> str:
    if len(which) == n:
        return _all(n)
    return f"{len(which)} of {n} slices ({listed(which)})"


def _all(n: int) -> str:
    return "the slice" if n == 1 else f"all {n} slices"


def _count(n: int, word: str) -> str:
    return f"{n} {word}{'' if n == 1 else 's'}"

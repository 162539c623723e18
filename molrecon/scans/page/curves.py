"""Curves of the error bound over the iterations, one a slice, as the coordinates of an SVG drawing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

WIDTH, HEIGHT = 640, 260
LEFT, RIGHT, TOP, BOTTOM = 62, 16, 14, 44  # margins
MAX_POINTS = 160  # of a curve: more cannot be told apart


@final
@dataclass(frozen=True)
class Tick:
    """A line across the drawing, at x or at y, with its label."""

    at: float
    label: str


@final
@dataclass(frozen=True)
class Curves:
    """A drawing of WIDTH x HEIGHT.

    Attributes:
        lines: by slice, the points of an SVG polyline; empty where nothing was iterated.
        tolerance: its height.
        x_ticks, y_ticks: of the axes, the second one logarithmic.
        label: of the vertical axis.
        text: what the drawing shows, for those who do not see it.
    """

    lines: list[str]
    tolerance: float
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    label: str
    text: str
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT
    top: int = TOP
    bottom: int = HEIGHT - BOTTOM


def draw_curves(residuals: Sequence[np.ndarray], tol: float, *, bounded: bool) -> Curves | None:
    """Draw the histories of `Reconstruction.residuals`; None where no value can be shown.

    Args:
        residuals: one array a slice, the value at the start included; values that are not positive and finite are left
            out of the lines.
        tol: the goal.
        bounded: the values are error bounds, not residuals alone.
    """
    histories = [np.where(np.isfinite(one) & (one > 0), one, np.nan) for one in residuals]
    values = np.concatenate([*histories, np.array([tol])])
    if not np.isfinite(values[:-1]).any():
        return None
    low, high = math.log10(np.nanmin(values)) - 0.1, math.log10(np.nanmax(values)) + 0.1
    steps = max(1, *(len(one) - 1 for one in histories))

    def x(step: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * step / steps

    def y(value: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (high - math.log10(value)) / (high - low)

    lines = []
    for one in histories:
        chosen = np.unique(np.linspace(0, len(one) - 1, MAX_POINTS if len(one) else 0).round().astype(int))
        points = [(x(k), y(float(one[k]))) for k in chosen if np.isfinite(one[k])]
        lines.append(" ".join(f"{a:.1f},{b:.1f}" for a, b in points))
    quantity = "relative error bound" if bounded else "relative residual (no bound)"
    return Curves(
        lines=lines,
        tolerance=y(tol),
        x_ticks=[Tick(x(step), str(step)) for step in _whole_ticks(steps)],
        y_ticks=[Tick(y(10.0**power), f"1e{power}") for power in _powers(low, high)],
        label=quantity,
        text=f"{quantity} over up to {steps} iterations, one line a slice, from {np.nanmax(values[:-1]):.1e} down to"
        f" {np.nanmin(values[:-1]):.1e}; the tolerance is {tol:g}",
    )


def _whole_ticks(steps: int) -> list[int]:
    spacing = next(size for size in (10**k * f for k in range(12) for f in (1, 2, 5)) if steps / size <= 8)
    return list(range(0, steps + 1, spacing))


def _powers(low: float, high: float) -> list[int]:
    powers = range(math.ceil(low), math.floor(high) + 1)
    return list(powers)[:: max(1, math.ceil(len(powers) / 8))]

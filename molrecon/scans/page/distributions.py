"""How the figures of a cohort are spread: a histogram for each, as the coordinates of an SVG drawing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from molrecon.scans.page.figures import QUANTITIES, Quantity, short
from molrecon.scans.page.rows import Row

WIDTH, HEIGHT = 300, 120
LEFT, RIGHT, TOP, BOTTOM = 8, 8, 16, 22  # margins
BINS = 24
LISTED = 6  # outliers that are named


@final
@dataclass(frozen=True)
class Bar:
    """A bar of volumes, those that stand out on top of the others."""

    x: float
    width: float
    y: float
    height: float
    outliers_y: float
    outliers_height: float


@final
@dataclass(frozen=True)
class Histogram:
    """A drawing of WIDTH x HEIGHT with a logarithmic axis.

    Attributes:
        title: of the quantity.
        summary: its median and range.
        text: what the drawing shows, for those who do not see it.
        bars: from left to right. ticks: places and labels. median: its place. most: the count of the highest bar.
        outliers: rows with their values, the farthest first; at most LISTED. more: how many others there are.
    """

    title: str
    summary: str
    text: str
    bars: list[Bar]
    ticks: list[tuple[float, str, str]]
    median: float
    most: int
    outliers: list[tuple[Row, str]]
    more: int
    width: int = WIDTH
    height: int = HEIGHT
    top: int = TOP
    bottom: int = HEIGHT - BOTTOM


def draw_distributions(rows: Sequence[Row]) -> list[Histogram]:
    """Return a histogram for each quantity of which two or more volumes have a value."""
    drawn = (_draw(quantity, rows) for quantity in QUANTITIES)
    return [one for one in drawn if one is not None]


def _draw(quantity: Quantity, rows: Sequence[Row]) -> Histogram | None:
    measured = [(row, value) for row in rows if (value := row.values.get(quantity.key)) is not None]
    if len(measured) < 2:
        return None
    values = np.array([value for _, value in measured])
    logs, odd = np.log10(values), np.array([quantity.key in row.z for row, _ in measured])
    low, high = float(logs.min()), float(logs.max())
    if high - low < 0.1:  # nearly one value: in the middle of a narrow range
        low, high = (low + high) / 2 - 0.05, (low + high) / 2 + 0.05
    edges = np.linspace(low, high, BINS + 1)
    odd_counts, all_counts = (np.histogram(values.clip(low, high), edges)[0] for values in (logs[odd], logs))
    most = int(all_counts.max())

    def x(value: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (value - low) / (high - low)

    step, tall = (WIDTH - LEFT - RIGHT) / BINS, (HEIGHT - TOP - BOTTOM) / most
    bars = [
        Bar(
            x=LEFT + k * step + 0.5,
            width=step - 1,
            y=HEIGHT - BOTTOM - tall * (count - odd_count),
            height=tall * (count - odd_count),
            outliers_y=HEIGHT - BOTTOM - tall * count,
            outliers_height=tall * odd_count,
        )
        for k, (count, odd_count) in enumerate(zip(all_counts.tolist(), odd_counts.tolist(), strict=True))
        if count
    ]
    outliers = [(row, value) for row, value in measured if quantity.key in row.z]
    outliers.sort(key=lambda pair: -abs(pair[0].z[quantity.key]))
    median = float(np.median(values))
    summary = f"median {short(median)}, from {short(values.min())} to {short(values.max())}"
    named = ", ".join(row.name for row, _ in outliers[:LISTED]) or "none"
    return Histogram(
        title=quantity.title,
        summary=summary,
        text=f"Histogram of {quantity.title} over {len(measured)} volumes: {summary}; outliers: {named}",
        bars=bars,
        ticks=[
            (x(at), short(10**at), anchor)
            for at, anchor in ((low, "start"), ((low + high) / 2, "middle"), (high, "end"))
        ],
        median=x(math.log10(median)),
        most=most,
        outliers=[(row, short(value)) for row, value in outliers[:LISTED]],
        more=max(0, len(outliers) - LISTED),
    )

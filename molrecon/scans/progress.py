"""The one progress bar: silent on short work, and never in the way of a log file."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TypeVar

from tqdm import tqdm

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

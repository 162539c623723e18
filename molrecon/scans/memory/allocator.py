"""What a process does with the memory that it frees: it keeps it for its next arrays, or gives it back at once."""

from __future__ import annotations

import ctypes
import sys

# The numbers of glibc's malloc.h.
TRIM_THRESHOLD, MMAP_THRESHOLD, ARENA_MAX = -1, -3, -8
LARGEST_KEPT = 2**30
NEVER = 2**31 - 1
SMALLEST_RETURNED = 2**20


def tune_for(budget: int | str | None) -> bool:
    """Let this process give back what it frees where it has a budget, and keep it otherwise; tell whether it does.

    Call it before threads start. No array changes.
    """
    return keep_freed_memory() if budget is None else return_freed_memory()


def keep_freed_memory() -> bool:
    """Let this process keep memory that it frees, up to its peak, and tell whether it does.

    The C library of Linux (glibc) gives arrays of 32 MiB and more back to the system when they are freed, and what is
    free at the end of its heap. The next arrays come page by page, each page by a fault and filled with zeros: 10 to 20
    % of the time of a slice of 640 x 480, whose features are as large. What is kept serves all threads (one arena):
    otherwise the peak would grow by a tenth. Elsewhere nothing is done.
    """
    return _set_options((TRIM_THRESHOLD, NEVER), (MMAP_THRESHOLD, LARGEST_KEPT), (ARENA_MAX, 1))


def return_freed_memory() -> bool:
    """Let this process give arrays of 1 MiB and more back when it frees them, and tell whether it does.

    Left to itself, glibc learns to keep arrays under 32 MiB, and those of tiles, of many sizes, leave gaps in which
    the next ones do not fit: of a guided volume in tiles, 275 to 354 MB were held where 124 were in use, and 410 by a
    process that keeps all; 151 by one that gives back. Elsewhere nothing is done.
    """
    return _set_options((MMAP_THRESHOLD, SMALLEST_RETURNED))


def _set_options(*options: tuple[int, int]) -> bool:
    set_option = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    return set_option is not None and all(set_option(option, value) for option, value in options)

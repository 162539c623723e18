"""Freed memory: kept, large arrays come without new pages, and the peak stays; given back, nothing lies free."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="of Linux' C library")

LARGE = """
import resource, sys
import torch
from molrecon.scans.memory.allocator import tune_for
if sys.argv[1] == "keep":
    assert tune_for(None)
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(3):
    torch.ones(20_000_000)
before = faults()
for _ in range(5):
    torch.ones(20_000_000)
print(faults() - before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
# Arrays of 4 MB, every second one of which is freed: the gaps between the others.
GAPS = """
import sys
import torch
from molrecon.scans.memory.allocator import tune_for
if sys.argv[1] == "return":
    assert tune_for("1GiB")
torch.ones(8_000_000)  # after this one glibc keeps arrays of its size, 32 MB
resident = lambda: int(open("/proc/self/statm").read().split()[1]) * 4096
before = resident()
arrays = [torch.ones(1_000_000) for _ in range(40)]
del arrays[::2]
print(resident() - before)
"""


def run(script: str, how: str) -> list[int]:
    command = [sys.executable, "-c", script, how]
    return list(map(int, subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()))


def test_large_arrays_take_the_place_of_earlier_ones() -> None:
    (faults, peak), (kept_faults, kept_peak) = run(LARGE, "by itself"), run(LARGE, "keep")
    assert faults > 5 * 2_000  # 80 MB are 19,500 pages
    assert kept_faults < faults / 10
    assert kept_peak < peak + 100_000  # KiB: one array, since an aligned one does not fit where another was


def test_gaps_between_arrays_are_given_back_inside_a_budget() -> None:
    (held,), (needed,) = run(GAPS, "by itself"), run(GAPS, "return")
    assert needed < 1.1 * 80e6
    assert held > 1.3 * needed

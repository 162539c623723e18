"""Memory that is kept: large arrays come without new pages, and the peak stays."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import resource, sys
import torch
from molrecon.scans.memory.allocator import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(3):
    torch.ones(20_000_000)
before = faults()
for _ in range(5):
    torch.ones(20_000_000)
print(faults() - before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="of Linux' C library")
def test_large_arrays_take_the_place_of_earlier_ones() -> None:
    def run(how: str) -> list[int]:
        command = [sys.executable, "-c", SCRIPT, how]
        return list(map(int, subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()))

    (faults, peak), (kept_faults, kept_peak) = run("give back"), run("keep")
    assert faults > 5 * 2_000  # 80 MB are 19,500 pages
    assert kept_faults < faults / 10
    assert kept_peak < peak + 100_000  # KiB: one array, since an aligned one does not fit where another was

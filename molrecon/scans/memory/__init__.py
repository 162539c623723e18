"""A reconstruction inside a given amount of memory.

network_plan  tiles, Anderson window and precision of a MOL
scan_plan     where k-space and maps lie, slices at a time, and the plan of the network, for a scan
allocator     does a process keep the memory that it frees, or give it back?
file_sizes    what a file holds, and what reading it takes, without reading it
"""

from __future__ import annotations

from molrecon.scans.memory.network_plan import MemoryPlan, fit_to_memory, parse_size, plan_memory, untiled

__all__ = ["MemoryPlan", "fit_to_memory", "parse_size", "plan_memory", "untiled"]

"""Defaults of `molrecon.guarantees.robustness.evaluate` that the command's help names too: help needs no torch."""

from __future__ import annotations

LEVELS = (0.0, 0.01, 0.02, 0.05, 0.1)  # sizes |d| / |b| of the perturbations
DRAWS, STEPS = 3, 10  # draws of noise, and steps of the ascent, a level

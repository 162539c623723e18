"""Defaults and choices that the command's help names, apart from the code that they are of: help needs no torch."""

from __future__ import annotations

DEFAULT_MODEL = "mol-guided-2d"
DEFAULT_BATCH_SIZE = 2  # slices at a time: more gain nothing on a CPU, and cost memory

# Weights of the classical methods, see molrecon.classical
CG_REGULARISATION = 0.01
L1_REGULARISATION = 0.002

# Of molrecon.robustness.evaluate: sizes |d| / |b|; draws of noise and steps of the ascent a level
LEVELS = (0.0, 0.01, 0.02, 0.05, 0.1)
DRAWS, STEPS = 3, 10

DEFAULT_IMAGER = "ista-net-plus-gin"  # followed by the ratio in the names of the files
MEASUREMENTS = {10: 109, 20: 218, 25: 272, 30: 327, 40: 436, 50: 545}  # numbers a block, by sampling ratio in percent

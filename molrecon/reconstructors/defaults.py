"""Defaults of the reconstructions that the command's help names too: they are apart because help needs no torch."""

from __future__ import annotations

DEFAULT_MODEL = "mol-guided-2d"
DEFAULT_BATCH_SIZE = 2  # slices at a time: more gain nothing on a CPU, and cost memory

# Weights of the classical methods, see molrecon.reconstructors.classical
CG_REGULARISATION = 0.01
L1_REGULARISATION = 0.002

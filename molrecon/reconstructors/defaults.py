"""Defaults of the reconstructions that the command's help names too: they are apart because help needs no torch."""

from __future__ import annotations

import os

DEFAULT_MODEL = "mol-guided-2d"  # of slices
SERIES_MODEL = "mol-perfusion-2dt"  # of frames that are accelerated too much to stand alone
AUTOMATIC = "auto"  # what stands for both where a scan decides which
DEFAULT_BATCH_SIZE = max(2, os.cpu_count() or 1)  # slices at a time: a core each

# Weights of the classical methods, see molrecon.reconstructors.classical
CG_REGULARISATION = 0.01
L1_REGULARISATION = 0.002

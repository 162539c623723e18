"""The sampling ratios of block compressed sensing, and the imager that commands take: they are apart from torch."""

from __future__ import annotations

DEFAULT_IMAGER = "ista-net-plus-gin"  # followed by the ratio in the names of the files
MEASUREMENTS = {10: 109, 20: 218, 25: 272, 30: 327, 40: 436, 50: 545}  # numbers a block, by sampling ratio in percent

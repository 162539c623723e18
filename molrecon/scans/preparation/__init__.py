"""From a raw volume to what every method needs: k-space on the image grid, coil maps, mask, noise level.

cartesian         `prepare`, for samples on the grid; `molrecon.scans.trajectories` prepares those on a trajectory
prepared_volume   what comes out of it
coil_mixing       whitened and virtual coils, and the readout cut to the image
coil_maps         maps from a file or the caller, and maps written to a file
estimated_maps    ESPIRiT's maps of the calibration region, one set or two
noise_level       the noise level to use, and the estimates that it is taken from
slices            some slices of a volume, evenly spread, and their masks
"""

from __future__ import annotations

from molrecon.scans.preparation.cartesian import OBJECT_SHARE, prepare
from molrecon.scans.preparation.coil_maps import given_maps, read_maps, unmixed_maps
from molrecon.scans.preparation.coil_mixing import mixed, whitening
from molrecon.scans.preparation.estimated_maps import (
    CROP,
    GRID_STEP,
    MIN_SETS_WIDTH,
    SETS_ENERGY,
    THRESHOLD,
    align_phases,
    estimate_maps,
    explained_by_two_sets,
    sets_needed,
)
from molrecon.scans.preparation.noise_level import COMPARED_SLICES, NOISE_AGREEMENT, NOISE_SLICES
from molrecon.scans.preparation.prepared_volume import MapsSource, PreparedVolume
from molrecon.scans.preparation.slices import spread

__all__ = [
    "COMPARED_SLICES",
    "CROP",
    "GRID_STEP",
    "MIN_SETS_WIDTH",
    "NOISE_AGREEMENT",
    "NOISE_SLICES",
    "OBJECT_SHARE",
    "SETS_ENERGY",
    "THRESHOLD",
    "MapsSource",
    "PreparedVolume",
    "align_phases",
    "estimate_maps",
    "explained_by_two_sets",
    "given_maps",
    "mixed",
    "prepare",
    "read_maps",
    "sets_needed",
    "spread",
    "unmixed_maps",
    "whitening",
]

"""Raw scanner data in ISMRMRD (MRD) HDF5."""

from __future__ import annotations

from molrecon.io.mrd.reader import read_mrd, read_mrd_frames
from molrecon.io.mrd.records import is_mrd

__all__ = ["is_mrd", "read_mrd", "read_mrd_frames"]

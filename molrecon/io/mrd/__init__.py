"""Raw scanner data in ISMRMRD (MRD) HDF5."""

from __future__ import annotations

from molrecon.io.mrd.reader import is_mrd, read_mrd

__all__ = ["is_mrd", "read_mrd"]

"""Images at known places in the patient, and a place for scans that do not say theirs.

read_placed_image   NIfTI, DICOM, or a folder of DICOM -> PlacedImage
PlacedImage         values and geometry
borrow_geometry     a scan and an image of the same exam -> where the scan's voxels are
"""

from __future__ import annotations

from molrecon.io.placed.borrow import borrow_geometry
from molrecon.io.placed.placed_image import PlacedImage
from molrecon.io.placed.read import read_placed_image

__all__ = ["PlacedImage", "borrow_geometry", "read_placed_image"]

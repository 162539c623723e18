"""NIfTI images whose header says where they lie."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from molrecon.io.geometry import Geometry, Vector
from molrecon.io.placed.placed_image import PlacedImage
from molrecon.io.volume import UnreadableInput, file_sha256, reading

EXPECTED = "a NIfTI image that says where it lies in the scanner (sform or qform code 1)"
SCANNER = 1  # of the codes: the coordinates of the scanner; others are those of another image or of an atlas


def read_nifti(path: Path) -> PlacedImage:
    """Read a NIfTI image (i, j, k) as (slices k, rows j, cols i), of a series in time its first one.

    sform is believed before qform, each where its code is 1: other codes name the coordinates of another image or of an
    atlas. A slice is as thick as the distance to the next, NIfTI having no word for gaps.

    Raises UnreadableInput.
    """
    import nibabel

    with reading(path, EXPECTED, quote=False):
        image: Any = nibabel.load(path)
        header = image.header
        forms = {
            "sform": (int(header["sform_code"]), header.get_sform()),
            "qform": (int(header["qform_code"]), header.get_qform()),
        }
        affine = next((matrix for code, matrix in forms.values() if code == SCANNER), None)
        if affine is None:
            codes = ", ".join(f"{name} code {code}" for name, (code, _) in forms.items())
            raise UnreadableInput(path, codes, EXPECTED)
        if len(image.shape) not in (3, 4) or 0 in image.shape:
            raise UnreadableInput(path, f"an image of shape {image.shape}", "three axes, or four of which time is last")
        values = np.asarray(image.dataobj[..., 0] if len(image.shape) == 4 else image.dataobj)
        values = np.abs(values).astype(np.float32).T
        origin, slice_step, row_step, column_step = (_lps(affine[:3, axis]) for axis in (3, 2, 1, 0))
        geometry = Geometry(origin, slice_step, row_step, column_step, float(np.linalg.norm(slice_step)))
        return PlacedImage(np.ascontiguousarray(values), geometry, "NIfTI", file_sha256(path))


def _lps(vector: np.ndarray) -> Vector:
    x, y, z = (float(value) for value in vector)
    return -x, -y, z

"""Where the voxels of a volume are in the patient: what every reader fills and every writer reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np

Vector = tuple[float, float, float]


def vector(values: np.ndarray) -> Vector:
    """Return an array (3,) as a vector."""
    x, y, z = map(float, values)
    return x, y, z


@final
@dataclass(frozen=True)
class Geometry:
    """Positions of the voxels of an image volume (slices, rows, cols), in the patient, in millimetres.

    The centre of voxel (s, r, c) is at `origin + s slice_step + r row_step + c column_step`, in DICOM's coordinates
    LPS: x grows to the patient's left, y to posterior, z to superior. NIfTI's RAS has the signs of x and y changed.

    Attributes:
        origin: centre of voxel (0, 0, 0).
        slice_step: from a slice to the next; gaps are in it, and descending slices turn it round. Of a single slice it
            is the normal, as long as the slice is thick.
        row_step: from a row to the next.
        column_step: from a column to the next.
        slice_thickness: of the excited slice, which may be less or more than the length of `slice_step`.
        borrowed_from: the image that all this was taken from (`borrow_geometry`), without a path or an identity; None
            where the scan says it itself.

    Raises:
        ValueError: steps that are not finite, are zero, or lie in one plane.
    """

    origin: Vector
    slice_step: Vector
    row_step: Vector
    column_step: Vector
    slice_thickness: float
    borrowed_from: str | None = None

    def __post_init__(self) -> None:
        steps = np.array([self.slice_step, self.row_step, self.column_step])
        lengths = np.linalg.norm(steps, axis=1)
        sound = bool(np.isfinite(steps).all() and np.isfinite(self.origin).all() and (lengths > 0).all())
        # Of unit vectors: 1 for a right-angled frame, 0 in one plane.
        if not sound or abs(float(np.linalg.det(steps / lengths[:, None]))) < 1e-3 or not self.slice_thickness > 0:
            raise ValueError(
                f"Geometry: origin {self.origin}, steps {self.slice_step}, {self.row_step}, {self.column_step} and"
                f" slice thickness {self.slice_thickness}, expected finite numbers, three steps that span space, and a"
                " positive thickness"
            )

    @property
    def voxel_size(self) -> Vector:
        """Distances of neighbouring voxel centres (slices, rows, cols) in millimetres."""
        steps = (self.slice_step, self.row_step, self.column_step)
        return tuple(float(np.linalg.norm(step)) for step in steps)  # type: ignore[return-value]

    def affine_lps(self) -> np.ndarray:
        """Return the (4, 4) float64 matrix that takes (slice, row, col, 1) to LPS millimetres."""
        affine = np.eye(4)
        affine[:3] = np.stack([self.slice_step, self.row_step, self.column_step, self.origin], 1)
        return affine


def origin_of(geometry: Geometry | None) -> str:
    """Return in words where the place of an image is known from."""
    if geometry is None:
        return "unknown"
    return "from the scanner" if geometry.borrowed_from is None else f"borrowed from {geometry.borrowed_from}"

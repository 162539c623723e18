"""The values of an image volume and the places of its voxels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np

from molrecon.io.geometry import Geometry


@final
@dataclass(frozen=True, eq=False)
class PlacedImage:
    """An image in the patient.

    Attributes:
        values: (slices, rows, cols) float32, finite; the magnitude of complex ones.
        geometry: of its voxels.
        kind: "NIfTI" or "DICOM".
        sha256: of its file; of a DICOM series that of its files in the order of the slices.

    Raises ValueError for values of another rank, none at all, or not finite.
    """

    values: np.ndarray
    geometry: Geometry
    kind: str
    sha256: str

    def __post_init__(self) -> None:
        """Check the values."""
        if self.values.ndim != 3 or self.values.size == 0 or not np.isfinite(self.values).all():
            raise ValueError(
                f"PlacedImage: values {self.values.shape}, expected (slices, rows, cols), finite and not empty"
            )

    @property
    def name(self) -> str:
        """What outputs call it: neither a path, nor a name, nor anything of its header."""
        return f"a {self.kind} image, sha256 {self.sha256}"

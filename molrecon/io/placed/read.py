"""Reading an image volume whose place in the patient is known, NIfTI or DICOM."""

from __future__ import annotations

from pathlib import Path

from molrecon.io.placed.dicom_series import read_series
from molrecon.io.placed.nifti_image import read_nifti
from molrecon.io.placed.placed_image import PlacedImage
from molrecon.io.volume import UnreadableInput

__all__ = ["read_placed_image"]


def read_placed_image(path: str | Path) -> PlacedImage:
    """Read an image and where it lies, by its name: .nii or .nii.gz is NIfTI, a folder or any other file is DICOM.

    A classic DICOM file stands for its series, as far as it lies in the same folder; a folder holds one series. Of a
    series in time the first image is read.

    Raises:
        UnreadableInput: no such image, or one that does not say where it lies; the message quotes nothing of a header.
        ModuleNotFoundError: DICOM, and pydicom is not installed.
    """
    path = Path(path)
    if not path.exists():
        raise UnreadableInput(path, "no such file", "a NIfTI or DICOM image, or a folder of DICOM")
    return read_nifti(path) if path.name.endswith((".nii", ".nii.gz")) else read_series(path)

"""NIfTI output: voxel sizes without a claim about orientation."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np

from molrecon.io.atomic import atomic_path

__all__ = ["write_nifti"]


def write_nifti(path: str | Path, image: np.ndarray, voxel_size: tuple[float, float, float] | None) -> None:
    """Write a real image (slices, rows, cols) as float32 NIfTI-1, .nii or .nii.gz.

    NIfTI axes: (i, j, k) = (col, row, slice), so that value (i, j, k) is image[k, j, i]. voxel_size is (row, column,
    slice) in mm, thus pixdim = (column, row, slice); None leaves pixdim 1 with unknown units. The input formats give
    sizes but no position or direction: sform and qform code are 0 ("unknown") and the description field says so.
    Readers then centre the volume and call i left-right by default; that is their guess, not a fact.

    Raises ValueError for another rank, an empty or non-finite image, voxel sizes that are not positive, another
    suffix; TypeError for a complex image.
    """
    path = Path(path)
    image = np.asarray(image)
    if image.dtype.kind not in "biuf":
        raise TypeError(f"write_nifti: image of dtype {image.dtype}, expected real (take the magnitude first)")
    with np.errstate(over="ignore"):
        image = image.astype(np.float32)
    if image.ndim != 3 or image.size == 0 or not np.isfinite(image).all():
        raise ValueError(
            f"write_nifti: image {image.shape}, expected (slices, rows, cols), finite in float32, not empty"
        )
    if voxel_size is not None and not (len(voxel_size) == 3 and all(0 < size < np.inf for size in voxel_size)):
        raise ValueError(f"write_nifti: voxel size {voxel_size}, expected three positive mm (row, column, slice)")
    if not path.name.endswith((".nii", ".nii.gz")):
        raise ValueError(f"write_nifti: file name {path.name}, expected .nii or .nii.gz")
    header = nibabel.Nifti1Header()
    header.set_data_shape(image.shape[::-1])
    header.set_data_dtype(np.float32)
    description = "orientation unknown"
    if voxel_size is None:
        description += ", voxel size unknown"
    else:
        row, column, through = voxel_size
        header.set_zooms((column, row, through))
        header.set_xyzt_units("mm")
    header["descrip"] = description
    with atomic_path(path) as temporary:
        nibabel.save(nibabel.Nifti1Image(image.T, None, header), temporary)

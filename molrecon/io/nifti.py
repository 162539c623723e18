"""NIfTI output: voxel sizes without a claim about orientation."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np

from molrecon.io.atomic import write_atomically

__all__ = ["write_nifti"]


def write_nifti(
    path: str | Path,
    image: np.ndarray,
    voxel_size: tuple[float, float, float] | None,
    frame_seconds: float | None = None,
) -> None:
    """Write a real image (slices, rows, cols), or a series (time, slices, rows, cols), as float32 NIfTI-1.

    NIfTI axes: (i, j, k, t) = (col, row, slice, time), so that value (i, j, k, t) is image[t, k, j, i]. voxel_size is
    (row, column, slice) in mm, thus pixdim = (column, row, slice); None leaves pixdim 1 with unknown units. The input
    formats give sizes but no position or direction: sform and qform code are 0 ("unknown") and the description field
    says so. Readers then centre the volume and call i left-right by default; that is their guess, not a fact.

    Args:
        path: ends in .nii or .nii.gz.
        image: what to write; a series needs `frame_seconds`, the time from frame to frame, and a volume has none.
        voxel_size, frame_seconds: see above.

    Raises ValueError for another rank, an empty or non-finite image, voxel sizes or a time that are not positive,
    another suffix; TypeError for a complex image; OSError for a file that cannot be written.
    """
    import nibabel

    path = Path(path)
    image = np.asarray(image)
    if image.dtype.kind not in "biuf":
        raise TypeError(f"write_nifti: image of dtype {image.dtype}, expected real (take the magnitude first)")
    with np.errstate(over="ignore"):
        image = image.astype(np.float32)
    series = frame_seconds is not None
    if image.ndim != 3 + series or image.size == 0 or not np.isfinite(image).all():
        axes = "(time, slices, rows, cols)" if series else "(slices, rows, cols)"
        raise ValueError(f"write_nifti: image {image.shape}, expected {axes}, finite in float32, not empty")
    if frame_seconds is not None and not 0 < frame_seconds < np.inf:
        raise ValueError(f"write_nifti: frame_seconds is {frame_seconds}, expected a positive number")
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
        zooms = [1.0, 1.0, 1.0]
    else:
        row, column, through = voxel_size
        zooms = [column, row, through]
    header.set_zooms(zooms if frame_seconds is None else [*zooms, frame_seconds])
    header.set_xyzt_units("unknown" if voxel_size is None else "mm", None if frame_seconds is None else "sec")
    header["descrip"] = description
    content = nibabel.Nifti1Image(image.T, None, header).to_bytes()
    # Noise compresses badly at any level; without a time equal images are equal files.
    write_atomically(path, gzip.compress(content, 1, mtime=0) if path.name.endswith(".gz") else content)

"""NIfTI output: with the place in the patient where it is known, else voxel sizes without a claim about orientation."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np

from molrecon.io.atomic import write_atomically
from molrecon.io.geometry import Geometry

__all__ = ["affine_ras", "write_nifti"]

# Cosine of the angle between two axes up to which they count as right-angled; single precision has some 1e-7.
RIGHT_ANGLE = 1e-5


def affine_ras(geometry: Geometry) -> np.ndarray:
    """Return the (4, 4) float64 matrix that takes (col, row, slice, 1), the indices of NIfTI, to RAS millimetres."""
    affine: np.ndarray = np.diag([-1.0, -1.0, 1.0, 1.0]) @ geometry.affine_lps()[:, [2, 1, 0, 3]]
    return affine


def write_nifti(
    path: str | Path,
    image: np.ndarray,
    voxel_size: tuple[float, float, float] | None,
    frame_seconds: float | None = None,
    geometry: Geometry | None = None,
) -> None:
    """Write a real image (slices, rows, cols), or a series (time, slices, rows, cols), as float32 NIfTI-1.

    NIfTI axes: (i, j, k, t) = (col, row, slice, time), so that value (i, j, k, t) is image[t, k, j, i]. With a
    geometry, sform and qform (code 1, scanner) give the place of each voxel in RAS millimetres, and its distances are
    the voxel size; slices that are shifted within their plane have no qform, which holds no shear (code 0). Without,
    voxel_size is (row, column, slice) in mm, thus pixdim = (column, row, slice); None leaves pixdim 1 with unknown
    units; sform and qform code are 0 ("unknown") and the description field says so. Readers then centre the volume and
    call i left-right by default; that is their guess.

    Args:
        path: ends in .nii or .nii.gz.
        image: what to write; a series needs `frame_seconds`, the time from frame to frame, and a volume has none. NaN:
            the time is unknown, and pixdim 0 without a unit.
        voxel_size, frame_seconds, geometry: see above.

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
    seconds, time_unit = frame_seconds, "sec"
    if frame_seconds is not None and np.isnan(frame_seconds):
        seconds, time_unit = 0.0, "unknown"
    if seconds is not None and time_unit == "sec" and not 0 < seconds < np.inf:
        raise ValueError(f"write_nifti: frame_seconds is {frame_seconds}, expected a positive number")
    if voxel_size is not None and not (len(voxel_size) == 3 and all(0 < size < np.inf for size in voxel_size)):
        raise ValueError(f"write_nifti: voxel size {voxel_size}, expected three positive mm (row, column, slice)")
    if not path.name.endswith((".nii", ".nii.gz")):
        raise ValueError(f"write_nifti: file name {path.name}, expected .nii or .nii.gz")
    header = nibabel.Nifti1Header()
    header.set_data_shape(image.shape[::-1])
    header.set_data_dtype(np.float32)
    description = "" if geometry is not None else "orientation unknown"
    if geometry is not None:
        through, row, column = geometry.voxel_size
        zooms = [column, row, through]
    elif voxel_size is None:
        description += ", voxel size unknown"
        zooms = [1.0, 1.0, 1.0]
    else:
        row, column, through = voxel_size
        zooms = [column, row, through]
    header.set_zooms(zooms if seconds is None else [*zooms, seconds])
    unknown = voxel_size is None and geometry is None
    header.set_xyzt_units("unknown" if unknown else "mm", None if seconds is None else time_unit)
    header["descrip"] = description
    nifti = nibabel.Nifti1Image(image.T, None, header)
    if geometry is not None:
        affine = affine_ras(geometry)
        nifti.set_sform(affine, code=1)
        steps = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
        right_angled = np.abs(steps.T @ steps - np.eye(3)).max() < RIGHT_ANGLE
        nifti.set_qform(affine, code=1 if right_angled else 0)
    content = nifti.to_bytes()
    # Noise compresses badly at any level; without a time equal images are equal files.
    write_atomically(path, gzip.compress(content, 1, mtime=0) if path.name.endswith(".gz") else content)

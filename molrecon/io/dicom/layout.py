"""How slices lie on the screen, and how their values become integers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import final

import numpy as np

from molrecon.io.geometry import Geometry, Vector, vector

__all__ = ["Stored", "check_image", "quantise", "turned"]

# Right angles up to the rounding of the directions that scanners write, in single precision.
RIGHT_ANGLE = 1e-3
# How a reader expects a slice, by the axis of its normal (x, y, z): where columns grow to, and rows.
READING = {
    0: ((0.0, 1.0, 0.0), (0.0, 0.0, -1.0)),  # sagittal: posterior, inferior
    1: ((1.0, 0.0, 0.0), (0.0, 0.0, -1.0)),  # coronal: left, inferior
    2: ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0)),  # axial: left, posterior
}
LARGEST = 65535


@final
@dataclass(frozen=True, eq=False)
class Stored:
    """An image as DICOM stores it: `value = slope * pixels + intercept`, to half a slope.

    pixels: uint16. slope, intercept: DICOM decimal strings of at most 16 characters, whose values were used.
    """

    pixels: np.ndarray
    slope: str
    intercept: str


def check_image(who: str, image: np.ndarray, geometry: Geometry | None) -> tuple[np.ndarray, Geometry]:
    """Return the image as float64 (time, slices, rows, cols), and the geometry.

    Raises:
        ValueError: no geometry, one whose axes are not at right angles, another rank, or values that are not finite.
        TypeError: an image that is not real.
    """
    if geometry is None:
        raise ValueError(
            f"{who}: the input does not say where its voxels are in the patient (fastMRI, NumPy and BART files never"
            " do), expected a geometry: DICOM positions are not made up"
        )
    image = np.asarray(image)
    if image.dtype.kind not in "biuf":
        raise TypeError(f"{who}: image of dtype {image.dtype}, expected real (take the magnitude first)")
    if image.ndim not in (3, 4) or image.size == 0 or not np.isfinite(image).all():
        axes = "(slices, rows, cols) or (time, slices, rows, cols)"
        raise ValueError(f"{who}: image {image.shape}, expected {axes}, finite and not empty")
    if max(image.shape[-2:]) > LARGEST:
        raise ValueError(f"{who}: image {image.shape}, expected at most {LARGEST} rows and columns")
    units = [_unit(step) for step in (geometry.slice_step, geometry.row_step, geometry.column_step)]
    skewed = max(abs(float(units[i] @ units[j])) for i, j in ((0, 1), (0, 2), (1, 2)))
    if skewed > RIGHT_ANGLE:
        raise ValueError(f"{who}: the axes' cosines reach {skewed:.3g}, expected right angles between them")
    return image.astype(np.float64)[(None,) * (4 - image.ndim)], geometry


def turned(image: np.ndarray, geometry: Geometry) -> tuple[np.ndarray, Geometry]:
    """Bring slices to the position in which they are read, by exchanging and reversing rows and columns alone.

    Axial slices have the patient's anterior side on top and the right side on the left; coronal ones the head on top
    and the right side on the left; sagittal ones the head on top and the anterior side on the left. Every voxel keeps
    its value and its place in the patient, and the slices their order.

    Args:
        image: (..., rows, cols).
        geometry: of the image.

    Returns:
        the image and its geometry.
    """
    row, column = np.array(geometry.row_step), np.array(geometry.column_step)
    normal = np.cross(_unit(row), _unit(column))
    right, down = map(np.array, READING[int(np.argmax(np.abs(normal)))])
    if abs(_unit(row) @ right) + abs(_unit(column) @ down) > abs(_unit(column) @ right) + abs(_unit(row) @ down):
        image, row, column = image.swapaxes(-1, -2), column, row
    origin = np.array(geometry.origin)
    if row @ down < 0:
        image, origin, row = image[..., ::-1, :], origin + (image.shape[-2] - 1) * row, -row
    if column @ right < 0:
        image, origin, column = image[..., ::-1], origin + (image.shape[-1] - 1) * column, -column
    return image, replace(geometry, origin=vector(origin), row_step=vector(row), column_step=vector(column))


def quantise(image: np.ndarray) -> Stored:
    """Store real values as uint16, with one slope for all of them, so that slices and frames stay comparable.

    The range is that of the values, and of 0.
    """
    low, high = min(float(image.min()), 0.0), max(float(image.max()), 0.0)
    intercept = decimal(low)
    spread = high - float(intercept)
    slope = decimal(spread / LARGEST) if spread > 0 else "1"
    if float(slope) == 0:  # the spread is less than any number
        slope = "1"
    pixels = np.rint((image - float(intercept)) / float(slope)).clip(0, LARGEST).astype("<u2")
    return Stored(pixels, slope, intercept)


def decimal(value: float) -> str:
    """Return a number as a DICOM decimal string: at most 16 characters, as many digits as they hold."""
    from pydicom.valuerep import format_number_as_ds

    return "0" if value == 0 else format_number_as_ds(float(value))


def decimals(values: Vector | np.ndarray) -> list[str]:
    """Return several numbers as DICOM decimal strings; distances and directions below 1e-12 are zero."""
    return [decimal(0.0 if abs(value) < 1e-12 else value) for value in np.asarray(values, float)]


def _unit(step: Vector | np.ndarray) -> np.ndarray:
    return np.asarray(step, float) / np.linalg.norm(step)

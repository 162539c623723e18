"""A place for scans that do not say theirs, from an image of the same exam: checked against the scan's own picture."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from typing import Literal, final, get_args

import numpy as np
import torch

from molrecon.io.crop import center_crop
from molrecon.io.geometry import Geometry, vector
from molrecon.io.placed.placed_image import PlacedImage
from molrecon.io.volume import RawVolume
from operators import centred_ifft
from operators.sensitivity import coil_norm

Axes = Literal["found", "stored"]
AXES: tuple[Axes, ...] = get_args(Axes)

FIELD_TOLERANCE = 0.02  # relative, of fields of view; scanners round them to millimetres
# Slices may have gaps, of which a scan's header need not tell; they may not lie closer than they are thick.
STEP_RANGE = (0.95, 2.5)
# Cycles in a field of view between which pictures are compared: below are the coils' brightness, above are lines that
# an undersampled scan did not measure.
BAND = (3.0, 12.0)
GRID = 48
# Correlations of single slices with their own image: 0.9 and more when fully sampled, 0.78 and more at R = 4, 0.55 at
# R = 8; with another turn of it less by 0.04 and more, least for heads from left to right. Another head reaches 0.88.
LEAST_AGREEMENT, LEAST_MARGIN = 0.5, 0.04


@final
@dataclass(frozen=True)
class _Turn:
    """How the axes of an image are turned into those of a scan: rows and columns exchanged, then each reversed."""

    exchanged: bool = False
    slices: bool = False
    rows: bool = False
    columns: bool = False

    def __call__(self, image: PlacedImage) -> PlacedImage:
        """Return the same image with its axes turned; every voxel keeps its value and its place."""
        values, geometry = image.values, image.geometry
        steps = [np.array(step) for step in (geometry.slice_step, geometry.row_step, geometry.column_step)]
        if self.exchanged:
            values, steps = values.swapaxes(1, 2), [steps[0], steps[2], steps[1]]
        origin = np.array(geometry.origin)
        for axis, reversed_ in enumerate((self.slices, self.rows, self.columns)):
            if reversed_:
                values, origin = np.flip(values, axis), origin + (values.shape[axis] - 1) * steps[axis]
                steps[axis] = -steps[axis]
        through, row, column = map(vector, steps)
        turned = Geometry(vector(origin), through, row, column, geometry.slice_thickness)
        return replace(image, values=values, geometry=turned)

    def __str__(self) -> str:
        """Return the turn in words."""
        reversed_ = [name for name in ("slices", "rows", "columns") if getattr(self, name)]
        words = ["rows and columns exchanged"] if self.exchanged else []
        words += [f"{' and '.join(reversed_)} reversed"] if reversed_ else []
        return ", ".join(words) or "as they are stored"


def borrow_geometry(volume: RawVolume, image: PlacedImage, *, axes: Axes = "found") -> Geometry:
    """Return where the voxels of a scan's image are, taken from an image of the same exam in the same place.

    The image needs as many slices and the same field of view; its matrix may be finer or coarser. A scan without a
    header has no field of view: its matrix then has to be that of the image, up to one factor. How its rows, columns
    and slices lie in the image no file says, and a wrong guess exchanges left and right: of the turns that the field of
    view allows, the one is taken in which the image looks like the scan, by the correlation of both between 3 and 12
    cycles in a field of view.

    Voxel 0 of the scan lies on voxel 0 of the turned image: both are Fourier transforms of the same samples.

    Args:
        volume: the scan; of its k-space the centre is looked at.
        image: from `read_placed_image`.
        axes: "found", or "stored": rows, columns and slices of the image's file are those of the scan. For images of
            another contrast, and symmetric objects.

    Raises:
        ValueError: an image that does not fit, or whose turn cannot be told.
    """
    if axes not in AXES:
        raise ValueError(f"borrow_geometry: axes {axes!r}, expected one of {', '.join(AXES)}")
    turns = [_Turn()] if axes == "stored" else _all_turns(image)
    misfits = {turn: _misfit(volume, turn(image)) for turn in turns}
    fitting = [turn for turn, misfit in misfits.items() if misfit is None]
    if not fitting:
        raise ValueError(f"borrow_geometry: {misfits[turns[0]]}")
    turn = fitting[0] if axes == "stored" else _best(volume, image, fitting)
    source = turn(image)
    geometry, shape = source.geometry, source.values.shape
    rows, columns = (size / recon for size, recon in zip(shape[1:], volume.recon_shape, strict=True))
    return replace(
        geometry,
        row_step=vector(rows * np.array(geometry.row_step)),
        column_step=vector(columns * np.array(geometry.column_step)),
        borrowed_from=f"{image.name}; axes {turn}",
    )


def _all_turns(image: PlacedImage) -> list[_Turn]:
    several = (False, True) if len(image.values) > 1 else (False,)
    return [_Turn(a, b, c, d) for a, b, c, d in product((False, True), several, (False, True), (False, True))]


def _misfit(volume: RawVolume, image: PlacedImage) -> str | None:
    """Return what keeps an image from being in the place of the scan, as far as sizes tell; None for nothing."""
    slices, (rows, cols) = len(volume.kspace), volume.recon_shape
    count, height, width = image.values.shape
    through, row_mm, column_mm = image.geometry.voxel_size
    if count != slices:
        return f"the image has {count} slices, expected {slices}, as many as the scan"
    if volume.voxel_size is None:
        if abs(height * cols / (width * rows) - 1) > FIELD_TOLERANCE:
            return f"the image is {height} x {width}, expected the scan's {rows} x {cols} up to one factor"
        return None
    of_scan = rows * volume.voxel_size[0], cols * volume.voxel_size[1]
    of_image = height * row_mm, width * column_mm
    if any(abs(a / b - 1) > FIELD_TOLERANCE for a, b in zip(of_image, of_scan, strict=True)):
        return (
            f"the image's field of view is {of_image[0]:.4g} x {of_image[1]:.4g} mm, expected that of the"
            f" scan, {of_scan[0]:.4g} x {of_scan[1]:.4g} mm (rows, columns), in one order or the other"
        )
    low, high = (share * volume.voxel_size[2] for share in STEP_RANGE)
    if not low <= through <= high:
        return f"the image's slices are {through:.4g} mm apart, expected {low:.4g} to {high:.4g} mm, as in the scan"
    return None


def _best(volume: RawVolume, image: PlacedImage, turns: list[_Turn]) -> _Turn:
    """Return the turn in which the image looks like the scan. Raises ValueError where none does, or several do."""
    if volume.trajectory is not None:
        raise ValueError(
            "borrow_geometry: samples on a trajectory, which are not compared with an image, expected samples on the"
            " grid, or that the axes of image and scan are the same (--geometry-axes stored)"
        )
    picture = _picture(volume)
    ranked = sorted(((_agreement(picture, turn(image).values), turn) for turn in turns), key=lambda pair: -pair[0])
    best, turn = ranked[0]
    advice = (
        "expected the image of this very scan; for another contrast, say that the axes of image and scan are the same"
        " (--geometry-axes stored), if they are"
    )
    if best < LEAST_AGREEMENT:
        raise ValueError(
            f"borrow_geometry: the image does not look like the scan (correlation {best:.2f} at best, at least"
            f" {LEAST_AGREEMENT}), {advice}"
        )
    if len(ranked) > 1 and best - ranked[1][0] < LEAST_MARGIN:
        raise ValueError(
            f"borrow_geometry: the image looks as much like the scan with axes {turn} as with axes {ranked[1][1]}"
            f" (correlations {best:.3f} and {ranked[1][0]:.3f}), {advice}"
        )
    return turn


def _picture(volume: RawVolume) -> np.ndarray:
    """Return the root sum of squares of the centre of k-space (slices, *recon_shape)."""
    full, cropped = volume.kspace.shape[-2:], volume.recon_shape
    weights = [
        np.exp(-((np.arange(n) - n // 2) ** 2) / (2 * (BAND[1] * n / m) ** 2))
        for n, m in zip(full, cropped, strict=True)
    ]
    window = torch.from_numpy((weights[0][:, None] * weights[1]).astype(np.float32))
    pictures = []
    for one in volume.kspace:  # a slice at a time: so does the memory stay small
        images = centred_ifft(torch.from_numpy(np.ascontiguousarray(one)) * window, (-2, -1))
        pictures.append(center_crop(coil_norm(images, 0).numpy(), cropped))
    return np.stack(pictures)


def _agreement(one: np.ndarray, other: np.ndarray) -> float:
    """Return the correlation of two pictures (slices, rows, cols) on one coarse grid, between the frequencies of BAND.

    The grids of the pictures may differ.
    """
    grid = [min(GRID, *sizes) for sizes in zip(one.shape[1:], other.shape[1:], strict=True)]
    cycles = [np.fft.fftfreq(size) * size for size in grid]
    squared = cycles[0][:, None] ** 2 + cycles[1] ** 2
    low, high = BAND
    weights = np.exp(-squared / (2 * high**2)) - np.exp(-squared / (2 * low**2))
    first, second = (weights * np.fft.fft2(_coarse(picture, grid)) for picture in (one, other))
    lengths = float(np.linalg.norm(first) * np.linalg.norm(second))
    return float(np.vdot(first, second).real) / lengths if lengths > 0 else 0.0


def _coarse(values: np.ndarray, grid: list[int]) -> np.ndarray:
    """Return means over blocks of pixels: (slices, rows, cols) -> (slices, *grid)."""
    for axis, count in zip((1, 2), grid, strict=True):
        size = values.shape[axis]
        starts = np.arange(count) * size // count
        sums = np.add.reduceat(values.astype(np.float64), starts, axis=axis)
        values = sums / np.expand_dims(np.diff([*starts, size]), [k for k in range(3) if k != axis])
    return values

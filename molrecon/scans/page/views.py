"""What can be looked at on the page of a volume: its images, each kind encoded so that all of them fit the page."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import final

import numpy as np
import torch

from molrecon.io import center_crop
from molrecon.io.large_arrays import planes
from molrecon.reconstructors.classical import ZeroFilled
from molrecon.scans.page.pictures import View, grey_view, halved, mosaic, white_level
from molrecon.scans.preparation import PreparedVolume
from molrecon.scans.reconstruction import Reconstruction

DIFFERENCE_GAIN = 5
SMALLEST = 64  # pixels across of an image whose resolution is still halved
MAPS_WIDTH = 320  # pixels of all maps side by side
# Bytes of all views, a pixel of the image: 20 slices of 320 x 320 stay below 2 MB as text. Every grey value of the
# image is kept where that fits into its share; the other views divide the rest. Small volumes may take more a pixel.
ALL_BYTES, SMALL_BYTES, IMAGE_SHARE = 0.69, 400_000, 0.65


def make_views(prepared: PreparedVolume, result: Reconstruction) -> list[View]:
    """Return what can be looked at: image, zero-filled, their difference, coil maps; and what else there may be.

    That is a reference and the error against it, and the last residual.
    """
    image = result.image
    white = white_level(image)
    zero_filled = _zero_filled(prepared)
    reference, kind = prepared.volume.reference, prepared.volume.reference_kind or "given"
    maps = prepared.sensitivity_maps
    grid = np.concatenate([_mosaic(one, prepared.volume.recon_shape) for one in planes(maps.numpy())])
    sides = [
        Side("zero-filled", "Zero-filled", "the measured samples alone", zero_filled, 0, white, "intensity"),
        _difference(
            "difference", "Difference", "image minus zero-filled, middle grey is none", image - zero_filled, white
        ),
    ]
    if reference is not None and reference.shape == image.shape:
        sides += [
            Side("reference", "Reference", f"fully sampled, {kind}", reference, 0, white, "intensity"),
            _difference("error", "Error", "image minus reference, middle grey is none", image - reference, white),
        ]
    if (left := result.last_residual) is not None and left.shape == image.shape:
        sides.append(_last_residual(left, white))
    note = f"magnitude of {maps.shape[1] * maps.shape[2]} sensitivity maps, {prepared.maps_source.method}"
    sides.append(Side("maps", "Coil maps", note, grid, 0, float(grid.max()) or 1.0, "maps", ""))
    note = f"magnitude by {result.method}"
    room = max(ALL_BYTES * image.size, SMALL_BYTES)
    limit = IMAGE_SHARE * room / image.size
    first = grey_view("image", "Image", note, image, 0, white, group="intensity", exact=True, bytes_per_pixel=limit)
    share = (room - first.size) / sum(side.images.size for side in sides)
    return [first, *(side.encoded(share) for side in sides)]


def _mosaic(maps: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Return the magnitudes of the maps (set, coil, rows, cols) of a slice side by side, (1, rows, cols)."""
    magnitudes = np.abs(maps).reshape(1, -1, *maps.shape[-2:])
    return mosaic(center_crop(magnitudes, shape), MAPS_WIDTH)


@final
@dataclass(frozen=True, eq=False)
class Side:
    """A view beside the image before it is encoded, see `View`."""

    key: str
    title: str
    note: str
    images: np.ndarray
    low: float
    high: float
    group: str
    unit: str = "units of the input"
    window: tuple[int, int] = (0, 255)

    def encoded(self, bytes_per_pixel: float, thinned: int = 1) -> View:
        """Return the view, in coarser pixels where it takes too much otherwise, as images of noise do."""
        note = self.note if thinned == 1 else f"{self.note}, {thinned} x {thinned} pixels in one"
        view = grey_view(
            self.key,
            self.title,
            note,
            self.images,
            self.low,
            self.high,
            bytes_per_pixel=bytes_per_pixel,
            group=self.group,
            unit=self.unit,
            window=self.window,
        )
        if view.size <= 1.2 * bytes_per_pixel * self.images.size or min(self.images.shape[1:]) < SMALLEST:
            return view
        return replace(self, images=halved(self.images)).encoded(4 * bytes_per_pixel, 2 * thinned)


def _difference(key: str, title: str, note: str, difference: np.ndarray, white: float) -> Side:
    """Return a view in which middle grey is no difference; at first it is shown DIFFERENCE_GAIN times brighter."""
    largest = max(white_level(np.abs(difference)), white / 2)
    shown = round(127.5 * min(1.0, white / DIFFERENCE_GAIN / largest))
    note += f", at first {DIFFERENCE_GAIN} times as bright as the image"
    return Side(key, title, note, difference, -largest, largest, key, window=(128 - shown, 127 + shown))


def _last_residual(left: np.ndarray, white: float) -> Side:
    largest = white_level(left)
    note = (
        "magnitude of what is left of the method's equation, no map of the error; white is"
        f" {largest / white:.1e} of the image's white"
    )
    return Side("last-residual", "Last residual", note, left, 0, largest, "last-residual")


def _zero_filled(prepared: PreparedVolume) -> np.ndarray:
    """Return the zero-filled images (slices, *recon_shape), one slice at a time."""
    with torch.no_grad():
        return np.concatenate(
            [
                prepared.magnitude(ZeroFilled()(prepared.kspace[[k]], prepared.operator([k])).value, [k])
                if not prepared.empty[k]
                else np.zeros((1, *prepared.volume.recon_shape), np.float32)
                for k in range(len(prepared.kspace))
            ]
        )

"""Images of a page: 8-bit greys as WebP or PNG, written out as data URIs."""

from __future__ import annotations

import base64
import io
import math
from dataclasses import dataclass
from typing import Any, final

import numpy as np

WHITE_QUANTILE = 0.9995  # of a volume: brighter pixels, such as a few vessels, are shown as white
QUALITIES = (90, 75, 55, 35, 15)  # of WebP, where images may not be kept exactly, or take too much then
JUDGED_SLICES = 2  # of a volume, about: so many tell how large the others become


@final
@dataclass(frozen=True, eq=False)
class View:
    """What can be looked at in every slice.

    Attributes:
        key: one word.
        title: for the button. note: a sentence on what it shows.
        images: a data URI a slice.
        low, high: what grey 0 and grey 255 stand for.
        unit: of these.
        group: views of one group share their window.
        coding: "lossless", or "WebP, quality 75".
        window: the greys that are shown as black and white at first.
    """

    key: str
    title: str
    note: str
    images: list[str]
    low: float
    high: float
    unit: str
    group: str
    coding: str
    window: tuple[int, int] = (0, 255)

    @property
    def size(self) -> float:
        """The bytes of all images, about: four characters of a data URI hold three."""
        return 0.75 * sum(map(len, self.images))

    def as_data(self) -> dict[str, Any]:
        """Return what the page's script needs."""
        return dict(self.__dict__)


def white_level(images: np.ndarray) -> float:
    """Return the intensity that is shown as white: nearly the brightest one, and 1 for images that are zero."""
    return float(np.quantile(images, WHITE_QUANTILE)) or float(images.max()) or 1.0


def to_grey(images: np.ndarray, low: float, high: float) -> np.ndarray:
    """Return `round(255 (x - low) / (high - low))`, clipped to 0..255, as uint8 of the same shape."""
    scaled = (images.astype(np.float64) - low) * (255 / (high - low))
    return np.rint(np.clip(scaled, 0, 255)).astype(np.uint8)


def grey_view(
    key: str,
    title: str,
    note: str,
    images: np.ndarray,
    low: float,
    high: float,
    *,
    bytes_per_pixel: float,
    group: str = "",
    unit: str = "units of the input",
    exact: bool = False,
    window: tuple[int, int] = (0, 255),
) -> View:
    """Encode images (slices, rows, cols), all with the best coding whose size fits, or the smallest there is.

    Args:
        key, title, note, low, high, unit, window: as in `View`. group: its key when empty.
        images: real.
        bytes_per_pixel: their size at most, judged by a few slices.
        exact: try to keep every grey value first.
    """
    grey = to_grey(images, low, high)
    judged = grey[:: max(1, len(grey) // JUDGED_SLICES)]
    codings: list[int | None] = [*([None] if exact else []), *QUALITIES]
    for coding in codings:
        if sum(len(_webp(image, coding)) for image in judged) <= bytes_per_pixel * judged.size:
            break
    encoded = [webp_uri(_webp(image, coding)) for image in grey]
    words = "lossless" if coding is None else f"WebP, quality {coding}"
    return View(key, title, note, encoded, low, high, unit, group or key, words, window)


def mosaic(images: np.ndarray, width: int) -> np.ndarray:
    """Put images (slices, n, rows, cols) side by side in a grid, thinned out to at most `width` pixels across.

    Returns (slices, grid rows * tile rows, grid cols * tile cols) float32, zero where the grid has no image.
    """
    slices, n, _, cols = images.shape
    across = math.ceil(math.sqrt(n))
    down = math.ceil(n / across)
    step = max(1, math.ceil(across * cols / width))
    thinned = images[:, :, ::step, ::step]
    grid = np.zeros((slices, down * across, *thinned.shape[2:]), np.float32)
    grid[:, :n] = thinned
    grid = grid.reshape(slices, down, across, *thinned.shape[2:]).swapaxes(2, 3)
    return grid.reshape(slices, down * thinned.shape[2], across * thinned.shape[3])


def halved(images: np.ndarray) -> np.ndarray:
    """Return images (slices, rows, cols) at half the resolution, a pixel the mean of four, without odd edges."""
    slices, rows, cols = images.shape[0], images.shape[1] // 2, images.shape[2] // 2
    return images[:, : 2 * rows, : 2 * cols].reshape(slices, rows, 2, cols, 2).mean((2, 4))


def png_uri(image: np.ndarray) -> str:
    """Return a bool or uint8 image (rows, cols) as a data URI."""
    from PIL import Image  # heavy: only where a page is written

    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "png", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def thumbnail(image: np.ndarray, size: int, aspect: float) -> bytes:
    """Return a magnitude image (rows, cols), its brightest pixels white, as WebP.

    Args:
        image: real.
        size: of the longer side, pixels.
        aspect: height over width, as they are in the patient.
    """
    from PIL import Image  # heavy: only where a page is written

    height, width = min(1.0, aspect) * size, min(1.0, 1 / aspect) * size
    small = Image.fromarray(to_grey(image, 0, white_level(image)))
    return _webp(np.asarray(small.resize((max(1, round(width)), max(1, round(height))), Image.Resampling.BOX)), 75)


def _webp(image: np.ndarray, quality: int | None) -> bytes:
    """Encode a uint8 image, without loss where `quality` is None."""
    from PIL import Image  # heavy: only where a page is written

    buffer = io.BytesIO()
    # Without loss, `quality` is the effort.
    Image.fromarray(image).save(buffer, "webp", lossless=quality is None, quality=quality or 50, method=3)
    return buffer.getvalue()


def webp_uri(encoded: bytes) -> str:
    """Return a WebP image as a data URI."""
    return f"data:image/webp;base64,{base64.b64encode(encoded).decode()}"

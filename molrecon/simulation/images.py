"""Sets of real images, each of its own subjects, and their place in the field of view of a scan, which may be small."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
import torch.nn.functional as nnf
from scipy import ndimage
from torch import Tensor

from operators import centred_fft, centred_ifft

LARGEST = 320  # pixels of the longer side of an object; more detail is cut off in k-space
SMALLEST = 64
SHOWN = 0.1  # of the brightest column: where the object begins
NARROW_VIEWS, NARROWEST = (0.5, 0.9), 48  # widths of views that are too small, in object widths; columns at least


@final
@dataclass(frozen=True)
class ImageSet:
    """Images of some subjects.

    Attributes:
        name: what they are.
        stored: arrays (rows, cols) of a magnitude, or (2, rows, cols) of real and imaginary part, of any real dtype;
            a sequence, or one array with a first axis more.
        weight: how often they are drawn, relative to other sets.
        kept: central share of k-space along rows and columns; the rest was made up by the scanner.
    """

    name: str
    stored: Sequence[np.ndarray] | np.ndarray
    weight: float = 1.0
    kept: tuple[float, float] = (1.0, 1.0)

    def __len__(self) -> int:
        return len(self.stored)

    def image(self, number: int) -> np.ndarray:
        """Return an image (rows, cols) of maximum 1: complex64 with its own phase, or a float32 magnitude."""
        stored = np.asarray(self.stored[number], np.float32)
        image = stored if stored.ndim == 2 else stored[0] + 1j * stored[1]
        if self.kept != (1.0, 1.0):
            image = resampled(image, [round(n * k) for n, k in zip(image.shape, self.kept, strict=True)])
        return image / max(float(np.abs(image).max()), 1e-9)


def resampled(image: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Return an image (rows, cols) on another grid of the same field of view, as a scan of that matrix shows it.

    Its k-space is cut off or filled with zeros. A real image is taken for a magnitude, and one is returned.
    """
    spectrum = centred_fft(torch.from_numpy(image.astype(np.complex64)), (0, 1)).numpy()
    cut = np.zeros(tuple(shape), np.complex64)
    source, target = [], []
    for n, m in zip(image.shape, shape, strict=True):
        both = min(n, m)
        source.append(slice(n // 2 - both // 2, n // 2 - both // 2 + both))
        target.append(slice(m // 2 - both // 2, m // 2 - both // 2 + both))
    cut[tuple(target)] = spectrum[tuple(source)]
    new = centred_ifft(torch.from_numpy(cut), (0, 1)).numpy() * math.sqrt(cut.size / image.size)
    return np.asarray(new, np.complex64) if np.iscomplexobj(image) else np.abs(new).astype(np.float32)


def placed(image: np.ndarray, rng: np.random.Generator, largest: int = LARGEST) -> np.ndarray:
    """Return an image somewhere in a new field of view: turned, mirrored, at another resolution, cut by the border.

    Six in ten keep their pixels, the others lose up to half of their matrix as a scan of lower resolution does; above
    `largest` pixels all do. Magnitudes, whose phase comes later, are rotated by some degrees one time in four. The view
    is 0.8 to 1.4 times as large as the object along each axis.

    Args:
        image: (rows, cols), complex or a real magnitude.
        rng: source of all randomness.
        largest: pixels of the view's longer side at most.
    """
    if rng.random() < 0.5:
        image = image.T
    for axis in (0, 1):
        if rng.random() < 0.5:
            image = np.flip(image, axis)
    longest, shortest = max(image.shape), min(image.shape)
    share = min(1.0 if rng.random() < 0.6 else rng.uniform(0.5, 1.0), largest / longest)
    share = max(share, min(1.0, SMALLEST / shortest))
    if share < 1:
        image = resampled(image, [round(n * share) for n in image.shape])
    if not np.iscomplexobj(image) and rng.random() < 0.25:
        image = ndimage.rotate(image, float(rng.normal(0, 8)), reshape=False, order=3).clip(0)
    view = [_even(n * rng.uniform(0.8, 1.4)) for n in image.shape]
    view = [max(SMALLEST, min(n, largest)) for n in view]
    canvas = np.zeros(tuple(view), image.dtype)
    source, target = [], []
    for n, m in zip(image.shape, view, strict=True):
        # The object is moved by up to a quarter of the room there is, or, where it is cut, by what is cut off.
        first = round((m - n) / 2 + rng.uniform(-0.4, 0.4) * abs(m - n))
        start = max(first, 0)
        stop = min(first + n, m)
        target.append(slice(start, stop))
        source.append(slice(start - first, stop - first))
    canvas[tuple(target)] = image[tuple(source)]
    return canvas


def object_width(coil_images: Tensor) -> int:
    """Return how many columns coil images (coil, rows, cols) span, from the first to the last that shows something."""
    energy = coil_images.abs().square().sum((0, 1))
    shown = torch.nonzero(energy >= SHOWN**2 * energy.max()).flatten()
    return int(shown[-1] - shown[0]) + 1


def draw_narrow_view(coil_images: Tensor, rng: np.random.Generator) -> int:
    """Return an even number of columns for a view that is too small: 48 at least, all at most.

    In half of the draws it is half of the columns, that is, every second phase encode is taken for all of them; in the
    others, and where that would hold the object, 0.5 to 0.9 of the object's width.
    """
    cols, across = coil_images.shape[-1], object_width(coil_images)
    halved, share = rng.random() < 0.5, rng.uniform(*NARROW_VIEWS)
    view = cols / 2 if halved and across > cols / 2 else share * across
    return min(cols, max(NARROWEST, _even(view)))


def wrap(images: Tensor, cols: int) -> Tensor:
    """Return what a view of `cols` columns shows of images (..., columns): column c + k cols is added to column c.

    The middle, index n // 2, stays the middle. With `cols` half of the columns that is every second sample of k-space.
    """
    before = images.shape[-1]
    periods = -(-before // cols) + 1  # one more, as the middles need not lie equally far from the borders
    periods += 1 - periods % 2
    start = periods // 2 * cols + cols // 2 - before // 2
    wide = nnf.pad(images, (start, periods * cols - before - start))
    return wide.unflatten(-1, (periods, cols)).sum(-2)


def _even(size: float) -> int:
    return 2 * round(size / 2)

"""Sets of real images, each of its own subjects, and their place in the field of view of a simulated scan."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from scipy import ndimage

from operators import centred_fft, centred_ifft

LARGEST = 320  # pixels of the longer side of an object; more detail is cut off in k-space
SMALLEST = 64


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


def placed(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return an image somewhere in a new field of view: turned, mirrored, at another resolution, cut by the border.

    Six in ten keep their pixels, the others lose up to half of their matrix as a scan of lower resolution does; above
    320 pixels all do. Magnitudes, whose phase comes later, are rotated by some degrees one time in four. The view is
    0.8 to 1.4 times as large as the object along each axis.

    Args:
        image: (rows, cols), complex or a real magnitude.
        rng: source of all randomness.
    """
    if rng.random() < 0.5:
        image = image.T
    for axis in (0, 1):
        if rng.random() < 0.5:
            image = np.flip(image, axis)
    longest, shortest = max(image.shape), min(image.shape)
    share = min(1.0 if rng.random() < 0.6 else rng.uniform(0.5, 1.0), LARGEST / longest)
    share = max(share, min(1.0, SMALLEST / shortest))
    if share < 1:
        image = resampled(image, [round(n * share) for n in image.shape])
    if not np.iscomplexobj(image) and rng.random() < 0.25:
        image = ndimage.rotate(image, float(rng.normal(0, 8)), reshape=False, order=3).clip(0)
    view = [_even(n * rng.uniform(0.8, 1.4)) for n in image.shape]
    view = [max(SMALLEST, min(n, LARGEST)) for n in view]
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


def _even(size: float) -> int:
    return 2 * round(size / 2)

"""Thermal noise: its draws, its level in an image, and the range of levels of simulated scans."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

NOISE_RANGE = (5e-4, 5e-2)  # standard deviation of the complex noise of a coil, relative to the image maximum


def complex_noise(shape: tuple[int, ...] | torch.Size, rng: np.random.Generator) -> Tensor:
    """Return complex64 white noise of unit variance, half of it in each part."""
    pair = rng.standard_normal((*shape, 2), dtype=np.float32) * np.float32(np.sqrt(0.5))
    return torch.view_as_complex(torch.from_numpy(pair))


def draw_noise_level(rng: np.random.Generator, limits: tuple[float, float] = NOISE_RANGE) -> float:
    """Return a level within the limits, uniform in its logarithm."""
    return float(np.exp(rng.uniform(*np.log(limits))))


def image_noise_level(image: np.ndarray) -> float:
    """Return the level of white noise in the darkest quarter of an image (rows, cols), in its units.

    The median modulus of the diagonal Haar details `(x00 - x01 - x10 + x11) / 2` where they are not zero and the four
    pixels are darkest, over `sqrt(ln 2)`: complex white noise of variance sigma^2 has that median. Real images hold
    noise in one part only; theirs is over the median 0.6745 of a normal variable. Images that are zero or constant
    have level 0. Texture counts as noise, so this is rather too high.

    Source: Donoho, Johnstone, Biometrika 81, 1994 (the median of the finest details).
    """
    rows, cols = (n - n % 2 for n in image.shape)
    corners = [image[i:rows:2, j:cols:2] for i in (0, 1) for j in (0, 1)]
    detail = np.abs(corners[0] - corners[1] - corners[2] + corners[3]) / 2
    brightness = np.abs(sum(corners))[detail > 0]  # its noise is independent of the detail's
    detail = detail[detail > 0]
    if not detail.size:
        return 0.0
    detail = detail[brightness <= np.quantile(brightness, 0.25)]
    return float(np.median(detail)) / (math.sqrt(math.log(2)) if np.iscomplexobj(image) else 0.6745)

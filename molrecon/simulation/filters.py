"""Filters that scanners lay over k-space: they smooth image and noise alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from torch import Tensor

from operators import centred_fft, centred_ifft

FILTERED = 0.12  # share of the scans


@final
@dataclass(frozen=True)
class KSpaceFilter:
    """A window over k-space, 1 in its middle: `floor + (1 - floor) w(rho)`.

    w falls from 1 at `start` to 0 at `stop` as a raised cosine; rho is the distance from the centre, relative to the
    edge of k-space along each axis: that of a disc, or the larger of both axes for a box.

    Attributes:
        start, stop: where the fall begins and ends; the corners of k-space are at 1.41 of a disc.
        floor: what is left beyond.
        disc: radial, or along each axis by itself.
    """

    start: float
    stop: float
    floor: float
    disc: bool

    def window(self, shape: tuple[int, int]) -> Tensor:
        """Return the window (rows, cols) float32."""
        y, x = (((torch.arange(n) - n // 2) / (n / 2)).abs() for n in shape)
        distance = torch.hypot(y[:, None], x) if self.disc else torch.maximum(y[:, None].expand(shape), x)
        fall = ((distance - self.start) / (self.stop - self.start)).clamp(0, 1)
        return self.floor + (1 - self.floor) * torch.cos(fall * (torch.pi / 2)).square()

    def __call__(self, images: Tensor) -> Tensor:
        """Return images (..., rows, cols) complex as k-space filtered by the window shows them."""
        spectrum = centred_fft(images, (-2, -1))
        return centred_ifft(spectrum * self.window((images.shape[-2], images.shape[-1])), (-2, -1))


def draw_filter(rng: np.random.Generator) -> KSpaceFilter | None:
    """Return the filter of a scan, which lets through 0.02 to 0.5 at the edge of k-space; None for most scans.

    Args:
        rng: source of all randomness.
    """
    if rng.random() >= FILTERED:
        return None
    start = rng.uniform(0, 0.8)
    floor = float(np.exp(rng.uniform(np.log(0.02), np.log(0.5))))
    return KSpaceFilter(start, start + rng.uniform(0.2, 0.6), floor, bool(rng.random() < 0.6))

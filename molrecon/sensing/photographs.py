"""Compressed sensing of one photograph: measure it by simulation, reconstruct it, compare."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
import torch

from molrecon.scans.metrics import SSIM_WINDOW, psnr, ssim
from molrecon.sensing.imager import BlockImager


@final
@dataclass(frozen=True, eq=False)
class Photograph:
    """A reconstructed photograph, and how far it is from the original.

    Attributes:
        image: of the shape of the original, uint8.
        psnr: in dB, data range 255, before rounding to 8 bits; of colour images over the three channels together.
        ssim: 7 x 7 window, mean over the channels.
        measurements: numbers measured, all channels and blocks.
    """

    image: np.ndarray
    psnr: float
    ssim: float
    measurements: int


@torch.no_grad()
def sense_photograph(image: np.ndarray, imager: BlockImager) -> Photograph:
    """Return what an imager makes of its measurements of a photograph, every colour channel measured apart.

    Args:
        image: (rows, cols) or (rows, cols, 3) uint8.
        imager: in evaluation mode, on any device.

    Raises:
        ValueError: another shape, or fewer than 7 rows or columns.
        TypeError: another dtype.
    """
    if image.dtype != np.uint8:
        raise TypeError(f"sense_photograph: image of dtype {image.dtype}, expected uint8")
    if image.ndim not in (2, 3) or image.shape[2:] not in ((), (3,)) or min(image.shape[:2]) < SSIM_WINDOW:
        raise ValueError(
            f"sense_photograph: image {image.shape}, expected (rows, cols) or (rows, cols, 3) with at least"
            f" {SSIM_WINDOW} rows and columns"
        )
    channels = image[None] if image.ndim == 2 else np.moveaxis(image, -1, 0)
    x = torch.from_numpy(np.ascontiguousarray(channels)).to(imager.phi) / 255
    measurements = imager.measure(x)
    restored = imager(measurements, (image.shape[0], image.shape[1])).double().cpu().numpy() * 255
    rounded = np.rint(restored).astype(np.uint8)
    return Photograph(
        image=rounded[0] if image.ndim == 2 else np.moveaxis(rounded, 0, -1),
        psnr=psnr(channels, restored, 255),
        ssim=ssim(channels, restored, 255),
        measurements=measurements.numel(),
    )

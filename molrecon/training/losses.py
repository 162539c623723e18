"""Losses of training: (image, reference) -> scalar, of complex images (batch, *spatial) whose intensity is near 1.

A `magnitude_` loss does not see the phase, as the metrics of magnitude images do not; the others see it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as nnf
from torch import Tensor

from molrecon.scans.metrics import SSIM_WINDOW
from molrecon.solvers.batched import per_sample

Loss = Callable[[Tensor, Tensor], Tensor]


def log_mse(image: Tensor, reference: Tensor) -> Tensor:
    """Return the batch mean of `log(|x - x_ref|^2 + ||x| - |x_ref||^2)`, both per pixel: PSNR up to constants."""
    error = (image - reference).abs().square().flatten(1).mean(1)
    magnitude = (image.abs() - reference.abs()).square().flatten(1).mean(1)
    return (error + magnitude + 1e-8).log().mean()


def mse(image: Tensor, reference: Tensor) -> Tensor:
    """Return the mean of `|x - x_ref|^2`."""
    return (image - reference).abs().square().mean()


def magnitude_mse(image: Tensor, reference: Tensor) -> Tensor:
    """Return the mean of `(|x| - |x_ref|)^2`."""
    return (image.abs() - reference.abs()).square().mean()


def l1(image: Tensor, reference: Tensor) -> Tensor:
    """Return the mean of `|x - x_ref|`, moduli of complex numbers."""
    return (image - reference).abs().mean()


def magnitude_l1(image: Tensor, reference: Tensor) -> Tensor:
    """Return the mean of `||x| - |x_ref||`."""
    return (image.abs() - reference.abs()).abs().mean()


def ssim_loss(image: Tensor, reference: Tensor) -> Tensor:
    """Return 1 - SSIM of the magnitudes, averaged over slices and batch.

    As `molrecon.scans.metrics` has it: uniform 7x7 window, sample covariance, K1 = 0.01, K2 = 0.03, mean over the
    positions where the window fits, data range the maximum of each sample's reference. A slice is the last two axes.

    Computed in double precision: the variances are differences of nearly equal numbers in flat tissue.

    Raises:
        ValueError: slices smaller than the window.

    Source: Wang, Bovik, Sheikh, Simoncelli, IEEE TIP 13, 2004, equation 13.
    """
    rows, cols = image.shape[-2:]
    if image.ndim < 3 or min(rows, cols) < SSIM_WINDOW:
        raise ValueError(
            f"ssim_loss: image {tuple(image.shape)}, expected (batch, *spatial) with slices of at least"
            f" {SSIM_WINDOW} x {SSIM_WINDOW}"
        )
    x, y = (magnitude.abs().double() for magnitude in (image, reference))
    peak = y.flatten(1).amax(1)
    peak = per_sample(torch.where(peak > 0, peak, torch.ones_like(peak)), y)
    x, y = ((magnitude / peak).reshape(-1, 1, rows, cols) for magnitude in (x, y))

    def mean(values: Tensor) -> Tensor:
        return nnf.avg_pool2d(values, SSIM_WINDOW, stride=1)

    samples = SSIM_WINDOW**2
    unbiased = samples / (samples - 1)
    mean_x, mean_y = mean(x), mean(y)
    variance_x = unbiased * (mean(x * x) - mean_x.square())
    variance_y = unbiased * (mean(y * y) - mean_y.square())
    covariance = unbiased * (mean(x * y) - mean_x * mean_y)
    luminance = (2 * mean_x * mean_y + 0.01**2) / (mean_x.square() + mean_y.square() + 0.01**2)
    structure = (2 * covariance + 0.03**2) / (variance_x + variance_y + 0.03**2)
    return (1 - (luminance * structure).mean()).to(image.real.dtype)


def ssim_l1(image: Tensor, reference: Tensor) -> Tensor:
    """Return `ssim_loss + l1`: structure by the one, intensity and phase by the other.

    Source of the mix: Zhao, Gallo, Frosio, Kautz, IEEE TCI 3, 2017.
    """
    return ssim_loss(image, reference) + l1(image, reference)


LOSSES: dict[str, Loss] = {
    "log-mse": log_mse,
    "mse": mse,
    "magnitude-mse": magnitude_mse,
    "l1": l1,
    "magnitude-l1": magnitude_l1,
    "ssim": ssim_loss,
    "ssim-l1": ssim_l1,
}

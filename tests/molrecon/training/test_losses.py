"""Losses: known values, the metric's SSIM, and gradients that stay finite."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from molrecon.scans.metrics import ssim
from molrecon.training.losses import (
    LOSSES,
    Loss,
    l1,
    log_mse,
    magnitude_l1,
    magnitude_mse,
    mse,
    ssim_loss,
)


def images(batch: int = 2, scale: float = 1.0) -> tuple[Tensor, Tensor]:
    """Return an image and its reference (batch, 24, 20) complex64, boxes in an empty field, the former noisy."""
    generator = torch.Generator().manual_seed(0)
    boxes = np.zeros((batch, 24, 20), np.complex64)
    boxes[:, 4:20, 3:16] = 0.8j
    boxes[:, 8:12, 6:9] = -0.3 + 0.2j
    reference = torch.from_numpy(boxes)
    noise = torch.randn(batch, 24, 20, dtype=torch.complex64, generator=generator)
    return scale * (reference + 0.05 * noise * (reference != 0)), scale * reference


def test_log_mse() -> None:
    reference = torch.tensor([[[1.0 + 0j, 2.0]], [[0.0, 3j]]])
    image = torch.tensor([[[1.5 + 0j, 2.0]], [[0.0, -3j]]])
    # First sample: complex and magnitude error 0.25 / 2 each; second: 36 / 2, and none of magnitude.
    expected = (math.log(0.25 + 1e-8) + math.log(18 + 1e-8)) / 2
    assert float(log_mse(image, reference)) == pytest.approx(expected, rel=1e-6)
    assert float(log_mse(reference, reference)) == pytest.approx(math.log(1e-8), rel=1e-6)


def test_means_of_errors() -> None:
    reference = torch.tensor([[[3.0 + 4j, 0.0]]])
    image = torch.tensor([[[-3.0 - 4j, 2j]]])
    expected = {mse: (100 + 4) / 2, magnitude_mse: 4 / 2, l1: (10 + 2) / 2, magnitude_l1: 2 / 2}
    for loss, value in expected.items():
        assert float(loss(image, reference)) == pytest.approx(value, rel=1e-6)


@pytest.mark.parametrize("scale", [1.0, 1e-4, 300.0])
def test_ssim_is_the_metric(scale: float) -> None:
    image, reference = images(2, scale)
    reference[1] *= 0.5  # another data range
    magnitudes = [np.abs(x.numpy()) for x in (reference, image)]
    scores = [ssim(magnitudes[0][[i]], magnitudes[1][[i]]) for i in range(2)]
    assert float(ssim_loss(image[:1], reference[:1])) == pytest.approx(1 - scores[0], abs=1e-5)
    assert float(ssim_loss(image, reference)) == pytest.approx(1 - np.mean(scores), abs=1e-5)
    # A volume is scored slice by slice with one data range.
    whole = ssim(magnitudes[0], magnitudes[1])
    assert float(ssim_loss(image[None], reference[None])) == pytest.approx(1 - whole, abs=1e-5)
    with pytest.raises(ValueError, match="at least 7 x 7"):
        ssim_loss(image[:, :6], reference[:, :6])


@pytest.mark.parametrize("name", LOSSES)
def test_gradients(name: str) -> None:
    loss: Loss = LOSSES[name]
    image, reference = images()
    for start in (image, torch.zeros_like(image), reference):
        x = start.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(loss(x, reference), x)
        assert torch.isfinite(torch.view_as_real(gradient)).all()
    x = image.clone().requires_grad_()
    value = loss(x, reference)
    (gradient,) = torch.autograd.grad(value, x)
    step = 1e-3 * gradient / torch.linalg.vector_norm(gradient)
    assert loss(image - step, reference) < value < loss(image + step, reference)
    assert torch.isfinite(loss(image, torch.zeros_like(image)))

"""Fills without training keep the known pixels and solve what they say they solve; scores by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from molrecon.descent.inpainting import biharmonic_fill, inpainting_score, total_variation, tv_fill
from operators import Inpainting


def ramp(rows: int = 16, cols: int = 16) -> Tensor:
    i, j = torch.meshgrid(torch.arange(rows), torch.arange(cols), indexing="ij")
    return 0.1 + 0.02 * i + 0.03 * j


def centre(size: int = 16, start: int = 6, stop: int = 10) -> Inpainting:
    known = torch.ones(1, size, size, dtype=torch.bool)
    known[:, start:stop, start:stop] = False
    return Inpainting(known)


def test_biharmonic_fill_continues_planes() -> None:
    images = torch.stack([ramp(), 1 - ramp()])
    operator = centre()
    torch.testing.assert_close(biharmonic_fill(operator(images), operator), images, atol=1e-3, rtol=0)
    coloured = torch.stack([images, images.flip(0)], 1)
    channels = Inpainting(operator.known[:, None])
    torch.testing.assert_close(biharmonic_fill(channels(coloured), channels), coloured, atol=1e-3, rtol=0)


def test_tv_fill() -> None:
    operator = centre()
    known = operator.known[0]
    stripes = torch.zeros(16, 16)
    stripes[:, 8:] = 1
    images = torch.stack([stripes, torch.full((16, 16), 0.3), ramp()])
    filled = tv_fill(operator(images), operator)
    assert torch.equal(filled[:, known], images[:, known])
    # An edge goes straight on, which a smooth fill cannot; a constant stays.
    torch.testing.assert_close(filled[:2], images[:2], atol=1e-2, rtol=0)
    assert float(filled[2].min()) >= float(images[2].min())
    assert float(filled[2].max()) <= float(images[2].max())
    variation = total_variation(filled)
    for other in (images, biharmonic_fill(operator(images), operator), tv_fill(operator(images), operator, n_steps=3)):
        assert bool((variation <= total_variation(other) * (1 + 2e-3)).all())
    torch.testing.assert_close(total_variation(stripes[None]), torch.tensor([16.0]))


def test_scores() -> None:
    reference = torch.stack([ramp(), ramp().T])
    operator = centre()
    image = reference + 0.1 * (~operator.known)
    found = inpainting_score(reference, image, operator.known)
    assert found.hole_psnr == pytest.approx(20, abs=1e-4)
    assert found.psnr == pytest.approx(20 + 10 * math.log10(256 / 16), abs=1e-4)
    assert 0 < found.hole_ssim < found.ssim < 1
    exact = inpainting_score(reference, reference, operator.known)
    assert (exact.psnr, exact.hole_psnr) == (math.inf, math.inf)
    assert exact.ssim == pytest.approx(1)
    # Out of range is clipped before it is scored.
    beyond = inpainting_score(torch.ones(1, 16, 16), torch.full((1, 16, 16), 1.5), operator.known)
    assert beyond.psnr == math.inf


def test_scores_of_wrong_input() -> None:
    with pytest.raises(ValueError, match="expected equal shapes, and a hole in every image"):
        inpainting_score(torch.ones(1, 16, 16), torch.ones(1, 16, 15), centre().known)
    with pytest.raises(ValueError, match="a hole in every image"):
        inpainting_score(torch.ones(1, 16, 16), torch.ones(1, 16, 16), torch.ones(1, 16, 16, dtype=torch.bool))

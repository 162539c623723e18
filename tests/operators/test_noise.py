"""The noise level estimated from the scan itself, against noise that was put in."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from operators.fourier import centred_fft, centred_ifft
from operators.masks import random_mask
from operators.noise import (
    NoiseEstimates,
    estimate_noise_covariance,
    estimate_noise_level,
    noise_level_estimates,
    smaller_noise_level,
)

DATA = os.environ.get("MOLRECON_DATA")
needs_data = pytest.mark.skipif(DATA is None, reason="MOLRECON_DATA is not set: no real images")
SIGMAS = (0.001, 0.005, 0.03)
SAMPLINGS = ((1, 1.0), (4, 0.08), (8, 0.04))  # acceleration, center fraction


def grid(shape: tuple[int, int]) -> list[Tensor]:
    return list(torch.meshgrid(*(torch.linspace(-1, 1, n, dtype=torch.float64) for n in shape), indexing="ij"))


def phase(shape: tuple[int, int], seed: int) -> Tensor:
    y, x = grid(shape)
    weights = np.random.default_rng(seed).normal(size=(4, 4))
    total = torch.stack([float(weights[i, j]) * y**i * x**j for i in range(4) for j in range(4 - i)]).sum(dim=0)
    return torch.polar(torch.ones_like(total), total)


def coils(count: int, shape: tuple[int, int], seed: int = 2) -> Tensor:
    generator = np.random.default_rng(seed)
    y, x = grid(shape)
    maps = []
    for angle in 2 * math.pi * (np.arange(count) + generator.uniform(-0.2, 0.2, count)) / count:
        v, u = y - 1.25 * math.sin(angle), x - 1.25 * math.cos(angle)
        maps.append(torch.polar(1 / (v**2 + u**2 + 0.15), generator.uniform(-1, 1) * x + torch.atan2(v, u)))
    stacked = torch.stack(maps)
    return stacked / torch.linalg.vector_norm(stacked, dim=0).max()


@cache
def phantom() -> Tensor:
    """Return a head-like image (256, 224) of twenty ellipses with smooth phase, sharp edges included."""
    shape = (256, 224)
    y, x = grid(shape)
    generator = np.random.default_rng(7)
    inside = ((y / 0.85) ** 2 + (x / 0.7) ** 2 < 1).double()
    image = 0.6 * inside + 0.4 * (((y / 0.92) ** 2 + (x / 0.77) ** 2 < 1).double() - inside)
    for _ in range(20):
        cy, cx, a, b = generator.uniform((-0.5, -0.4, 0.03, 0.03), (0.5, 0.4, 0.3, 0.3))
        ellipse = ((y - cy) / a) ** 2 + ((x - cx) / b) ** 2 < 1
        image = image + ellipse * inside * generator.uniform(-0.3, 0.3)
    image = image.clamp_min(0)
    return image / image.max() * phase(shape, 3)


@cache
def t1_slice() -> Tensor:
    nibabel = pytest.importorskip("nibabel", reason="nibabel is not installed")
    assert DATA is not None
    volume = nibabel.load(Path(DATA) / "mri" / "brain_t1_3d_188x256x190.nii.gz").dataobj
    image = torch.from_numpy(np.asarray(volume[:, :, 95], dtype=np.float64))
    return image / image.max() * phase((image.shape[0], image.shape[1]), 4)


@cache
def siat_slice() -> Tensor:
    assert DATA is not None
    with np.load(Path(DATA) / "mri" / "siat200_256_reim_i16.npz") as archive:
        real, imaginary = archive[archive.files[0]][90].astype(np.float64) / 32767
    image = torch.complex(torch.from_numpy(real), torch.from_numpy(imaginary))
    return image / image.abs().max()


def scan(image: Tensor, sigma: float, acceleration: float, fraction: float, n_coils: int = 8) -> tuple[Tensor, Tensor]:
    """Return noisy k-space (1, coil, rows, cols) complex64 with sigma in units of the image maximum, and its mask."""
    kspace = centred_fft(coils(n_coils, (image.shape[0], image.shape[1])) * image, (-2, -1))
    noise = torch.randn(kspace.shape, dtype=kspace.dtype, generator=torch.Generator().manual_seed(5))
    mask = torch.from_numpy(random_mask(image.shape[1], acceleration, fraction, 5))
    kspace = torch.where(mask, kspace + sigma * noise, torch.zeros((), dtype=kspace.dtype))
    return kspace[None].to(torch.complex64), mask[None, None]


@pytest.mark.parametrize(("acceleration", "fraction"), SAMPLINGS)
@pytest.mark.parametrize("sigma", SIGMAS)
@pytest.mark.parametrize(
    "image", [phantom, pytest.param(t1_slice, marks=needs_data), pytest.param(siat_slice, marks=needs_data)]
)
def test_known_noise_is_found(image: Callable[[], Tensor], sigma: float, acceleration: float, fraction: float) -> None:
    kspace, mask = scan(image(), sigma, acceleration, fraction)
    level = estimate_noise_level(kspace, mask)
    assert level.shape == (1,) and level.dtype == torch.float32
    assert abs(float(level) / sigma - 1) < 0.05


@pytest.mark.parametrize("n_coils", [2, 4, 15])
def test_any_number_of_coils(n_coils: int) -> None:
    kspace, mask = scan(phantom(), 0.01, 4, 0.08, n_coils)
    assert abs(float(estimate_noise_level(kspace, mask)) / 0.01 - 1) < 0.06


def test_single_coil_with_empty_background() -> None:
    kspace, mask = scan(phantom(), 0.02, 4, 0.08, 1)
    assert abs(float(estimate_noise_level(kspace, mask)) / 0.02 - 1) < 0.15


@pytest.mark.parametrize("sigma", [0.002, 0.02])
def test_correlated_coils(sigma: float) -> None:
    kspace, mask = scan(phantom(), 0.0, 4, 0.08)
    generator = torch.Generator().manual_seed(9)
    mixing = torch.randn(8, 20, dtype=torch.complex128, generator=generator)
    truth = mixing @ mixing.mH
    truth = truth / truth.diagonal().real.mean() * sigma**2
    white = torch.randn(kspace.shape, dtype=torch.complex128, generator=generator)
    noise = torch.einsum("cd,bdhw->bchw", torch.linalg.cholesky(truth), white) * mask[:, None]
    kspace = (kspace + noise).to(torch.complex64)
    covariance = estimate_noise_covariance(kspace, mask)[0].to(torch.complex128)
    assert torch.linalg.matrix_norm(covariance - truth) < 0.1 * torch.linalg.matrix_norm(truth)
    assert torch.linalg.eigvalsh(covariance)[0] > 0
    assert abs(float(estimate_noise_level(kspace, mask)) / sigma - 1) < 0.05


@pytest.mark.parametrize("sigma", SIGMAS)
def test_oversampled_readout(sigma: float) -> None:
    image = torch.cat((torch.zeros(128, 224), phantom(), torch.zeros(128, 224)))
    kspace, mask = scan(image, sigma, 8, 0.04)
    assert abs(float(estimate_noise_level(kspace, mask, readout_oversampled=True)) / sigma - 1) < 0.05
    assert abs(float(estimate_noise_level(kspace, mask)) / sigma - 1) < 0.05


def test_batch_scale_and_empty_rows() -> None:
    first, mask = scan(phantom(), 0.01, 4, 0.08)
    second, _ = scan(phantom(), 0.03, 4, 0.08)
    levels = estimate_noise_level(torch.cat((first, second * 100)), mask)
    assert torch.allclose(levels / torch.tensor([0.01, 3.0]), torch.ones(2), atol=0.05)
    echo = first.clone()
    echo[:, :, :40] = 0
    assert abs(float(estimate_noise_level(echo, mask)) / 0.01 - 1) < 0.05
    for form in (mask.float(), mask[0, 0].numpy()):
        assert torch.equal(estimate_noise_level(first, mask), estimate_noise_level(first, form))


def test_2d_mask_and_no_centre() -> None:
    kspace, _ = scan(phantom(), 0.01, 1, 1.0)
    generator = torch.Generator().manual_seed(1)
    mask = torch.rand(1, 256, 224, generator=generator) < 0.2
    without = estimate_noise_level(kspace * mask[:, None], mask)
    mask[:, 116:140, 100:124] = True
    assert abs(float(estimate_noise_level(kspace * mask[:, None], mask)) / 0.01 - 1) < 0.15
    assert 0.85 < float(without) / 0.01 < 1.3  # the outermost samples alone hold some signal


def test_noise_free_data_has_next_to_none() -> None:
    kspace, mask = scan(phantom(), 0.0, 1, 1.0)
    assert float(estimate_noise_level(kspace, mask)) < 1e-4


@needs_data
@pytest.mark.parametrize(("acceleration", "fraction"), [(1, 1.0), (4, 24 / 180), (8, 0.04)])
def test_real_head(acceleration: float, fraction: float) -> None:
    assert DATA is not None
    kspace = torch.from_numpy(np.load(Path(DATA) / "mri" / "brain_mprage_8ch_230x180_ksp_c64.npy"))
    images = centred_ifft(kspace, (-2, -1))
    corners = torch.stack(
        [images[:, r, c] for r in (slice(14), slice(-14, None)) for c in (slice(14), slice(-14, None))]
    )
    truth = corners.abs().square().mean().sqrt()
    mask = torch.from_numpy(random_mask(180, acceleration, fraction, 0))[None, None]
    level = estimate_noise_level((kspace * mask)[None], mask)
    assert abs(float(level / truth) - 1) < 0.05
    peak = torch.linalg.vector_norm(images, dim=0).max()
    assert 0.0105 < float(level / peak) < 0.0125


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda k, m: estimate_noise_level(k[0], m), ValueError, r"expected \(batch, coil, rows, cols\)"),
        (lambda k, m: estimate_noise_level(k, m[..., :-1]), ValueError, "does not fit the sampling mask"),
        (lambda k, m: estimate_noise_level(k * 0, m), ValueError, "zero or not finite"),
        (lambda k, m: estimate_noise_level(k * float("inf"), m), ValueError, "zero or not finite"),
        (lambda k, m: estimate_noise_level(k.real, m), TypeError, "expected a complex dtype"),
        (
            lambda k, m: estimate_noise_level(k, m.expand(1, 32, 32), readout_oversampled=True),
            ValueError,
            "varies along the rows",
        ),
    ],
)
def test_errors_say_what_is_wrong(
    call: Callable[[Tensor, Tensor], object], error: type[Exception], message: str
) -> None:
    kspace = torch.ones(1, 2, 32, 32, dtype=torch.complex64)
    with pytest.raises(error, match=message):
        call(kspace, torch.ones(1, 1, 32, dtype=torch.bool))


def test_the_smaller_of_two_estimates_is_the_noise_level() -> None:
    generator = torch.Generator().manual_seed(0)
    noise = 0.02 * torch.randn(2, 4, 48, 40, dtype=torch.complex64, generator=generator)
    image = torch.zeros_like(noise)
    image[:, :, 12:36, 10:30] = torch.rand(1, 4, 1, 1, generator=generator)
    kspace = centred_fft(image, (-2, -1)) + noise
    mask = torch.ones(1, 1, 40, dtype=torch.bool)
    estimates = noise_level_estimates(kspace, mask)
    assert torch.allclose(torch.minimum(*estimates), estimate_noise_level(kspace, mask), rtol=1e-5)
    mask[..., 18:23] = False  # no centre, no null space
    estimates = noise_level_estimates(kspace * mask, mask)
    assert bool(estimates.null_space.isnan().all())
    assert torch.allclose(estimates.periphery, estimate_noise_level(kspace * mask, mask))


@pytest.mark.parametrize("sigma", [0.005, 0.02])
def test_of_filtered_k_space_the_noise_of_the_centre_counts(sigma: float) -> None:
    kspace, mask = scan(phantom(), sigma, 4, 0.08)
    y, x = grid((kspace.shape[-2], kspace.shape[-1]))
    radius = torch.hypot(y, x)
    window = torch.where(radius < 0.5, 1.0, torch.cos((radius.clamp(max=1) - 0.5) * math.pi).square() * 0.95 + 0.05)
    kspace = (kspace * window).to(kspace.dtype)
    estimates = noise_level_estimates(kspace, mask)
    assert float(estimates.periphery) < 0.3 * sigma
    # The calibration region reaches to the filtered ends of the readout, so it holds a little less.
    assert abs(float(estimate_noise_level(kspace, mask)) / sigma - 1) < 0.25


def test_choice_between_two_estimates() -> None:
    null_space = torch.tensor([1.0, 1.0, 1.0, torch.nan])
    periphery = torch.tensor([0.1, 0.9, 30.0, 2.0])
    chosen = smaller_noise_level(NoiseEstimates(null_space, periphery))
    assert torch.equal(chosen, torch.tensor([1.0, 0.9, 1.0, 2.0]))

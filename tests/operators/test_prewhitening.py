"""Whitened noise is white, k-space and maps are whitened alike, and BART whitens by the same matrix."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from operators.compression import mix_coils
from operators.fourier import centred_fft
from operators.noise import estimate_noise_covariance
from operators.prewhitening import noise_covariance, whitening_matrix
from operators.sense import Sense


def random_complex(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.complex128, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    coils=st.integers(1, 9), extra=st.integers(0, 20), scale=st.sampled_from([1e-7, 1.0, 1e5]), seed=st.integers(0, 99)
)
def test_whitened_covariance_is_the_identity(coils: int, extra: int, scale: float, seed: int) -> None:
    noise = scale * random_complex(coils, coils, seed=seed) @ random_complex(coils, 3 * coils + extra, seed=seed + 1)
    covariance = noise_covariance(noise)
    matrix = whitening_matrix(covariance)
    identity = torch.eye(coils, dtype=torch.complex128)
    torch.testing.assert_close(matrix @ covariance @ matrix.mH, identity, rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(noise_covariance(mix_coils(matrix, noise[None])[0]), identity, rtol=1e-7, atol=1e-7)


def test_samples_of_known_covariance() -> None:
    factor = random_complex(4, 4, seed=0)
    noise = factor @ random_complex(4, 200_000, seed=1)  # randn has E|n|^2 = 1
    covariance = factor @ factor.mH
    assert (noise_covariance(noise) - covariance).abs().max() < 0.02 * covariance.abs().max()
    batch = torch.stack((covariance, 4 * covariance))
    torch.testing.assert_close(whitening_matrix(batch)[1], whitening_matrix(covariance) / 2)
    assert whitening_matrix(covariance.to(torch.complex64)).dtype == torch.complex64


def test_kspace_and_maps_are_consistent() -> None:
    maps, x = random_complex(2, 4, 6, 5, seed=0), random_complex(2, 6, 5, seed=1)
    mask = torch.tensor([True, False, True, True, False])[None, None]
    matrix = whitening_matrix(noise_covariance(random_complex(2, 4, 50, seed=2)))
    whitened = Sense(mix_coils(matrix, maps), mask)
    torch.testing.assert_close(whitened(x), mix_coils(matrix, Sense(maps, mask)(x)))


@pytest.mark.skipif(shutil.which("bart") is None, reason="BART is not installed")
def test_agrees_with_bart(tmp_path: Path) -> None:
    n = 500
    noise = random_complex(4, 4, seed=0) @ random_complex(4, n, seed=1)
    data = random_complex(4, 6, 5, seed=2)
    for name, tensor, sizes in (("noise", noise, f"{n} 1"), ("data", data, "5 6")):
        # BART's first axis varies fastest, its fourth is the coils
        (tmp_path / f"{name}.hdr").write_text(f"# Dimensions\n{sizes} 1 4{' 1' * 12}\n")
        tensor.to(torch.complex64).numpy().tofile(tmp_path / f"{name}.cfl")
    subprocess.run(
        ["bart", "whiten", "data", "noise", "white", "matrix", "covariance"],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )

    covariance = noise_covariance(noise)
    matrix = whitening_matrix(covariance)
    unbiased = n / (n - 1)  # BART divides by n - 1
    for name, ours in (
        ("covariance", (covariance * unbiased).mT),
        ("matrix", matrix / unbiased**0.5),
        ("white", mix_coils(matrix, data[None])[0] / unbiased**0.5),
    ):
        flat = np.fromfile(tmp_path / f"{name}.cfl", dtype=np.complex64)
        theirs = torch.from_numpy(flat.reshape(ours.shape)).to(torch.complex128)
        torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-4)


def test_whitening_by_the_covariance_estimated_from_the_scan() -> None:
    rows, cols = 96, 96
    y, x = torch.meshgrid(*(torch.linspace(-1, 1, n, dtype=torch.float64) for n in (rows, cols)), indexing="ij")
    disc = ((y / 0.7) ** 2 + (x / 0.6) ** 2 < 1).to(torch.complex128)
    angle = torch.arange(6) * torch.pi / 3
    distance = (y - 1.3 * angle.sin()[:, None, None]) ** 2 + (x - 1.3 * angle.cos()[:, None, None]) ** 2
    clean = centred_fft(disc / (distance + 0.2), (-2, -1))[None]
    mixing = torch.eye(6, dtype=torch.complex128) + 0.2 * random_complex(6, 6, seed=3)
    noise = 0.05 * mix_coils(mixing, random_complex(1, 6, rows, cols, seed=4))
    matrix = whitening_matrix(estimate_noise_covariance(clean + noise, torch.ones(1, 1, 1)))
    white = noise_covariance(mix_coils(matrix, noise)[0].flatten(1))
    assert (white - torch.eye(6)).abs().max() < 0.1
    before = noise_covariance(noise[0].flatten(1))
    assert (before / before.diagonal().real.mean() - torch.eye(6)).abs().max() > 0.3


EYE = torch.eye(3, dtype=torch.complex128)
ERRORS: list[tuple[Callable[[], object], type[Exception], str]] = [
    (lambda: noise_covariance(EYE.real), TypeError, r"noise_covariance: noise has dtype torch.float64"),
    (lambda: noise_covariance(EYE[:, :2]), ValueError, r"noise_covariance: noise \(3, 2\), expected \(..., coil, n\)"),
    (lambda: whitening_matrix(EYE.real), TypeError, r"whitening_matrix: covariance has dtype torch.float64"),
    (lambda: whitening_matrix(EYE[:2]), ValueError, r"whitening_matrix: covariance \(2, 3\), expected \(..., coil"),
    (lambda: whitening_matrix(EYE * 1j), ValueError, r"whitening_matrix: the covariance is not Hermitian"),
    (lambda: whitening_matrix(EYE * float("nan")), ValueError, r"whitening_matrix: the covariance is not Hermitian"),
    (lambda: whitening_matrix(-EYE), ValueError, r"whitening_matrix: the covariance is not positive definite"),
]


@pytest.mark.parametrize(("call", "error", "message"), ERRORS)
def test_errors(call: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()

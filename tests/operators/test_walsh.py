"""Walsh's maps against the true coils of the sample phantom, every pixel's own eigenvector, and a real head."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from molrecon.simulation.phantom import coil_maps, phantom_volume
from operators import centred_ifft, walsh
from operators.walsh import walsh_maps

DATA = os.environ.get("MOLRECON_DATA")


def scan(noise_level: float, slices: int = 2, shape: tuple[int, int] = (96, 84)) -> tuple[Tensor, Tensor, Tensor]:
    """Return coil images, true unit-norm maps (slices, 8, rows, cols), and where there is signal."""
    image = torch.from_numpy(phantom_volume(slices, shape))
    maps = torch.from_numpy(coil_maps(slices, 8, shape))
    images = maps * image[:, None]
    noise = torch.randn(images.shape, dtype=images.dtype, generator=torch.Generator().manual_seed(0))
    return images + noise_level * noise, maps / torch.linalg.vector_norm(maps, dim=1, keepdim=True), image.abs() > 0.1


def distance(first: Tensor, second: Tensor) -> Tensor:
    """Return `1 - |<s1, s2>|`, (slices, rows, cols): the phase per pixel is free."""
    return 1 - (first.conj() * second).sum(dim=1).abs().double()


@pytest.mark.parametrize("noise_level", [0.0, 0.01])
def test_maps_are_those_of_the_phantom(noise_level: float) -> None:
    images, truth, signal = scan(noise_level)
    maps = walsh_maps(images)
    assert maps.shape == images.shape and maps.dtype == images.dtype
    gap = distance(truth, maps)[signal]
    assert gap.median() < 2e-4 and gap.quantile(0.99) < 5e-3
    torch.testing.assert_close(torch.linalg.vector_norm(maps, dim=1)[signal], torch.ones(int(signal.sum())))


def test_batch_is_slice_by_slice_and_scale_is_free() -> None:
    images, _, _ = scan(0.01)
    maps = walsh_maps(images)
    torch.testing.assert_close(maps[1:], walsh_maps(images[1:]))
    torch.testing.assert_close(walsh_maps(1e-9 * images), maps, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("shape", [(9, 8), (5, 11), (2, 3)])
@pytest.mark.parametrize("width", [1, 3, 7])
def test_maps_are_the_eigenvectors_of_the_formula(
    shape: tuple[int, int], width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = torch.randn(1, 3, *shape, dtype=torch.complex128, generator=torch.Generator().manual_seed(1))
    monkeypatch.setattr(walsh, "_CHUNK_ELEMENTS", 2 * 3 * width**2 * shape[1])
    monkeypatch.setattr(walsh, "_DOMINANT", 0.0)
    maps = walsh_maps(images, width, max_iterations=5000, tol=1e-13, stride=1)[0]
    half = width // 2
    for r in range(shape[0]):
        for c in range(shape[1]):
            near = images[0, :, max(0, r - half) : r + half + 1, max(0, c - half) : c + half + 1].flatten(1)
            dominant = torch.linalg.eigh(near @ near.mH).eigenvectors[:, -1]
            assert (dominant.conj() @ maps[:, r, c]).abs().item() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("shape", [(96, 84), (61, 53)])
@pytest.mark.parametrize("width", [5, 7])
def test_blocks_are_as_good_as_every_pixel(shape: tuple[int, int], width: int) -> None:
    images, truth, signal = scan(0.01, 1, shape)
    blocks, pixels = walsh_maps(images, width), walsh_maps(images, width, stride=1)
    gap = distance(blocks, pixels)[signal]
    assert gap.median() < 3e-4 and gap.quantile(0.99) < 1e-2
    assert distance(blocks, truth)[signal].median() < 1.2 * distance(pixels, truth)[signal].median()


@pytest.mark.skipif(DATA is None, reason="MOLRECON_DATA is not set: no real k-space")
def test_blocks_are_as_good_as_every_pixel_of_a_real_head() -> None:
    kspace = torch.from_numpy(np.load(Path(str(DATA)) / "mri" / "brain_mprage_8ch_230x180_ksp_c64.npy"))[None]
    images = centred_ifft(kspace, (-2, -1))
    energy = torch.linalg.vector_norm(images, dim=1)
    signal = energy > 0.1 * energy.max()
    gap = distance(walsh_maps(images), walsh_maps(images, stride=1))[signal]
    assert gap.median() < 1e-4 and gap.quantile(0.99) < 2e-3


def test_phase_is_relative_to_the_virtual_coil() -> None:
    images, _, signal = scan(0.0, slices=1)
    samples = images[0].flatten(1)
    virtual = torch.linalg.eigh(samples @ samples.mH).eigenvectors[:, -1]
    virtual = virtual / torch.sgn(virtual[virtual.abs().argmax()])
    component = torch.einsum("c,chw->hw", virtual.conj(), walsh_maps(images)[0])[signal[0]]
    assert component.imag.abs().max() < 1e-5 and component.real.min() > -1e-5


def test_no_signal_gives_no_maps() -> None:
    images = torch.zeros(1, 2, 20, 20, dtype=torch.complex64)
    images[..., :3, :3] = 1
    maps = walsh_maps(images, width=3)
    assert bool((maps[..., 6:, 6:] == 0).all()) and bool((maps[..., :3, :3] != 0).all())


ONES = torch.ones(1, 2, 8, 9, dtype=torch.complex64)
ERRORS: list[tuple[Callable[[], object], type[Exception], str]] = [
    (lambda: walsh_maps(ONES.real), TypeError, r"walsh_maps: coil images has dtype torch.float32"),
    (
        lambda: walsh_maps(ONES[0]),
        ValueError,
        r"walsh_maps: coil images \(2, 8, 9\), expected \(batch, coil, rows, cols",
    ),
    (lambda: walsh_maps(ONES, width=4), ValueError, r"walsh_maps: width is 4, expected an odd positive number"),
    (lambda: walsh_maps(ONES, stride=2), ValueError, r"walsh_maps: stride is 2, expected an odd .* the width, 7"),
    (lambda: walsh_maps(ONES, stride=9), ValueError, r"walsh_maps: stride is 9, expected an odd number from 1 to the"),
    (lambda: walsh_maps(ONES * torch.nan), ValueError, r"walsh_maps: the coil images of some slice are zero or not"),
    (lambda: walsh_maps(ONES * 0), ValueError, r"walsh_maps: the coil images of some slice are zero or not finite"),
]


@pytest.mark.parametrize(("call", "error", "message"), ERRORS)
def test_errors(call: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()

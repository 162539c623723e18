"""The error of coil maps, read off the calibration data: small for the scan's own maps, large for others."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from operators import Identity, Sense, SoftSense, random_mask
from operators.model_error import coil_model_error


def scan(noise: float = 0.0) -> tuple[Tensor, Tensor, Tensor]:
    """Return k-space (2, 4, 40, 36) of smooth coils, their maps of unit norm, and a mask with 10 central columns."""
    generator = torch.Generator().manual_seed(0)
    y, x = torch.meshgrid(torch.linspace(-1, 1, 40), torch.linspace(-1, 1, 36), indexing="ij")
    places = [(1.0, 1.0), (1.0, -1.0), (-1.0, 1.0), (-1.0, -1.0)]
    size = torch.stack([torch.exp(-((y - a) ** 2 + (x - b) ** 2) / 4) for a, b in places])
    maps = torch.polar(size, torch.stack([0.5 * (a * y + b * x) for a, b in places]))
    maps = (maps / torch.linalg.vector_norm(maps, dim=0))[None]
    box = ((y.abs() < 0.7) & (x.abs() < 0.6)).to(torch.complex64)
    image = torch.stack([box, 3 * box])
    mask = torch.from_numpy(random_mask(36, 2, 10 / 36, 0))[None, None]
    kspace = Sense(maps, torch.ones(1, 1, 1, dtype=torch.bool))(image)
    noise_of = torch.randn(kspace.shape, dtype=kspace.dtype, generator=generator)
    return (kspace + noise * noise_of) * mask, maps, mask


def test_it_is_small_for_the_scans_own_maps_and_large_for_others() -> None:
    kspace, maps, mask = scan()
    own = coil_model_error(kspace, Sense(maps, mask))
    other = coil_model_error(kspace, Sense(maps.roll(1, 1), mask))
    assert own.shape == (2,) and bool((own < torch.tensor([0.02, 0.06])).all())
    assert bool((other > 5 * own).all())


def test_it_has_the_unit_of_the_data_and_each_sample_its_own() -> None:
    kspace, maps, mask = scan()
    own = coil_model_error(kspace, Sense(maps, mask))
    assert float(own[1] / own[0]) == pytest.approx(3, rel=1e-4)
    torch.testing.assert_close(coil_model_error(1e-6 * kspace, Sense(maps, mask)), 1e-6 * own)
    torch.testing.assert_close(coil_model_error(kspace, Sense(5 * maps, mask)), own, rtol=1e-4, atol=0)
    both = Sense(maps, torch.cat([mask, torch.ones_like(mask)]))
    alone = coil_model_error(kspace[1:], Sense(maps, torch.ones_like(mask)))
    torch.testing.assert_close(coil_model_error(kspace, both)[1:], alone)


def test_noise_hardly_counts() -> None:
    clean, maps, mask = scan()
    noisy, _, _ = scan(noise=0.1)
    own, with_noise = (float(coil_model_error(k, Sense(maps, mask))[0]) for k in (clean, noisy))
    assert with_noise < own + 0.03


def test_a_second_set_explains_more() -> None:
    kspace, maps, mask = scan()
    generator = torch.Generator().manual_seed(1)
    other = torch.randn(1, 4, 40, 36, dtype=torch.complex64, generator=generator)
    other = other - maps * (maps.conj() * other).sum(1, keepdim=True)
    two = torch.stack([maps, other / torch.linalg.vector_norm(other, dim=1, keepdim=True)], 1)
    one = coil_model_error(kspace, SoftSense(maps.roll(1, 1)[:, None], mask))
    torch.testing.assert_close(one, coil_model_error(kspace, Sense(maps.roll(1, 1), mask)))
    rolled = two.clone()
    rolled[:, 0] = maps.roll(1, 1)
    rolled[:, 1] = maps - rolled[:, 0] * (rolled[:, 0].conj() * maps).sum(1, keepdim=True)
    rolled[:, 1] /= torch.linalg.vector_norm(rolled[:, 1], dim=1, keepdim=True).clamp_min(1e-6)
    assert bool((coil_model_error(kspace, SoftSense(rolled, mask)) < 0.3 * one).all())


def test_where_nothing_can_be_compared_it_is_zero() -> None:
    kspace, maps, mask = scan()
    assert not coil_model_error(kspace[:, :1], Sense(maps[:, :1], mask)).any()
    sparse = torch.zeros_like(mask)
    sparse[..., ::2] = True
    assert not coil_model_error(kspace, Sense(maps, sparse)).any()
    assert coil_model_error(kspace, Identity()).tolist() == [0, 0]

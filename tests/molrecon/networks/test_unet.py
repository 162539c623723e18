"""The U-Net: any size, as many parameters as the other networks of the comparison, and a start at the identity."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as nnf
from torch import Tensor

from molrecon.networks import PlainNetwork, UNet

LEVEL = torch.tensor([0.01])


def trained(channels: tuple[int, ...] = (3, 4, 5)) -> UNet:
    unet = UNet(channels=channels, seed=1).double()
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in unet.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, dtype=torch.float64, generator=generator))
    return unet


def draw(rows: int, cols: int) -> Tensor:
    return torch.randn(2, 2, rows, cols, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("size", [(1, 1), (5, 3), (8, 12), (13, 10)])
def test_sizes(size: tuple[int, int]) -> None:
    image = draw(*size)
    denoise = trained().denoiser(LEVEL)
    with torch.no_grad():
        value = denoise(image)
        padded = nnf.pad(image, (0, -size[1] % 4, 0, -size[0] % 4))
        expected = denoise(padded)[:, :, : size[0], : size[1]]
    assert value.shape == image.shape
    torch.testing.assert_close(value, expected)


def test_every_level_is_heard() -> None:
    unet = trained()
    unet.denoiser(LEVEL)(draw(8, 8)).square().sum().backward()
    assert all(parameter.grad is not None and bool(parameter.grad.any()) for parameter in unet.parameters())


def test_it_starts_at_the_identity() -> None:
    state = torch.get_rng_state()
    unet = UNet(seed=5)
    assert torch.equal(torch.get_rng_state(), state)
    image = draw(9, 6).float()
    with torch.no_grad():
        torch.testing.assert_close(unet.denoiser(LEVEL)(image), 0.99 * image)
        inner = unet.down[0](image)
    assert 0.3 < float(inner.std() / image.std()) < 3
    assert not unet.certified
    assert unet.lipschitz_bound() == 0.99
    again = UNet(**unet.settings(), seed=5).state_dict()
    assert all(torch.equal(value, again[key]) for key, value in unet.state_dict().items())


def test_parameters_are_those_of_the_comparison() -> None:
    counts = [sum(p.numel() for p in network.parameters()) for network in (UNet(), PlainNetwork(features=39))]
    assert counts[0] == 42_048
    assert counts[0] == pytest.approx(counts[1], rel=0.02)


def test_errors() -> None:
    for channels, monotonicity in (((), 0.1), ((4, 0), 0.1), ((4,), 1.0)):
        with pytest.raises(ValueError, match=r"UNet: got channels \(.*expected at least one positive"):
            UNet(channels=channels, monotonicity=monotonicity)
    with pytest.raises(ValueError, match=r"UNet: image \(1, 2, 4\), expected \(batch, 2, rows, cols\)"):
        UNet().denoiser(LEVEL)(torch.zeros(1, 2, 4))

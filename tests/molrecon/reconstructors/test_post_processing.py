"""Post-processing: the network on the zero-filled image, in the units of the data."""

from __future__ import annotations

import pytest
import torch

from molrecon.networks import UNet
from molrecon.reconstructors.post_processing import PostProcessing
from tests.small_problem import assert_gradients, make_problem


def network() -> UNet:
    unet = UNet(channels=(2, 3), monotonicity=0.3).double()
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in unet.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, dtype=torch.float64, generator=generator))
    return unet


def test_it_starts_as_the_zero_filled_image() -> None:
    kspace, operator, conditioning = make_problem()
    model = PostProcessing(UNet(channels=(2, 3), monotonicity=0.3).double())
    with torch.no_grad():
        image = model(kspace, operator, conditioning=conditioning).value
    torch.testing.assert_close(image, 0.7 * operator.adjoint(kspace))
    assert model.settings() == {"network": model.network, "phase_reference": True}


def test_units_follow_the_data() -> None:
    kspace, operator, _ = make_problem()
    model = PostProcessing(network())
    with torch.no_grad():
        one, thousand = model(kspace, operator, 0.01).value, model(1000 * kspace, operator, 10.0).value
    torch.testing.assert_close(thousand, 1000 * one, rtol=1e-10, atol=0)
    assert not torch.allclose(one, 0.7 * operator.adjoint(kspace), rtol=1e-2)


def test_gradients() -> None:
    kspace, operator, conditioning = make_problem()
    model = PostProcessing(network())
    assert_gradients(
        model, lambda b: model(b, operator, conditioning=conditioning).value.abs().square().sum(), kspace, operator
    )


def test_errors() -> None:
    kspace, operator, conditioning = make_problem()
    with pytest.raises(TypeError, match=r"PostProcessing: kspace has dtype torch\.float64"):
        PostProcessing(network())(kspace.real, operator, conditioning=conditioning)

"""The plain network's tempering: reshaped kernels of norm 1 at most, and no promise."""

from __future__ import annotations

import torch

from molrecon.networks import PlainNetwork
from molrecon.networks.convolution import Convolution


def test_spectral_kernels_are_tempered_as_they_are_applied() -> None:
    network = PlainNetwork(layers=3, features=5, spectral=True, seed=4)
    free = PlainNetwork(layers=3, features=5, seed=4)
    with torch.no_grad():
        for convolution in (*network.convolutions, *free.convolutions):
            convolution.get_parameter("weight").mul_(3)
        network.convolutions[2].get_parameter("weight").mul_(0.01)
    raw = [convolution.get_parameter("weight") for convolution in network.convolutions]
    for mode in (True, False):
        applied = [layer.weight for layer in network.train(mode).layers() if isinstance(layer, Convolution)]
        norms = [torch.linalg.matrix_norm(kernel.flatten(1), 2) for kernel in applied]
        torch.testing.assert_close(torch.stack(norms[:2]), torch.ones(2))
        assert torch.equal(applied[2], raw[2])
        torch.testing.assert_close(applied[0] / applied[0].norm(), raw[0] / raw[0].norm())
    assert all(layer is convolution for layer, convolution in zip(free.layers(), free.convolutions, strict=True))
    assert not network.certified
    assert network.settings()["spectral"] is True


def test_gradients_flow_through_the_tempering() -> None:
    network = PlainNetwork(layers=2, features=3, spectral=True, seed=4).double()
    weight = network.convolutions[0].get_parameter("weight")
    with torch.no_grad():
        weight.mul_(5)
    x = torch.randn(1, 2, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    level = torch.tensor([0.01], dtype=torch.float64)
    network.denoiser(level)(x).square().sum().backward()
    # Scaling the kernel changes nothing, so nothing of the gradient points that way.
    assert weight.grad is not None and float(weight.grad.norm()) > 0
    assert abs(float((weight.grad * weight.detach()).sum())) < 1e-10 * float(
        weight.grad.norm() * weight.detach().norm()
    )

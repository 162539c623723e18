"""What evaluating in single precision is off by, against what the solver allows for it."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from molrecon.networks import Denoiser, PlainNetwork, ResidualNetwork, SpectralNetwork
from molrecon.networks.tiling import Tiled
from molrecon.reconstructors.mol import MOL
from molrecon.weights import load

EPS = torch.finfo(torch.float32).eps
LEVEL = torch.tensor([0.02])


def images() -> list[Tensor]:
    """Return a smooth image and noise."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, 48), torch.linspace(-1, 1, 40), indexing="ij")
    blob = torch.exp(-3 * (x**2 + y**2))
    noise = torch.randn(1, 2, 48, 40, generator=torch.Generator().manual_seed(0))
    return [torch.stack([blob, 0.3 * x * blob])[None], noise]


@torch.no_grad()
def error(network: Denoiser) -> float:
    """Return the largest `|H32(x) - H64(x)| / |x|` of the images, H64 with the same filters."""
    exact = copy.deepcopy(network).double()
    if isinstance(network, ResidualNetwork | SpectralNetwork):
        applied = [kernel.double() for kernel in network.applied_kernels()]
        vars(exact)["applied_kernels"] = lambda: applied
    gaps = [network.denoiser(LEVEL)(x) - exact.denoiser(LEVEL.double())(x.double()) for x in images()]
    return max(float(gap.norm() / x.norm()) for gap, x in zip(gaps, images(), strict=True))


@pytest.mark.parametrize("layers", [2, 10, 40])
def test_forty_convolutions_round_more_than_two(layers: int) -> None:
    # 40 of them were off by 5.9e-7 where 2.4e-7 were allowed.
    network = SpectralNetwork(layers=layers, features=16, seed=1).eval()
    assert 0.1 * network.rounding(torch.float32) < error(network) <= network.rounding(torch.float32)


@pytest.mark.parametrize("cycles", [1, 4, 10, 40])
@pytest.mark.parametrize("layer", ["potential", "sll"])
def test_residual_layers_that_pass_nothing_on_unchanged(layer: str, cycles: int) -> None:
    # Tight frames without a threshold: each layer turns x into -x, as far from x as a 1-Lipschitz one can be.
    network = ResidualNetwork(levels=1, cycles=cycles, layer=layer).eval()  # type: ignore[arg-type]
    frames = torch.linalg.qr(torch.randn(cycles, 32, 8, generator=torch.Generator().manual_seed(3))).Q
    with torch.no_grad():
        network.log_threshold.fill_(5)
        network.weight.zero_()
        network.weight[:, :, :, 1, 1] = frames
    assert error(network) <= network.rounding(torch.float32)


@pytest.mark.parametrize("name", ["mol-brain-2d", "mol-penalised-brain-2d"])
def test_packaged_networks_round_less_than_allowed_and_reach_their_goals(name: str) -> None:
    model = load(name, MOL)
    network = model.network
    assert error(network) <= network.rounding(torch.float32)
    # The bound's floor, below 1e-4 in single precision and below 1e-6 in double.
    assert network.rounding(torch.float32) / network.monotonicity < 0.5e-4
    assert network.rounding(torch.float64) / network.monotonicity < 1e-12


def test_depth() -> None:
    assert PlainNetwork(layers=9, features=3).rounding(torch.float64) == 4.75 * torch.finfo(torch.float64).eps
    assert SpectralNetwork(layers=4, features=3).rounding(torch.float32) == 3.5 * EPS
    network = ResidualNetwork(levels=2, cycles=12, features=3)
    assert network.rounding(torch.float32) == Tiled(network, (8, 8)).rounding(torch.float32)
    assert network.rounding(torch.float32) == pytest.approx(5.2 * EPS)
    assert ResidualNetwork(levels=1, cycles=1, features=3).rounding(torch.float32) == pytest.approx(2.2 * EPS)

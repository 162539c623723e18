"""A model in training mode: its bounds hold all the same, and nothing is called certified."""

from __future__ import annotations

import copy
from typing import Literal

import pytest
import torch

from molrecon.networks import Denoiser, ResidualNetwork, SpectralNetwork
from molrecon.reconstructors.mol import MOL
from tests.molrecon.reconstructors.test_mol import make_problem, norms


def far_out(layer: Literal["potential", "sll", "spectral"]) -> Denoiser:
    """Return a network whose raw filters are ten times as large as those it starts with."""
    network: Denoiser
    if layer == "spectral":
        network = SpectralNetwork(monotonicity=0.1, layers=3, features=8)
    else:
        network = ResidualNetwork(monotonicity=0.1, channels=3, features=8, levels=2, cycles=2, layer=layer)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim >= 4:
                parameter.mul_(10)
    return network


@torch.no_grad()
@pytest.mark.parametrize("layer", ["potential", "sll", "spectral"])
def test_the_error_bound_holds_in_training_mode(layer: Literal["potential", "sll", "spectral"]) -> None:
    # With the raw filters and the m that they were to have, the true error was 21.7 times its bound.
    kspace, operator, _ = make_problem()
    model = MOL(far_out(layer), data_weight=20.0).double().train()
    solution = model(kspace, operator, noise_level=0.01)
    exact = copy.deepcopy(model).eval()(kspace, operator, noise_level=0.01, start=torch.zeros_like(solution.value))
    assert solution.converged.all() and exact.converged.all()
    allowed = solution.error_bound * norms(solution.value) + exact.error_bound * norms(exact.value)
    assert (norms(solution.value - exact.value) <= allowed).all()
    assert model.certificate().kind == "estimated"
    assert model.eval().certificate().kind == "certified"


def test_training_keeps_a_network_inside_its_bound() -> None:
    # Steps that are far too large: whatever they make of the parameters, the map stays 1-Lipschitz.
    network = ResidualNetwork(monotonicity=0.1, channels=3, features=8, levels=2, cycles=1).train()
    x = torch.randn(2, 2, 9, 8, generator=torch.Generator().manual_seed(0))
    optimiser = torch.optim.Adam(network.parameters(), lr=0.3)
    for _ in range(5):
        optimiser.zero_grad()
        (-network.denoiser(torch.tensor([0.01, 0.01]))(x).square().sum()).backward()
        optimiser.step()
        assert network.lipschitz_bound() == 0.9
    assert network.eval().certified

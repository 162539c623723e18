"""Averages of weights: the mean of every parameter, and nothing that was handed in changes."""

from __future__ import annotations

import pytest
import torch

from examples.average_weights import average, with_first
from molrecon.networks import PlainNetwork, ResidualNetwork
from molrecon.reconstructors.admm_net import ADMMNet
from molrecon.reconstructors.guiding import GUIDE_CHANNELS
from molrecon.reconstructors.mol import MOL


def guided(seed: int, features: int = 3) -> MOL:
    network = ResidualNetwork(
        channels=2, features=features, levels=1, cycles=1, monotonicity=0.1, seed=seed, guide_channels=GUIDE_CHANNELS
    )
    return MOL(network, first=ADMMNet(PlainNetwork(layers=2, features=2, seed=seed)))


def test_the_mean_keeps_what_is_certified() -> None:
    models = [guided(0), guided(1)]
    before = [{name: p.detach().clone() for name, p in model.named_parameters()} for model in models]
    mean = average(models)
    for name, parameter in mean.named_parameters():
        torch.testing.assert_close(parameter.detach(), (before[0][name] + before[1][name]) / 2)
    for model, was in zip(models, before, strict=True):
        assert all(torch.equal(p, was[name]) for name, p in model.named_parameters())
    assert mean.certificate() == models[0].certificate()


def test_another_guide_and_other_sizes() -> None:
    first = ADMMNet(PlainNetwork(layers=2, features=2, seed=5))
    changed = with_first(guided(0), first)
    assert changed.first is first and torch.equal(changed.log_data_weight, guided(0).log_data_weight)
    with pytest.raises(ValueError, match="model 2 differs from the first in"):
        average([guided(0), guided(1, features=4)])

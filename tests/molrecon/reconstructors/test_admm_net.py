"""ADMM-Net: MoDL without multipliers, a solver of the classical problem with them, and its gradient is exact."""

from __future__ import annotations

import pytest
import torch

from molrecon.networks import PlainNetwork
from molrecon.reconstructors.admm_net import ADMMNet
from molrecon.reconstructors.modl import MoDL
from molrecon.reconstructors.unrolled import UnrolledReconstructor
from tests.small_problem import assert_gradients, make_problem, shrinkage, small_network, tikhonov


@pytest.fixture(autouse=True)
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(UnrolledReconstructor, "inner_tol", 1e-13)
    monkeypatch.setattr(UnrolledReconstructor, "inner_steps", 200)


def test_without_multipliers_it_is_modl() -> None:
    kspace, operator, conditioning = make_problem()
    shared = small_network()
    model = ADMMNet(shared, n_unrolls=3).double()
    with torch.no_grad():
        model.multiplier_step.zero_()
        expected = list(MoDL(shared, n_unrolls=3).double().stages(kspace, operator, conditioning=conditioning))
        stages = list(model.stages(kspace, operator, conditioning=conditioning))
    assert len(stages) == 3
    torch.testing.assert_close(stages, expected, rtol=1e-12, atol=1e-12)


def test_it_solves_the_classical_problem() -> None:
    kspace, operator, conditioning = make_problem()
    model = ADMMNet(shrinkage(), n_unrolls=80, data_weight=2.0).double()
    with torch.no_grad():
        image = model(kspace, operator, conditioning=conditioning).value
        weight = 0.7 / 0.3 * model.data_weight(conditioning.noise_level)
        # x = 0.7 (x - lambda A^H (A x - b))
        torch.testing.assert_close(image, tikhonov(kspace, operator, weight), rtol=1e-6, atol=1e-6)


def test_gradients() -> None:
    kspace, operator, conditioning = make_problem()
    model = ADMMNet(small_network(), n_unrolls=3, data_weight=5.0).double()
    with torch.no_grad():
        model.log_stage_weight.copy_(torch.tensor([0.2, -0.3, 0.1]))
    assert_gradients(
        model, lambda b: model(b, operator, conditioning=conditioning).value.abs().square().sum(), kspace, operator
    )


def test_stages_may_be_left_out() -> None:
    kspace, operator, conditioning = make_problem()
    model = ADMMNet(small_network(), n_unrolls=4).double()
    with torch.no_grad():
        stages = list(model.stages(kspace, operator, conditioning=conditioning))
        model.n_unrolls = 2
        assert torch.equal(model(kspace, operator, conditioning=conditioning).value, stages[1])
    assert model.settings() == {"network": model.network, "n_unrolls": 4, "phase_reference": True}


def test_errors() -> None:
    kspace, operator, conditioning = make_problem()
    with pytest.raises(ValueError, match="ADMMNet: got n_unrolls 0"):
        ADMMNet(PlainNetwork(layers=2, features=3), n_unrolls=0)
    with pytest.raises(TypeError, match=r"ADMMNet: kspace has dtype torch\.float64"):
        ADMMNet(small_network())(kspace.real, operator, conditioning=conditioning)

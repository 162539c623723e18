"""VarNet: gradient descent on the data and the score, with exact gradients."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from molrecon.reconstructors.varnet import VarNet
from tests.small_problem import assert_gradients, make_problem, shrinkage, small_network, tikhonov


def test_it_descends_to_the_classical_solution() -> None:
    kspace, operator, conditioning = make_problem()
    model = VarNet(shrinkage(), n_unrolls=100, data_weight=2.0).double()
    with torch.no_grad():
        weight = model.data_weight(conditioning.noise_level)
        # N = 0.3 I: 0.3 x + eta A^H (A x - b) = 0
        expected = tikhonov(kspace, operator, weight / (1 + weight) / 0.3)
        gaps = [float((x - expected).norm()) for x in model.stages(kspace, operator, conditioning=conditioning)]
    assert all(after <= before for before, after in pairwise(gaps[:40]))
    assert gaps[-1] < 1e-10 * float(expected.norm())


def test_steps_are_those_of_the_stages() -> None:
    kspace, operator, conditioning = make_problem()
    model = VarNet(shrinkage(), n_unrolls=2).double()
    with torch.no_grad():
        model.stage_step.copy_(torch.tensor([0.5, 0.0]))
        first, second = model.stages(kspace, operator, conditioning=conditioning)
        weight = model.data_weight(conditioning.noise_level)
        start = operator.adjoint(kspace)
        step = 0.5 * weight / (1 + weight)
        torch.testing.assert_close(first, 0.7 * start - step * (operator.normal(start) - start))
        torch.testing.assert_close(second, 0.7 * first)
        model.n_unrolls = 1
        assert torch.equal(model(kspace, operator, conditioning=conditioning).value, first)
    assert model.settings() == {"network": model.network, "n_unrolls": 2, "phase_reference": True}


def test_gradients() -> None:
    kspace, operator, conditioning = make_problem()
    model = VarNet(small_network(), n_unrolls=3, data_weight=5.0).double()
    assert_gradients(
        model, lambda b: model(b, operator, conditioning=conditioning).value.abs().square().sum(), kspace, operator
    )


def test_errors() -> None:
    kspace, operator, conditioning = make_problem()
    with pytest.raises(ValueError, match=r"VarNet: got n_unrolls 10 and data_weight -1\.0"):
        VarNet(small_network(), data_weight=-1.0)
    with pytest.raises(TypeError, match=r"VarNet: kspace has dtype torch\.float64"):
        VarNet(small_network())(kspace.real, operator, conditioning=conditioning)

"""MoDL: its stages are the plain iteration of the equilibrium model, and its gradient is that of exact inverses."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from molrecon.reconstructors.modl import MoDL
from molrecon.reconstructors.mol import MOL
from molrecon.reconstructors.unrolled import UnrolledReconstructor
from tests.small_problem import assert_gradients, make_problem, small_network


@pytest.fixture
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(UnrolledReconstructor, "inner_tol", 1e-13)
    monkeypatch.setattr(UnrolledReconstructor, "inner_steps", 200)


@pytest.mark.usefixtures("exact")
def test_stages_approach_the_equilibrium() -> None:
    kspace, operator, conditioning = make_problem()
    shared = small_network()
    equilibrium = MOL(shared, data_weight=5.0).double().eval()
    equilibrium.solver = replace(equilibrium.solver, tol=1e-10)
    unrolled = MoDL(shared, n_unrolls=40, data_weight=5.0).double().eval()
    with torch.no_grad():
        goal = equilibrium(kspace, operator, conditioning=conditioning).value
        gaps = [
            float((x - goal).norm() / goal.norm()) for x in unrolled.stages(kspace, operator, conditioning=conditioning)
        ]
        last = unrolled(kspace, operator, conditioning=conditioning).value
    assert len(gaps) == 40
    assert gaps[0] > 1e-3
    assert gaps[-1] < 1e-6
    assert all(after < before for before, after in pairwise(gaps) if before > 1e-9)
    assert float((last - goal).norm() / goal.norm()) == gaps[-1]


@pytest.mark.usefixtures("exact")
def test_gradients() -> None:
    kspace, operator, conditioning = make_problem()
    model = MoDL(small_network(), n_unrolls=3, data_weight=5.0).double()
    assert_gradients(
        model, lambda b: model(b, operator, conditioning=conditioning).value.abs().square().sum(), kspace, operator
    )


def test_units_follow_the_data() -> None:
    kspace, operator, _ = make_problem()
    model = MoDL(small_network(), n_unrolls=2).double().eval()
    with torch.no_grad():
        one = model(kspace, operator, 0.01).value
        thousand = model(1000 * kspace, operator, 10.0).value
    torch.testing.assert_close(thousand, 1000 * one, rtol=1e-10, atol=0)


def test_errors() -> None:
    kspace, operator, conditioning = make_problem()
    with pytest.raises(ValueError, match="MoDL: got n_unrolls 0"):
        MoDL(small_network(), n_unrolls=0)
    with pytest.raises(ValueError, match=r"data_weight -1\.0"):
        MoDL(small_network(), data_weight=-1.0)
    with pytest.raises(TypeError, match=r"MoDL: kspace has dtype torch\.float64"):
        MoDL(small_network())(kspace.real, operator, conditioning=conditioning)

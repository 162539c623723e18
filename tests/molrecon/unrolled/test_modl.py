"""MoDL: its stages are the plain iteration of the equilibrium model, and its gradient is that of exact inverses."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from molrecon.conditioning import Conditioning
from molrecon.mol import MOL
from molrecon.networks import PlainNetwork
from molrecon.unrolled import modl
from molrecon.unrolled.modl import MoDL
from operators import Sense, random_mask


def make_problem() -> tuple[Tensor, Sense, Conditioning]:
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(1, 3, 8, 10, dtype=torch.complex128, generator=generator)
    maps = maps / torch.linalg.vector_norm(maps, dim=1, keepdim=True)
    operator = Sense(maps, torch.from_numpy(random_mask(10, 2, 0.2, 1))[None, None])
    kspace = operator(torch.randn(1, 8, 10, dtype=torch.complex128, generator=generator))
    phase = torch.polar(torch.ones(1, 8, 10).double(), torch.rand(1, 8, 10, generator=generator).double())
    known = Conditioning(torch.tensor([2.0]).double(), torch.tensor([0.02]).double(), phase)
    return kspace, operator, known


def network() -> PlainNetwork:
    # Small weights: the iteration contracts.
    plain = PlainNetwork(monotonicity=0.3, layers=2, features=3).double()
    with torch.no_grad():
        for parameter in plain.parameters():
            parameter.mul_(0.5)
    return plain


@pytest.fixture
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modl, "INNER_TOL", 1e-13)
    monkeypatch.setattr(modl, "INNER_STEPS", 200)


@pytest.mark.usefixtures("exact")
def test_stages_approach_the_equilibrium() -> None:
    kspace, operator, known = make_problem()
    shared = network()
    equilibrium = MOL(shared, data_weight=5.0).double().eval()
    equilibrium.tol = 1e-10
    unrolled = MoDL(shared, n_unrolls=40, data_weight=5.0).double().eval()
    with torch.no_grad():
        goal = equilibrium(kspace, operator, conditioning=known).value
        gaps = [float((x - goal).norm() / goal.norm()) for x in unrolled.stages(kspace, operator, conditioning=known)]
        last = unrolled(kspace, operator, conditioning=known)
    assert len(gaps) == 40
    assert gaps[0] > 1e-3
    assert gaps[-1] < 1e-6
    assert all(after < before for before, after in pairwise(gaps) if before > 1e-9)
    assert float((last - goal).norm() / goal.norm()) == gaps[-1]


@pytest.mark.usefixtures("exact")
def test_gradients() -> None:
    kspace, operator, known = make_problem()
    model = MoDL(network(), n_unrolls=3, data_weight=5.0).double()
    weight = model.network.get_parameter("convolutions.0.weight")
    generator = torch.Generator().manual_seed(1)
    direction = torch.randn(weight.shape, dtype=torch.float64, generator=generator)
    data_direction = operator.sampling(torch.randn(kspace.shape, dtype=torch.complex128, generator=generator))

    def loss(b: Tensor) -> Tensor:
        return model(b, operator, conditioning=known).abs().square().sum()

    data = kspace.clone().requires_grad_()
    loss(data).backward()
    assert data.grad is not None
    assert weight.grad is not None
    slopes = [(weight.grad * direction).sum(), (data.grad.conj() * data_direction).sum().real]
    step = 1e-5
    with torch.no_grad():
        data_slope = (loss(kspace + step * data_direction) - loss(kspace - step * data_direction)) / (2 * step)
        weight.add_(step * direction)
        above = loss(kspace)
        weight.sub_(2 * step * direction)
        weight_slope = (above - loss(kspace)) / (2 * step)
    for slope, expected in zip(slopes, (weight_slope, data_slope), strict=True):
        assert float(slope) == pytest.approx(float(expected), rel=1e-6)


def test_units_follow_the_data() -> None:
    kspace, operator, _ = make_problem()
    model = MoDL(network(), n_unrolls=2).double().eval()
    with torch.no_grad():
        one = model(kspace, operator, 0.01)
        thousand = model(1000 * kspace, operator, 10.0)
    torch.testing.assert_close(thousand, 1000 * one, rtol=1e-10, atol=0)


def test_errors() -> None:
    kspace, operator, known = make_problem()
    with pytest.raises(ValueError, match="MoDL: got n_unrolls 0"):
        MoDL(network(), n_unrolls=0)
    with pytest.raises(ValueError, match=r"data_weight -1\.0"):
        MoDL(network(), data_weight=-1.0)
    with pytest.raises(TypeError, match=r"MoDL: kspace has dtype torch\.float64"):
        MoDL(network())(kspace.real, operator, conditioning=known)

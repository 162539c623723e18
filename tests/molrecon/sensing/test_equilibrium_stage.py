"""A stage at its fixed point: it is one, many equal stages lead there, and so does their gradient."""

from __future__ import annotations

import pytest
import torch

from molrecon.sensing.assembly import assemble
from molrecon.sensing.equilibrium_stage import EquilibriumStage
from molrecon.sensing.gradient import GIN
from molrecon.sensing.ista_net_plus import ISTANetPlus
from molrecon.sensing.stage import Unrolled
from operators import Dense, Flatten, orthonormal_matrix

SIDE = 9
MANY = 80


def informed(repeats: int = 1) -> Unrolled:
    """Return one stage that is nearly `N = -soft(x) / 2`, a contraction on what is not measured."""
    model = Unrolled(ISTANetPlus(copies=2, n_stages=1, seed=1), GIN(1), repeats).double().eval()
    weights = {name.split(".")[-1]: p for name, p in model.host.named_parameters()}
    sign = torch.tensor([1.0, -1.0], dtype=torch.float64).repeat(16)  # both halves pass the rectifiers
    with torch.no_grad():
        for parameter in weights.values():
            parameter.mul_(0.05)
        weights["threshold"].fill_(0.01)
        weights["conv_d"][:, 0, 1, 1] += sign
        weights["conv_d"][:, 1, 1, 1] = 0.02 * sign
        for name in ("forward_1", "forward_2", "backward_1", "backward_2"):
            weights[name][:, :, 1, 1] += torch.eye(32, dtype=torch.float64)
        weights["conv_g"][0, :, 1, 1] -= sign / 32
    return model


def problem() -> tuple[torch.Tensor, torch.nn.Module, torch.Tensor]:
    phi = orthonormal_matrix(30, SIDE**2, seed=2).double()
    operator = Dense(phi) @ Flatten((SIDE, SIDE))
    image = torch.rand(2, SIDE, SIDE, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    return operator(image), operator, image


def test_it_is_where_many_equal_stages_lead_and_so_is_its_gradient() -> None:
    measurements, operator, image = problem()
    answers, gradients = [], []
    for model in (informed(MANY), informed()):
        if model.repeats == 1:
            equilibrium = EquilibriumStage(model)
            equilibrium.solver.tol = equilibrium.solver.backward_tol = 1e-12
            equilibrium.solver.max_steps = equilibrium.solver.backward_max_steps = 200
            solution = equilibrium(measurements, operator)
            assert solution.converged.all() and bool(torch.isnan(solution.error_bound).all())
            answers.append(solution.value)
        else:
            answers.append(model(measurements, operator))
        loss = (answers[-1] - image).square().sum()
        gradients.append(torch.autograd.grad(loss, list(model.host.parameters())))
    torch.testing.assert_close(answers[1], answers[0], rtol=0, atol=1e-9)
    for ours, unrolled in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, unrolled, rtol=1e-6, atol=1e-8)


def test_errors() -> None:
    with pytest.raises(ValueError, match="model of 9 stages, expected 1"):
        EquilibriumStage(assemble("ista-net-plus", "gin"))
    with pytest.raises(ValueError, match="repeats 0"):
        Unrolled(ISTANetPlus(n_stages=1), GIN(1), 0)
    measurements, operator, _ = problem()
    with pytest.raises(FloatingPointError, match="no finite value"):
        EquilibriumStage(informed())(measurements * torch.nan, operator)

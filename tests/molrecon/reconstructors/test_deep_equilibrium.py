"""Deep equilibrium models: a fixed point where there is one, its gradient, and an honest report where there is none."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from molrecon.networks import PlainNetwork
from molrecon.reconstructors.conditioning import Conditioning
from molrecon.reconstructors.deep_equilibrium import DeepEquilibrium, Step
from molrecon.reconstructors.mol import MOL
from molrecon.solvers.solution import Iterate, Solution
from molrecon.solvers.solver_settings import SolverSettings
from operators import Sense
from tests.small_problem import assert_gradients, make_problem, shrinkage, small_network, tikhonov

STEPS: tuple[Step, ...] = ("gradient", "proximal")


def build(step: Step, network: PlainNetwork | None = None, tol: float = 1e-12) -> DeepEquilibrium:
    model = DeepEquilibrium(small_network() if network is None else network, step=step, data_weight=5.0).double()
    model.solver = SolverSettings(tol=tol, max_steps=200, backward_tol=tol, backward_max_steps=200)
    return model


def stage(model: DeepEquilibrium, x: Tensor, kspace: Tensor, operator: Sense, conditioning: Conditioning) -> Tensor:
    """Return f(x) as its definition says, in the units of the network."""
    denoise = conditioning.denoiser(model.network)
    weight = model.data_weight(conditioning.noise_level)[:, None, None]
    gradient = weight * operator.adjoint(operator(x) - kspace / conditioning.scale[:, None, None, None])
    eta = 1 / (1 + weight)
    if model.step == "gradient":
        return x - eta * (gradient + x - denoise(x))
    return denoise(x - eta * gradient)


def expansive() -> PlainNetwork:
    """Return `H(x) = 3 x` as far as its borders let it."""
    network = PlainNetwork(monotonicity=0.3, layers=2, features=4).double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        for channel in range(2):
            for sign in range(2):
                unit = 2 * channel + sign
                network.convolutions[0].weight[unit, channel, 1, 1] = 1 - 2 * sign  # type: ignore[operator]
                network.convolutions[1].weight[channel, unit, 1, 1] = 3 * (1 - 2 * sign)  # type: ignore[operator]
    return network


@pytest.mark.parametrize("step", STEPS)
def test_fixed_point(step: Step) -> None:
    kspace, operator, conditioning = make_problem()
    model = build(step)
    with torch.no_grad():
        solution = model(kspace, operator, conditioning=conditioning)
        x = solution.value / 2
        residual = float((stage(model, x, kspace, operator, conditioning) - x).norm() / x.norm())
        again = model(kspace, operator, conditioning=conditioning, start=solution.value)
    assert residual < 2e-12
    assert solution.converged.all()
    assert solution.kind == "none" and bool(solution.error_bound.isnan().all())
    assert solution.residuals.shape == (int(solution.n_steps) + 1, 1)
    assert float(solution.residuals[-1]) == pytest.approx(residual, abs=1e-12)
    assert int(again.n_steps) == 0


@pytest.mark.parametrize("step", STEPS)
def test_gradient_is_that_of_many_stages(step: Step) -> None:
    kspace, operator, conditioning = make_problem()
    model = build(step)
    model(kspace, operator, conditioning=conditioning).value.abs().square().sum().backward()
    grads = [p.grad for p in model.parameters()]
    x = operator.adjoint(kspace) / 2
    for _ in range(150):
        x = stage(model, x, kspace, operator, conditioning)
    expected = torch.autograd.grad((2 * x).abs().square().sum(), list(model.parameters()))
    torch.testing.assert_close(grads, list(expected), rtol=1e-7, atol=1e-9)
    model.zero_grad()
    assert_gradients(
        model, lambda b: model(b, operator, conditioning=conditioning).value.abs().square().sum(), kspace, operator
    )


def test_gradient_steps_find_the_equilibrium_of_mol() -> None:
    kspace, operator, conditioning = make_problem()
    model = build("gradient")
    monotone = MOL(model.network, data_weight=5.0).double().eval()
    monotone.solver = replace(monotone.solver, tol=1e-11)
    with torch.no_grad():
        value = model(kspace, operator, conditioning=conditioning).value
        torch.testing.assert_close(
            value, monotone(kspace, operator, conditioning=conditioning).value, rtol=1e-9, atol=1e-9
        )


def test_proximal_steps_find_the_classical_solution() -> None:
    kspace, operator, conditioning = make_problem()
    model = build("proximal", shrinkage())
    with torch.no_grad():
        weight = model.data_weight(conditioning.noise_level)
        expected = tikhonov(kspace, operator, 0.7 / 0.3 * weight / (1 + weight))
        value = model(kspace, operator, conditioning=conditioning).value
    torch.testing.assert_close(value, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("step", STEPS)
def test_samples_do_not_see_each_other(step: Step) -> None:
    kspace, operator, conditioning = make_problem()
    model = build(step, tol=1e-6)
    two = Conditioning(
        conditioning.scale.repeat(2), torch.tensor([0.02, 0.001]).double(), conditioning.phase.repeat(2, 1, 1)
    )
    alone = replace(conditioning, noise_level=two.noise_level[1:])
    with torch.no_grad():
        together = model(torch.cat([kspace, 3 * kspace]), operator, conditioning=two)
        second = model(3 * kspace, operator, conditioning=alone)
    assert together.n_steps[1] == second.n_steps[0]
    torch.testing.assert_close(together.value[1:], second.value, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("step", STEPS)
def test_no_convergence_is_reported_and_training_goes_on(step: Step, caplog: pytest.LogCaptureFixture) -> None:
    kspace, operator, conditioning = make_problem()
    model = build(step, expansive())
    model.solver = replace(model.solver, window=0, max_steps=20, backward_max_steps=10)
    reports: list[Solution] = []
    settings = replace(model.solver, on_backward=reports.append)
    solution = model(kspace, operator, conditioning=conditioning, solver=settings)
    assert not solution.converged.any()
    assert "1 of 1 samples did not converge" in solution.shortfall()
    solution.value.abs().sum().backward()
    assert not reports[0].converged.any()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in model.parameters())
    with caplog.at_level(logging.WARNING):
        model(kspace, operator, conditioning=conditioning).value.abs().sum().backward()
    assert "DeepEquilibrium: the gradient's linear system" in caplog.text


def test_errors() -> None:
    kspace, operator, conditioning = make_problem()
    with pytest.raises(ValueError, match=r"DeepEquilibrium: got step 'newton' and data_weight 10\.0"):
        DeepEquilibrium(small_network(), step="newton")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"data_weight 0\.0"):
        DeepEquilibrium(small_network(), data_weight=0.0)
    model = build("gradient")
    with pytest.raises(TypeError, match=r"DeepEquilibrium: kspace has dtype torch\.float64"):
        model(kspace.real, operator, conditioning=conditioning)
    with pytest.raises(ValueError, match="DeepEquilibrium: kspace holds NaN"):
        model(kspace * torch.nan, operator, conditioning=conditioning)
    with torch.no_grad():
        next(model.network.parameters()).fill_(torch.nan)
    with pytest.raises(FloatingPointError, match="DeepEquilibrium: the network has no finite value"):
        model(kspace, operator, conditioning=conditioning)


def test_every_iterate_is_reported_in_the_units_of_the_data() -> None:
    kspace, operator, conditioning = make_problem()
    model = build("gradient")
    iterates: list[Iterate] = []
    with torch.no_grad():
        solution = model(
            kspace, operator, conditioning=conditioning, solver=replace(model.solver, on_step=iterates.append)
        )
    torch.testing.assert_close(torch.stack([iterate.residual for iterate in iterates]), solution.residuals)
    torch.testing.assert_close(iterates[0].value, operator.adjoint(kspace))


def test_the_last_residual_is_in_the_units_of_the_image() -> None:
    kspace, operator, conditioning = make_problem()
    model = build("gradient")
    with torch.no_grad():
        solution = model(kspace, operator, conditioning=conditioning, solver=replace(model.solver, keep_residual=True))
    assert solution.last_residual is not None
    lengths = [torch.linalg.vector_norm(x.flatten(1), dim=1) for x in (solution.last_residual, solution.value)]
    torch.testing.assert_close(lengths[0] / lengths[1], solution.residuals.amin(0), rtol=1e-3, atol=0)

"""The equilibrium reconstructor: known answers, bounds that bound, exact gradients, and what it says about itself."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from molrecon.networks import Denoiser, ResidualNetwork
from molrecon.reconstructors.conditioning import Conditioning, smooth_phase
from molrecon.reconstructors.mol import MOL
from molrecon.solvers.batched import per_sample
from molrecon.solvers.solution import Solution
from molrecon.solvers.solver_settings import SolverSettings
from molrecon.weights.published import load_published_mol
from operators import LinearOperator, NonCartesianSense, Sense, radial_trajectory, random_mask

DATA = os.environ.get("MOLRECON_DATA")


class ZeroNetwork(Denoiser):
    """H = 0: the equilibrium is the Tikhonov solution."""

    monotonicity = 1.0
    strict = True
    ndim = 2

    def lipschitz_bound(self) -> float:
        return 0.0

    def denoiser(self, noise_level: Tensor, guide: Tensor | None = None) -> Callable[[Tensor], Tensor]:
        return torch.zeros_like


def make_problem(shape: tuple[int, int] = (24, 20), batch: int = 2, seed: int = 0) -> tuple[Tensor, Sense, Tensor]:
    """Return k-space, operator and image of smooth blobs seen by four coils, complex128."""
    generator = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(*[torch.linspace(-1, 1, n, dtype=torch.float64) for n in shape], indexing="ij")
    coils = [
        torch.exp(-((y - a) ** 2 + (x - b) ** 2) + 1j * (a * x - b * y)) for a, b in ((-1, 0), (1, 0), (0, 1), (0, -1))
    ]
    maps = torch.stack(coils) / torch.stack(coils).abs().square().sum(0).sqrt()
    image = torch.stack([torch.exp(-3 * ((y - 0.2 * i) ** 2 + x**2)) * torch.exp(1j * x) for i in range(batch)])
    image = image + 0.3 * (y.abs() < 0.3)
    mask = torch.from_numpy(random_mask(shape[1], 3, 0.2, 1))[None, None]
    operator = Sense(maps[None].expand(batch, -1, -1, -1), mask)
    noise = torch.randn(batch, 4, *shape, dtype=torch.complex128, generator=generator)
    return operator.sampling(operator(image) + 0.01 * noise), operator, image


def make_model(*, monotonicity: float = 0.1, seed: int = 0) -> MOL:
    """Return a small double precision model in evaluation mode, with filters that differ from the initial ones."""
    network = ResidualNetwork(monotonicity=monotonicity, channels=3, features=8, levels=2, cycles=2, seed=seed)
    with torch.no_grad():
        generator = torch.Generator().manual_seed(seed)
        network.weight.add_(0.05 * torch.randn(network.weight.shape, generator=generator))
        network.bias.add_(0.01 * torch.randn(network.bias.shape, generator=generator))
    model = MOL(network, data_weight=20.0).double().eval()
    model.solver = replace(model.solver, tol=1e-9)
    return model


def norms(x: Tensor) -> Tensor:
    return torch.linalg.vector_norm(x.flatten(1), dim=1)


def test_zero_score_gives_the_tikhonov_solution() -> None:
    kspace, operator, image = make_problem(shape=(6, 8), batch=1)
    model = MOL(ZeroNetwork(), data_weight=7.0).double()
    model.solver = replace(model.solver, tol=1e-12)
    conditioning = Conditioning(torch.ones(1).double(), torch.full((1,), 0.01).double(), torch.ones_like(image))
    solution = model(kspace, operator, conditioning=conditioning)
    basis = torch.eye(48, dtype=torch.complex128).reshape(48, 6, 8)
    columns = [operator.normal(e[None]).flatten() for e in basis]
    weight = model.data_weight(conditioning.noise_level).detach()
    matrix = torch.eye(48) + weight * torch.stack(columns, dim=1)
    expected = torch.linalg.solve(matrix, weight * operator.adjoint(kspace).flatten())
    torch.testing.assert_close(solution.value.flatten(), expected, rtol=1e-9, atol=1e-9)


@torch.no_grad()
@pytest.mark.parametrize("window", [0, 5])
def test_one_equilibrium_from_five_starts_within_the_bounds(window: int) -> None:
    kspace, operator, image = make_problem()
    model = make_model()
    model.solver = replace(model.solver, window=window, tol=1e-5, max_steps=400)
    noise = torch.randn(image.shape, dtype=image.dtype, generator=torch.Generator().manual_seed(5))
    starts = [None, torch.zeros_like(image), noise, image.flip(0), 1e3 * noise]
    solutions = [model(kspace, operator, noise_level=0.01, start=start) for start in starts]
    for solution in solutions:
        assert solution.converged.all()
        allowed = solution.error_bound * norms(solution.value) + solutions[0].error_bound * norms(solutions[0].value)
        assert (norms(solution.value - solutions[0].value) <= allowed).all()


@torch.no_grad()
@pytest.mark.parametrize("relaxation", [0.3, 1.0, 1.3, 3.0, 100.0])
def test_one_equilibrium_at_any_relaxation(relaxation: float) -> None:
    kspace, operator, _ = make_problem()
    model = make_model()
    truth = model(kspace, operator, noise_level=0.01).value
    relaxed = replace(model.solver, relaxation=relaxation, tol=1e-5, max_steps=400)
    solution = model(kspace, operator, noise_level=0.01, solver=relaxed)
    assert solution.converged.all() and solution.kind == "certified"
    # Trial steps may be as long as they like: what they reach passes the safeguard, and the bound is of the residual.
    assert (norms(solution.value - truth) <= 1.0001 * solution.error_bound * norms(solution.value)).all()


def test_a_relaxation_is_positive() -> None:
    with pytest.raises(ValueError, match="relaxation is 0"):
        SolverSettings(relaxation=0.0)


@torch.no_grad()
def test_the_bound_bounds_and_falls_at_the_promised_rate_without_acceleration() -> None:
    kspace, operator, _ = make_problem()
    model = make_model()
    conditioning = model.condition(kspace, operator, 0.01)
    truth = model(kspace, operator, conditioning=conditioning).value
    model.solver = replace(model.solver, window=0)
    m = model.network.monotonicity
    rate = (1 - m) * (1 + m / 4) + m / 4
    for steps in (1, 3, 10):
        model.solver = replace(model.solver, max_steps=steps)
        solution = model(kspace, operator, conditioning=conditioning)
        error = norms(solution.value - truth)
        assert (error <= solution.error_bound * norms(solution.value) * (1 + 1e-6)).all()
    model.solver = replace(model.solver, max_steps=60, tol=1e-8)
    absolute = model(kspace, operator, conditioning=conditioning).residuals
    # The history is relative to the size of the iterate, which settles after some steps.
    assert (absolute[11:] <= absolute[10:-1] * rate * 1.01).all()


@torch.no_grad()
def test_data_perturbations_stay_within_the_robustness_bound() -> None:
    kspace, operator, _ = make_problem()
    model = make_model()
    conditioning = model.condition(kspace, operator, 0.01)
    base = model(kspace, operator, conditioning=conditioning).value
    weight = model.data_weight(conditioning.noise_level)
    limit = model.certificate().robustness * weight.sqrt()
    generator = torch.Generator().manual_seed(2)
    for size in (1e-3, 0.1, 3.0):
        change = operator.sampling(torch.randn(kspace.shape, dtype=kspace.dtype, generator=generator)) * size
        moved = model(kspace + change, operator, conditioning=conditioning).value
        assert (norms(moved - base) <= limit * norms(change) * (1 + 1e-6)).all()
        other = weight / model.network.monotonicity * norms(operator.adjoint(change))
        assert (norms(moved - base) <= other * (1 + 1e-6)).all()


def _loss(value: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(9)
    weights = torch.randn(value.shape, dtype=value.dtype, generator=generator)
    return (value * weights.conj()).real.sum() + value.abs().square().sum()


def test_implicit_gradients_match_finite_differences() -> None:
    kspace, operator, _ = make_problem(shape=(12, 10), batch=1)
    model = make_model(monotonicity=0.3)
    model.solver = replace(model.solver, tol=1e-11, backward_tol=1e-11)
    conditioning = model.condition(kspace, operator, 0.01)
    maps = operator.sensitivity_maps.clone().requires_grad_()
    kspace = kspace.clone().requires_grad_()
    reports: list[Solution] = []

    def loss(k: Tensor, s: Tensor) -> Tensor:
        settings = replace(model.solver, on_backward=reports.append)
        solution = model(k, Sense(s, operator.sampling_mask), conditioning=conditioning, solver=settings)
        return _loss(solution.value)

    loss(kspace, maps).backward()
    assert reports[0].converged.all()
    generator = torch.Generator().manual_seed(3)
    parameters = dict(model.named_parameters())
    step = 1e-6
    for name in ("kspace", "maps", "log_data_weight", "network.weight", "network.log_threshold", "network.bias"):
        tensor = {"kspace": kspace, "maps": maps, **parameters}[name]
        direction = torch.randn(tensor.shape, dtype=tensor.dtype, generator=generator)
        with torch.no_grad():
            original = tensor.clone()
            values = []
            for sign in (1, -1):
                tensor.copy_(original + sign * step * direction)
                values.append(float(loss(kspace, maps)))
            tensor.copy_(original)
        assert tensor.grad is not None
        exact = float((tensor.grad.conj() * direction).real.sum())
        assert math.isclose((values[0] - values[1]) / (2 * step), exact, rel_tol=2e-5, abs_tol=1e-7), name


def test_a_gradient_that_misses_its_tolerance_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    kspace, operator, _ = make_problem(shape=(12, 10), batch=2)
    model = make_model()
    model.solver = replace(model.solver, tol=1e-4, backward_tol=1e-10, backward_max_steps=2)
    solution = model(kspace, operator, noise_level=0.01)
    assert solution.converged.all()
    with caplog.at_level(logging.WARNING):
        solution.value.abs().square().sum().backward()
    assert "MOL: the gradient's linear system: 2 of 2 samples did not converge" in caplog.text


@torch.no_grad()
def test_equivariant_to_intensity_and_to_a_constant_phase() -> None:
    kspace, operator, _ = make_problem()
    model = make_model()
    model.solver = replace(model.solver, tol=1e-8)
    base = model(kspace, operator, noise_level=0.01).value
    louder = model(250 * kspace, operator, noise_level=2.5).value
    torch.testing.assert_close(louder, 250 * base, rtol=1e-5, atol=1e-4)
    turn = torch.exp(torch.tensor(1j * 1.3, dtype=kspace.dtype))
    turned = model(turn * kspace, operator, noise_level=0.01).value
    torch.testing.assert_close(turned, turn * base, rtol=1e-6, atol=1e-6)


@torch.no_grad()
def test_noise_level_is_estimated_when_it_is_not_given() -> None:
    generator = torch.Generator().manual_seed(1)
    kspace, operator, _ = make_problem(shape=(64, 64), batch=1)
    kspace = kspace + operator.sampling(0.05 * torch.randn(kspace.shape, dtype=kspace.dtype, generator=generator))
    model = make_model()
    given = model.condition(kspace, operator, 0.051)
    found = model.condition(kspace, operator)
    assert found.noise_level.item() == pytest.approx(given.noise_level.item(), rel=0.15)


@torch.no_grad()
def test_empty_slice_is_zero_and_leaves_its_neighbour_alone() -> None:
    kspace, operator, _ = make_problem()
    model = make_model()
    model.solver = replace(model.solver, tol=1e-8)
    both = model(kspace, operator, noise_level=0.01)
    kspace = kspace.clone()
    kspace[1] = 0
    mixed = model(kspace, operator, noise_level=0.01)
    torch.testing.assert_close(mixed.value[0], both.value[0], rtol=1e-6, atol=1e-7)
    assert torch.isfinite(torch.view_as_real(mixed.value)).all()


@torch.no_grad()
def test_single_precision_reaches_bounds_below_its_rounding_of_the_data_term() -> None:
    kspace, operator, _ = make_problem()
    model = make_model().float()
    model.solver = replace(model.solver, tol=1e-5)
    operator = Sense(operator.sensitivity_maps.to(torch.complex64), operator.sampling_mask)
    solution = model(kspace.to(torch.complex64), operator, noise_level=0.001)
    assert solution.value.dtype == torch.complex64
    assert solution.converged.all()


@torch.no_grad()
def test_what_single_precision_cannot_reach_is_said_and_double_reaches_it() -> None:
    kspace, operator, _ = make_problem(batch=1)
    kspace, operator = (
        kspace.to(torch.complex64),
        Sense(operator.sensitivity_maps.to(torch.complex64), operator.sampling_mask),
    )
    model = make_model(monotonicity=0.02).float()
    model.solver = replace(model.solver, tol=1e-7)
    bounds = []
    for refine in (False, True):
        model.solver = replace(model.solver, refine=refine)
        solution = model(kspace, operator, noise_level=1e-3)
        assert solution.stalled is not None and solution.stalled.all() and not solution.converged.any()
        assert "attainable in this precision" in solution.shortfall()
        bounds.append(float(solution.error_bound))
    # The rounding of the data term, which grows with lambda, against that of the network alone.
    assert bounds[1] < 5e-5 < bounds[0]
    exact = model.double()(kspace, operator, noise_level=1e-3)
    assert exact.value.dtype == torch.complex128
    assert exact.converged.all()
    assert norms(exact.value - solution.value) <= (1e-7 + bounds[1]) * norms(exact.value)


def _blob(shape: tuple[int, ...]) -> Tensor:
    axes = torch.meshgrid(*[torch.linspace(-1, 1, n, dtype=torch.float64) for n in shape], indexing="ij")
    distance = torch.stack([(x - 0.1) ** 2 for x in axes]).sum(0)
    return (torch.exp(-3 * distance) * torch.exp(0.5j * axes[-1]))[None]


def _volume(fourier_ndim: int) -> tuple[LinearOperator, Tensor]:
    maps = torch.stack([_blob((6, 8, 10)), _blob((6, 8, 10)).flip(-1)], dim=1)
    mask = torch.from_numpy(random_mask(10, 2, 0.4, 1))[None, None, None]
    return Sense(maps, mask, fourier_ndim), _blob((6, 8, 10))


def _radial() -> tuple[LinearOperator, Tensor]:
    maps = torch.stack([_blob((16, 16)), _blob((16, 16)).flip(-1)], dim=1)
    return NonCartesianSense(maps, radial_trajectory(12, 32, 16)), _blob((16, 16))


@torch.no_grad()
@pytest.mark.parametrize("case", ["3D", "2D+time", "radial"])
def test_any_number_of_axes_and_any_operator(case: str) -> None:
    operator, image = _radial() if case == "radial" else _volume(3 if case == "3D" else 2)
    ndim = image.ndim - 1
    model = (
        MOL(ResidualNetwork(monotonicity=0.1, channels=2, features=4, levels=2, cycles=1, ndim=ndim)).double().eval()
    )
    model.solver = replace(model.solver, tol=1e-6)
    kspace = 40 * operator(image)
    conditioning = model.condition(kspace, operator, 0.4)
    assert 0.4 < float(conditioning.scale) / 40 < 1.3  # the intensity of the image, whatever the norm of A
    noise = torch.randn(image.shape, dtype=image.dtype, generator=torch.Generator().manual_seed(0))
    first, second = (model(kspace, operator, conditioning=conditioning, start=start) for start in (None, noise))
    assert first.converged.all() and second.converged.all()
    assert norms(first.value - second.value) <= 2e-6 * norms(first.value)
    other = MOL(ResidualNetwork(levels=2, cycles=1, ndim=5 - ndim)).double().eval()
    with pytest.raises(ValueError, match=rf"expected {5 - ndim} spatial axes"):
        other(kspace, operator, conditioning=conditioning)


def test_certificate_is_certified_and_follows_the_network() -> None:
    found = make_model(monotonicity=0.1).certificate()
    assert found.kind == "certified"
    assert found.lipschitz <= 0.9 * (1 + 1e-9)
    assert found.robustness == pytest.approx(0.5 / math.sqrt(found.monotonicity))


def test_bad_input_is_refused() -> None:
    kspace, operator, _ = make_problem()
    model = make_model()
    with pytest.raises(TypeError, match="complex"):
        model(kspace.real, operator)
    kspace = kspace.clone()
    kspace[0, 0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match="NaN"):
        model(kspace, operator, noise_level=0.01)
    with pytest.raises(ValueError, match="data_weight"):
        MOL(ZeroNetwork(), data_weight=0.0)


def test_smooth_phase_has_unit_magnitude_and_follows_a_smooth_phase() -> None:
    y, x = torch.meshgrid(torch.linspace(-1, 1, 64), torch.linspace(-1, 1, 48), indexing="ij")
    image = (torch.exp(-2 * (x**2 + y**2)) * torch.exp(1j * (x + 0.5 * y)))[None]
    phase = smooth_phase(image)
    torch.testing.assert_close(phase.abs(), torch.ones_like(phase.abs()))
    assert (image * phase.conj()).angle()[0, 16:48, 12:36].abs().max() < 0.2


@pytest.mark.skipif(DATA is None, reason="MOLRECON_DATA is not set: the published weights and SIAT slices are not here")
@torch.no_grad()
def test_published_weights_reach_their_fixed_point_and_are_not_certified() -> None:
    folder = Path(str(DATA))
    model = load_published_mol(folder / "published" / "mol" / "mol.pth.tar").double()
    stored = np.load(folder / "mri" / "siat200_256_reim_i16.npz")["x"][175, :, 96:160, 96:160] / 32767
    image = torch.from_numpy(stored[0] + 1j * stored[1])[None]
    image = image / image.abs().max()
    _, operator, _ = make_problem(shape=(64, 64), batch=1)
    kspace = operator(image)
    conditioning = Conditioning(torch.ones(1).double(), torch.full((1,), 0.01).double(), torch.ones_like(image))
    model.solver = replace(model.solver, tol=1e-6)
    first = model(kspace, operator, conditioning=conditioning)
    second = model(kspace, operator, conditioning=replace(conditioning), start=torch.zeros_like(image))
    assert first.converged.all()
    assert norms(first.value - second.value) <= 2e-6 * norms(first.value)
    assert model.certificate().kind == "estimated"


def test_double_precision_data_meet_a_single_precision_model() -> None:
    kspace, operator, _ = make_problem(batch=1)
    model = make_model().float()
    model.solver = replace(model.solver, tol=1e-3)
    data = kspace.requires_grad_()
    solution = model(data, operator)
    assert solution.converged.all()
    solution.value.abs().square().sum().backward()
    assert data.grad is not None
    assert data.grad.dtype == torch.complex128


@torch.no_grad()
def test_an_empty_scan_converges_without_refinement() -> None:
    kspace, operator, _ = make_problem(batch=1)
    model = make_model()
    model.solver = replace(model.solver, refine=False)
    solution = model(torch.zeros_like(kspace), operator, 0.01)
    assert solution.converged.all()


def test_stages_are_the_iterates_of_the_call_with_their_bounds() -> None:
    kspace, operator, _ = make_problem(batch=1)
    model = make_model(monotonicity=0.3)
    solver = replace(model.solver, tol=1e-5)
    stages = model.stages(kspace, operator, 0.01, solver=solver)
    with torch.no_grad():
        solution = model(kspace, operator, 0.01, solver=solver)
    assert [stage.step for stage in stages] == list(range(int(solution.n_steps.max()) + 1))
    torch.testing.assert_close(torch.stack([stage.residual for stage in stages]), solution.residuals, rtol=0, atol=0)
    torch.testing.assert_close(stages[-1].value, solution.value)
    for stage in stages:  # in the units of the data, each within its own bound of the equilibrium
        error = norms(stage.value - solution.value) / norms(stage.value)
        assert (error <= stage.residual + 2 * solution.error_bound).all()
    assert model.solver.on_step is None


def test_the_last_residual_is_that_of_the_equation_in_the_units_of_the_image() -> None:
    kspace, operator, _ = make_problem(batch=2)
    model = make_model(monotonicity=0.3)
    solver = replace(model.solver, tol=1e-4, keep_residual=True)
    with torch.no_grad():
        conditioning = model.condition(kspace, operator, 0.01)
        solution = model(kspace, operator, conditioning=conditioning, solver=solver)
        left, x = solution.last_residual, solution.value
        assert left is not None
        weight = per_sample(model.data_weight(conditioning.noise_level), x)
        scale = per_sample(conditioning.scale, x)
        denoised = scale * conditioning.denoiser(model.network)(x / scale)
        expected = denoised + weight * (operator.adjoint(kspace) - operator.normal(x)) - x
    torch.testing.assert_close(left, expected, rtol=0, atol=1e-7 * float(x.abs().amax()))
    assert (norms(left) <= 0.3 * solution.error_bound * norms(x) * (1 + 1e-6)).all()
    assert not left.requires_grad and model(kspace, operator, conditioning=conditioning).last_residual is None


def test_the_callers_mask_and_autocast_change_nothing() -> None:
    kspace, operator, _ = make_problem()
    mask = operator.sampling_mask.clone()
    model, own = make_model(), Sense(operator.sensitivity_maps, mask)
    solution = model(kspace, operator, 0.01)
    mask.logical_not_()
    torch.testing.assert_close(model(kspace, own, 0.01).value, solution.value)
    single, narrow = model.float(), (kspace.to(torch.complex64), operator.on(dtype=torch.complex64))
    settings = SolverSettings(tol=1e-4)
    expected = single(*narrow, 0.01, solver=settings).value
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(single(*narrow, 0.01, solver=settings).value, expected)


def test_a_phase_has_modulus_one() -> None:
    kspace, operator, _ = make_problem()
    model = make_model()
    found = model.condition(kspace, operator, 0.01)
    for wrong in (1.05, float("nan")):
        with pytest.raises(ValueError, match="phase that is not of modulus 1"):
            model(kspace, operator, conditioning=replace(found, phase=wrong * found.phase))


def test_no_data_have_no_image_in_any_units() -> None:
    kspace, operator, _ = make_problem()
    kspace = 1e-7 * kspace * torch.tensor([1.0, 0.0])[:, None, None, None]
    value = make_model()(kspace, operator, 1e-9).value.detach().abs().amax((1, 2))
    assert float(value[1]) < 1e-10 * float(value[0])

"""One call for every method: what it checks, what it promises, and that it leaves the caller's things alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from molrecon.networks import ResidualNetwork, UNet
from molrecon.reconstructors.admm_net import ADMMNet
from molrecon.reconstructors.base import Reconstructor, evaluating
from molrecon.reconstructors.classical import CGSense, L1Wavelet, ZeroFilled
from molrecon.reconstructors.deep_equilibrium import DeepEquilibrium
from molrecon.reconstructors.modl import MoDL
from molrecon.reconstructors.mol import MOL
from molrecon.reconstructors.post_processing import PostProcessing
from molrecon.reconstructors.varnet import VarNet
from molrecon.scans.reconstruction import on_device
from molrecon.solvers.solution import Solution, unbounded_solution
from molrecon.solvers.solver_settings import SolverSettings
from operators import LinearOperator, Sense
from tests.small_problem import make_problem, small_network


def strict() -> MOL:
    return MOL(ResidualNetwork(monotonicity=0.2, channels=2, features=4, levels=1, cycles=1))


class Own(Reconstructor):
    """What somebody else might write."""

    def _solve(self, kspace: Tensor, operator: LinearOperator, *unused: object) -> Solution:
        return unbounded_solution(operator.adjoint(kspace))


METHODS: dict[str, Callable[[], Reconstructor]] = {
    "zero-filled": ZeroFilled,
    "cg-sense": CGSense,
    "l1-wavelet": lambda: L1Wavelet(max_steps=3),
    "mol": strict,
    "mol-penalised": lambda: MOL(small_network().float()),
    "de-grad": lambda: DeepEquilibrium(small_network().float()),
    "de-prox": lambda: DeepEquilibrium(small_network().float(), step="proximal"),
    "modl": lambda: MoDL(small_network().float(), n_unrolls=2),
    "admm-net": lambda: ADMMNet(small_network().float(), n_unrolls=2),
    "varnet": lambda: VarNet(small_network().float(), n_unrolls=2),
    "unet": lambda: PostProcessing(UNet(channels=(3, 4))),
    "own": Own,
}
KINDS = dict.fromkeys(METHODS, "none") | {"cg-sense": "certified", "mol": "certified", "mol-penalised": "estimated"}


def problem(dtype: torch.dtype = torch.complex64) -> tuple[Tensor, Sense]:
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(1, 4, 32, 32, dtype=torch.complex128, generator=generator)
    maps = maps / torch.linalg.vector_norm(maps, dim=1, keepdim=True)
    operator = Sense(maps.to(dtype), (torch.arange(32) % 2 == 0).view(1, 1, 32))
    image = torch.randn(2, 32, 32, dtype=torch.complex128, generator=generator).to(dtype)
    return operator(image), operator


@pytest.mark.parametrize("name", METHODS)
@torch.no_grad()
def test_every_method_has_the_call_and_says_what_its_bound_rests_on(name: str) -> None:
    model = METHODS[name]().eval()
    kspace, operator = problem()
    solution = model(kspace, operator, 0.01)
    assert isinstance(solution, Solution) and solution.value.shape == (2, 32, 32)
    assert solution.kind == model.certificate().kind == KINDS[name]
    assert (
        bool(solution.error_bound.isnan().all())
        == bool(solution.error_bound.isnan().any())
        == (solution.kind == "none")
    )
    for report in (solution.error_bound, solution.converged, solution.n_steps):
        assert report.shape == (2,)
    conditioning = model.condition(kspace, operator, 0.01)
    again = model(kspace, operator, conditioning=conditioning, start=solution.value)
    difference = torch.linalg.vector_norm(again.value - solution.value) / torch.linalg.vector_norm(solution.value)
    assert float(difference) <= (3e-3 if name.startswith(("cg", "de", "mol")) else 1e-6)


@pytest.mark.parametrize("name", METHODS)
def test_bad_data_are_refused_by_every_method(name: str) -> None:
    model = METHODS[name]().eval()
    kspace, operator = problem()
    for value in (torch.nan, torch.inf):
        bad = kspace.clone()
        bad[0, 0, 0, 0] = value
        with pytest.raises(ValueError, match="kspace holds NaN or infinite values"):
            model(bad, operator, 0.01)
    with pytest.raises(TypeError, match=r"kspace has dtype torch\.float32, expected a complex dtype"):
        model(kspace.real, operator, 0.01)
    with pytest.raises(TypeError, match=r"kspace is ndarray.*torch\.from_numpy"):
        model(kspace.numpy(), operator, 0.01)
    for level in (-1.0, float("nan"), torch.tensor([0.1, 0.2, 0.3])):
        with pytest.raises(ValueError, match="noise_level"):
            model(kspace, operator, level)
    with pytest.raises(ValueError, match="expected 2 complex images of finite numbers"):
        model(kspace, operator, 0.01, start=torch.full((2, 32, 32), torch.nan, dtype=torch.complex64))


@pytest.mark.parametrize("name", METHODS)
@torch.no_grad()
def test_double_precision_data_and_conjugated_views_go_through(name: str) -> None:
    model = METHODS[name]().eval()
    kspace, operator = problem()
    plain = model(kspace, operator, 0.01).value
    wide, wide_operator = problem(torch.complex128)
    atol = 2e-3 * float(plain.abs().max())
    for data, A in ((wide, wide_operator), (wide, operator), (kspace, wide_operator)):
        torch.testing.assert_close(model(data, A, 0.01).value.to(plain.dtype), plain, rtol=0, atol=atol)
    view = kspace.conj().resolve_conj().conj()
    assert view.is_conj()
    torch.testing.assert_close(model(view, operator, 0.01).value, plain, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", [name for name in METHODS if KINDS[name] != "none"])
def test_nothing_is_certified_in_training(name: str) -> None:
    kspace, operator = problem()
    assert METHODS[name]().train()(kspace, operator, 0.01).kind == "estimated"


@pytest.mark.parametrize("name", ["mol", "modl", "de-grad", "unet"])
def test_a_conditioning_that_cannot_be_is_refused(name: str) -> None:
    model = METHODS[name]().eval()
    kspace, operator = problem()
    conditioning = model.condition(kspace, operator, 0.0)  # no noise at all is held at the least that is allowed
    assert conditioning is not None and bool((conditioning.noise_level > 0).all())
    assert model(kspace, operator, 0.0).value.isfinite().all()
    for wrong in (
        replace(conditioning, noise_level=torch.zeros(2)),
        replace(conditioning, noise_level=torch.ones(3)),
        replace(conditioning, scale=torch.tensor([1.0, torch.nan])),
        replace(conditioning, phase=conditioning.phase[:1]),
    ):
        with pytest.raises(ValueError, match="conditioning with"):
            model(kspace, operator, conditioning=wrong)


@pytest.mark.parametrize("name", ["modl", "varnet", "unet", "de-grad"])
def test_weights_that_are_not_finite_give_no_image(name: str) -> None:
    model = METHODS[name]().eval()
    first, _ = next(model.settings()["network"].named_parameters())
    with torch.no_grad():
        model.settings()["network"].get_parameter(first).fill_(torch.nan)
    kspace, operator = problem()
    with pytest.raises(FloatingPointError):
        model(kspace, operator, 0.01)


@pytest.mark.parametrize("name", [name for name in METHODS if METHODS[name]().solver is not None])
@torch.no_grad()
def test_solver_settings_are_those_of_the_call(name: str) -> None:
    model = METHODS[name]().eval()
    before = model.solver
    kspace, operator = problem()
    solution = model(kspace, operator, 0.01, solver=SolverSettings(tol=0.0, max_steps=2))
    assert solution.n_steps.tolist() == [2, 2] and not solution.converged.any()
    assert model.solver == before


def test_methods_without_an_iteration_refuse_solver_settings() -> None:
    kspace, operator = problem()
    with pytest.raises(ValueError, match="MoDL: got solver settings, expected none"):
        METHODS["modl"]()(kspace, operator, 0.01, solver=SolverSettings())
    with pytest.raises(ValueError, match="expected goals and limits of at least 0"):
        SolverSettings(tol=float("nan"))


def test_evaluation_gives_every_part_its_own_mode_back() -> None:
    model = strict().train()
    model.network.eval()
    with evaluating(model):
        assert not any(module.training for module in model.modules())
    assert model.training and not model.network.training


def test_a_model_stays_where_it_is() -> None:
    model = strict()
    assert on_device(model, "cpu") is model
    moved = on_device(model, "meta")
    assert moved is not model and next(moved.parameters()).is_meta and not next(model.parameters()).is_meta
    kspace, operator = problem()
    with pytest.raises(ValueError, match="kspace on cpu and weights on meta, expected one device"):
        moved(kspace, operator, 0.01)
    with pytest.raises(ValueError, match="kspace on cpu and operator on meta, expected one device"):
        model(kspace, operator.on("meta"), 0.01)
    with pytest.raises(ValueError, match=r"start \(2, 32, 31\), expected \(2, 32, 32\) as the images are"):
        model(kspace, operator, 0.01, start=torch.zeros(2, 32, 31, dtype=torch.complex64))


@torch.no_grad()
def test_bounds_of_changes_hold_and_are_those_of_the_method() -> None:
    kspace, operator, _ = make_problem()
    kspace = kspace.to(torch.complex64)
    change = operator.sampling(
        torch.randn(kspace.shape, dtype=kspace.dtype, generator=torch.Generator().manual_seed(1))
    )
    for name, build in METHODS.items():
        model = build().eval()
        if name == "l1-wavelet":
            continue
        conditioning = model.condition(kspace, operator, 0.01)
        bound = model.change_bound(conditioning, operator, change)
        assert (bound is None) == (name not in ("zero-filled", "cg-sense", "mol", "mol-penalised")), name
        if bound is not None and name != "mol-penalised":
            one, other = (model(b, operator, conditioning=conditioning).value for b in (kspace, kspace + change))
            assert float(torch.linalg.vector_norm(other - one)) <= float(bound) * (1 + 1e-3), name

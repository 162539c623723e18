"""A guide steers a network without limit, and leaves it 1 - m Lipschitz in what is iterated."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from molrecon.guarantees.checks import check_decrease, check_equilibrium
from molrecon.networks import PlainNetwork, ResidualNetwork
from molrecon.networks.tiling import Tiled
from molrecon.reconstructors.admm_net import ADMMNet
from molrecon.reconstructors.conditioning import Conditioning
from molrecon.reconstructors.guiding import GUIDE_CHANNELS, first_of_guide
from molrecon.reconstructors.mol import MOL
from molrecon.scans.memory import untiled
from molrecon.solvers.batched import norm
from molrecon.weights import load, save
from operators import Sense, principal_coils, random_mask

KINDS: dict[str, dict[str, Any]] = {
    "potential": {},
    "sll": {"layer": "sll"},
    "circular": {"padding": "circular"},
    "volumes": {"ndim": 3},
    "series": {"ndim": 3, "separable": True, "pyramid_axes": (1, 2)},
    "one level": {"levels": 1, "cycles": 1},
}
NOISE = torch.tensor([0.01])


def network(seed: int = 0, *, strength: float = 1.0, **more: Any) -> ResidualNetwork:
    """Return a small guided network with a guide that was not left at zero."""
    settings = {"monotonicity": 0.1, "channels": 3, "features": 4, "levels": 3, "cycles": 2, **more}
    denoiser = ResidualNetwork(guide_channels=GUIDE_CHANNELS, guide_width=4, seed=seed, **settings)
    assert denoiser.guide is not None
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in denoiser.guide.heads.parameters():
            parameter.copy_(strength * torch.randn(parameter.shape, generator=generator))
    return denoiser.eval()


def images(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def sizes(denoiser: ResidualNetwork) -> tuple[int, ...]:
    return (11, 14) if denoiser.ndim == 2 else (5, 11, 14)


@pytest.mark.parametrize("kind", KINDS)
def test_it_stays_within_its_bound_in_the_iterate_and_the_guide_matters(kind: str) -> None:
    denoiser = network(**KINDS[kind])
    assert denoiser.certified and denoiser.lipschitz_bound() <= 0.9 + 1e-9
    spatial = sizes(denoiser)
    guides = [images(1, GUIDE_CHANNELS, *spatial, seed=seed) for seed in (1, 2)]
    one, other = images(1, 2, *spatial, seed=3), images(1, 2, *spatial, seed=4)
    with torch.no_grad():
        for guide in (*guides, 100 * guides[0]):
            denoise = denoiser.denoiser(NOISE, guide)
            for y in (other, one + 1e-3 * other, 1e3 * other):
                assert float(norm(denoise(one) - denoise(y))) <= 0.9 * float(norm(one - y)) * (1 + 1e-5)
        first, second = (denoiser.denoiser(NOISE, guide)(one) for guide in guides)
    assert float(norm(first - second)) > 1e-3 * float(norm(one))


@pytest.mark.parametrize("kind", KINDS)
def test_a_guide_starts_as_none_at_all(kind: str) -> None:
    denoiser = network(strength=0.0, **KINDS[kind])
    plain = ResidualNetwork(**{**denoiser.settings(), "guide_channels": 0}).eval()
    plain.load_state_dict({k: v for k, v in denoiser.state_dict().items() if not k.startswith("guide.")})
    x = images(1, 2, *sizes(denoiser))
    with torch.no_grad():
        torch.testing.assert_close(
            denoiser.denoiser(NOISE, images(1, GUIDE_CHANNELS, *sizes(denoiser)))(x), plain.denoiser(NOISE)(x)
        )


@pytest.mark.parametrize("kind", ["potential", "sll", "volumes", "series"])
def test_tiles_cut_the_guide_too(kind: str) -> None:
    denoiser = network(strength=0.3, **{**KINDS[kind], "levels": 2, "cycles": 1})
    spatial = (90, 84) if denoiser.ndim == 2 else (32, 40, 36)
    x, guide = images(1, 2, *spatial), images(1, GUIDE_CHANNELS, *spatial, seed=1)
    tiled = Tiled(denoiser, tuple(size // 3 for size in spatial))
    assert tiled.guide_channels == GUIDE_CHANNELS and any(len(cuts) > 1 for cuts in tiled.cuts(spatial))
    with torch.no_grad():
        whole = denoiser.denoiser(NOISE, guide)(x)
        torch.testing.assert_close(tiled.denoiser(NOISE, guide)(x), whole, rtol=0, atol=1e-5)
    assert untiled(tiled) is denoiser


def test_what_does_not_fit() -> None:
    denoiser, guide = network(), images(1, GUIDE_CHANNELS, 11, 14)
    with pytest.raises(ValueError, match=r"got no guide, expected \(batch, 6, \*spatial\)"):
        denoiser.denoiser(NOISE)
    with pytest.raises(ValueError, match=r"got a guide \(1, 2, 11, 14\), expected \(batch, 6"):
        denoiser.denoiser(NOISE, guide[:, :2])
    with pytest.raises(ValueError, match="expected none"):
        ResidualNetwork(channels=2, features=2, levels=1, cycles=1).denoiser(NOISE, guide)
    with pytest.raises(ValueError, match="6 guide channels and no first model"):
        MOL(denoiser)
    with pytest.raises(ValueError, match="0 guide channels and a first model"):
        MOL(PlainNetwork(), first=MOL(PlainNetwork()))
    with pytest.raises(ValueError, match="first model with 2 axes and phase_reference False, expected 2 and True"):
        MOL(denoiser, first=MOL(PlainNetwork(), phase_reference=False))
    with pytest.raises(ValueError, match="first model with 3 axes"):
        MOL(denoiser, first=MOL(PlainNetwork(ndim=3)))


def two_stages() -> MOL:
    first = MOL(ResidualNetwork(monotonicity=0.1, channels=3, features=4, levels=2, cycles=1, seed=5), data_weight=20.0)
    return MOL(network(levels=2, cycles=1), first=first, data_weight=20.0).eval()


def problem(dtype: torch.dtype = torch.complex64) -> tuple[Tensor, Sense]:
    generator = torch.Generator().manual_seed(1)
    maps = torch.randn(1, 4, 16, 12, dtype=torch.complex128, generator=generator)
    maps = maps / torch.linalg.vector_norm(maps, dim=1, keepdim=True)
    operator = Sense(maps.to(dtype), torch.from_numpy(random_mask(12, 2, 0.3, 1))[None, None])
    image = torch.randn(2, 16, 12, dtype=torch.complex128, generator=generator).to(dtype)
    return operator(image), operator


@torch.no_grad()
def test_an_image_that_guarantees_nothing_may_guide() -> None:
    first = ADMMNet(PlainNetwork(layers=2, features=3), n_unrolls=2)
    model = MOL(network(levels=2, cycles=1), first=first, data_weight=20.0).eval()
    kspace, operator = problem()
    conditioning = model.condition(kspace, operator, 0.02)
    assert conditioning.guide is not None
    proposed = first(kspace, operator, conditioning=replace(conditioning, guide=None)).value
    shown = first_of_guide(conditioning.guide, 2) * conditioning.phase * conditioning.scale[:, None, None]
    torch.testing.assert_close(shown, proposed)
    solution = model(kspace, operator, conditioning=conditioning)
    assert solution.kind == "certified" and bool(solution.converged.all())
    one = Conditioning(conditioning.scale[:1], conditioning.noise_level[:1], conditioning.phase[:1])
    assert not check_equilibrium(model, kspace[:1], operator, model.guided(kspace[:1], operator, one)).violated


@torch.no_grad()
def test_without_a_guide_that_is_held_there_is_no_bound_of_changes() -> None:
    model = two_stages()
    kspace, operator = problem()
    conditioning = model.condition(kspace, operator, 0.02)
    assert model.change_bound(conditioning, operator, kspace) is not None
    assert model.change_bound(replace(conditioning, guide=None), operator, kspace) is None


@torch.no_grad()
def test_with_many_coils_few_guide_and_all_are_solved_for() -> None:
    """Trial steps and guide see the principal coils, the residual all of them: the equilibrium is that of A."""
    model = two_stages().double()
    generator = torch.Generator().manual_seed(1)
    maps = torch.randn(1, 12, 16, 12, dtype=torch.complex128, generator=generator)
    maps = maps / torch.linalg.vector_norm(maps, dim=1, keepdim=True)
    operator = Sense(maps, torch.from_numpy(random_mask(12, 2, 0.3, 1))[None, None])
    image = torch.randn(1, 16, 12, dtype=torch.complex128, generator=generator)
    kspace = operator(image)
    conditioning = model.condition(kspace, operator, 0.02)
    solver = replace(model.solver, tol=1e-8, max_steps=300)
    solution = model(kspace, operator, conditioning=conditioning, solver=solver)
    assert bool(solution.converged.all())
    x, weight = solution.value / conditioning.scale, model.data_weight(conditioning.noise_level)
    denoised = conditioning.denoiser(model.network)(x)
    left = denoised + weight * (operator.adjoint(kspace) / conditioning.scale - operator.normal(x)) - x
    assert float(left.norm() / x.norm()) < 1e-8 * model.network.monotonicity * 1.01
    coils = principal_coils(operator)
    assert coils.matrix is not None and model.first is not None and conditioning.guide is not None
    proposed = model.first(
        coils.mixed(kspace), coils.operator, conditioning=replace(conditioning, guide=None), solver=model.first.solver
    ).value
    shown = first_of_guide(conditioning.guide, 2) * conditioning.phase * conditioning.scale
    assert float((shown - proposed).norm() / proposed.norm()) < 2e-2  # of the first model's tolerance


@torch.no_grad()
def test_the_equilibrium_is_certified_and_starts_where_the_first_one_ended() -> None:
    model = two_stages()
    kspace, operator = problem()
    solution = model(kspace, operator, 0.02)
    assert solution.kind == "certified" and bool(solution.converged.all())
    conditioning = model.condition(kspace, operator, 0.02)
    assert conditioning.guide is not None and conditioning.guide.shape == (2, GUIDE_CHANNELS, 16, 12)
    again = model(kspace, operator, conditioning=conditioning)
    torch.testing.assert_close(again.value, solution.value)
    elsewhere = model(kspace, operator, conditioning=conditioning, start=torch.zeros_like(solution.value))
    bound = solution.error_bound * norm(solution.value) + elsewhere.error_bound * norm(elsewhere.value)
    assert bool((norm(elsewhere.value - solution.value) <= bound).all())
    itself = model(kspace, operator, conditioning=replace(conditioning, guide=None))
    torch.testing.assert_close(itself.value, solution.value, rtol=1e-4, atol=1e-4)
    one = replace(
        conditioning,
        scale=conditioning.scale[:1],
        noise_level=conditioning.noise_level[:1],
        phase=conditioning.phase[:1],
    )
    one = model.guided(kspace[:1], operator, one)
    assert not check_equilibrium(model, kspace[:1], operator, one).violated
    assert not check_decrease(model, kspace[:1], operator, one).violated


def test_gradients_go_through_the_guide(monkeypatch: pytest.MonkeyPatch) -> None:
    # Differences see where the images of the guide stop, the gradient is that of exact ones.
    monkeypatch.setattr("molrecon.reconstructors.guiding.FIRST_TOL", 1e-11)
    monkeypatch.setattr("molrecon.reconstructors.guiding.SENSE_TOL", 1e-13)
    monkeypatch.setattr("molrecon.reconstructors.guiding.SENSE_STEPS", 500)
    model = two_stages().double()
    model.solver = replace(model.solver, tol=1e-10, backward_tol=1e-10, max_steps=900, backward_max_steps=900)
    kspace, operator = problem(torch.complex128)
    conditioning = model.condition(kspace, operator, 0.02)
    direction = operator.sampling(
        torch.randn(kspace.shape, dtype=kspace.dtype, generator=torch.Generator().manual_seed(2))
    )

    def loss(b: Tensor, *, through: bool) -> Tensor:
        of_call = replace(conditioning, guide=None) if through else conditioning
        return model(b, operator, conditioning=of_call).value.abs().square().sum()

    slopes = {}
    for through in (True, False):
        b = kspace.clone().requires_grad_()
        loss(b, through=through).backward()
        assert b.grad is not None
        slopes[through] = float((b.grad.conj() * direction).real.sum())
        with torch.no_grad():
            step = 1e-6
            up, down = (float(loss(kspace + s * step * direction, through=through)) for s in (1, -1))
        assert slopes[through] == pytest.approx((up - down) / (2 * step), rel=2e-5)
    assert slopes[True] != pytest.approx(slopes[False], rel=1e-3)


def test_both_stages_are_in_one_file(tmp_path: Path) -> None:
    model, path = two_stages(), tmp_path / "guided.safetensors"
    save(model, path, {})
    again = load(path, MOL)
    assert isinstance(again.first, MOL) and again.first.first is None
    kspace, operator = problem()
    with torch.no_grad():
        assert torch.equal(again(kspace, operator, 0.02).value, model(kspace, operator, 0.02).value)

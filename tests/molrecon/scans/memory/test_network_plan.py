"""Memory plans: what they promise is what is measured, and what they leave out costs nothing but time."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from torch import Tensor

from molrecon.networks import PlainNetwork, ResidualNetwork
from molrecon.networks.tiling import Tiled
from molrecon.reconstructors.admm_net import ADMMNet
from molrecon.reconstructors.conditioning import condition
from molrecon.reconstructors.guiding import GUIDE_CHANNELS
from molrecon.reconstructors.modl import MoDL
from molrecon.reconstructors.mol import MOL
from molrecon.reconstructors.planes import PlaneByPlane
from molrecon.scans.memory import fit_to_memory, parse_size, plan_memory
from molrecon.scans.memory.allocator import return_freed_memory
from molrecon.scans.memory.network_plan import PROGRAM_BYTES
from molrecon.training.step_memory import peak_growth, training_memory
from operators import Sense, SoftSense, coil_chunks

CPU = torch.device("cpu")
ROOT = Path(__file__).resolve().parents[4]


def make_network(ndim: int = 3, levels: int = 2) -> ResidualNetwork:
    return ResidualNetwork(channels=4, features=8, levels=levels, cycles=1, ndim=ndim, monotonicity=0.1, layer="sll")


def make_problem(shape: tuple[int, ...], coils: int = 3, undersampled: int = 1) -> tuple[Tensor, Sense]:
    """Return k-space of a random image, the axes from `undersampled` on undersampled."""
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(1, coils, *shape, dtype=torch.complex64, generator=generator)
    maps = maps / torch.linalg.vector_norm(maps, dim=1, keepdim=True)
    mask = torch.rand(1, *[1] * undersampled, *shape[undersampled:], generator=generator) < 0.4
    operator = Sense(maps, mask)
    return operator(torch.randn(1, *shape, dtype=torch.complex64, generator=generator)), operator


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("8GiB", 8 * 2**30),
        ("6000MB", 6 * 10**9),
        (" 1.5 G ", 1_500_000_000),
        ("512 Ki", 2**19),
        ("77", 77),
        ("3kB", 3000),
    ],
)
def test_sizes_are_read(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "GiB", "8 gigabytes", "-1GB", "0", "1e9", "8GiBs"])
def test_other_sizes_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected a size such as '8GiB'"):
        parse_size(text)


@examples(max_examples=60, deadline=None)
@given(
    shape=st.tuples(*[st.integers(1, 300)] * 3),
    coils=st.integers(1, 32),
    gib=st.floats(0.3, 12),
    levels=st.integers(1, 3),
)
def test_a_plan_fits_or_says_what_would(shape: tuple[int, int, int], coils: int, gib: float, levels: int) -> None:
    network = make_network(levels=levels)
    try:
        plan = plan_memory(int(gib * 2**30), network, shape, coils)
    except ValueError as error:
        needed = float(str(error).split("expected ")[1].split()[0])
        assert needed >= gib - 0.01
        plan = plan_memory(f"{needed + 0.1}GiB", network, shape, coils)
    assert plan.total <= plan.budget
    assert plan.work >= 1
    assert all(t == n or h > 0 for t, n, h in zip(plan.tile, plan.shape, plan.halo, strict=True))


def test_a_large_budget_changes_nothing_and_a_small_one_is_described() -> None:
    network = ResidualNetwork(ndim=3, levels=2, layer="sll")
    volume = (256, 256, 128)
    plan = plan_memory("16GiB", network, volume, 12)
    assert (plan.tile, plan.halo, plan.window, plan.refine, plan.work) == (volume, (0, 0, 0), 10, True, 1)
    assert plan.describe().startswith("the whole image at once, window 10, double refinement; estimated ")
    plan = plan_memory("5GiB", network, volume, 12)
    assert plan.refine and 0 < max(plan.halo) == 18 and plan.work < 3
    assert (
        "with halo 18x" in plan.describe() and "of 5.00 GiB: " in plan.describe() and "k-space 0.75" in plan.describe()
    )
    with pytest.raises(
        ValueError, match=r"the budget is 1.00 GiB, expected \d.\d\d or more for 256x256x128 with 12 coils"
    ):
        plan_memory("1GiB", network, volume, 12)
    with pytest.raises(ValueError, match="expected 3 positive sizes"):
        plan_memory("1GiB", network, (8, 8), 12)


@torch.no_grad()
def test_a_fitted_model_finds_the_same_equilibrium_with_the_same_weights() -> None:
    kspace, operator = make_problem((64, 6, 5))
    model = MOL(make_network()).double().eval()
    model.solver = replace(model.solver, tol=1e-8, max_steps=60)
    plan = plan_memory(5 * 2**30, model.network, (64, 6, 5), 3)
    plan = type(plan)(**{**vars(plan), "tile": (16, 6, 5), "halo": (9, 0, 0), "window": 4})
    fitted = fit_to_memory(model, plan)
    assert isinstance(fitted.network, Tiled) and len(fitted.network.cuts((64, 6, 5))[0]) == 4
    assert isinstance(model.network, ResidualNetwork) and model.solver.window == 10
    assert {id(p) for p in fitted.parameters()} == {id(p) for p in model.parameters()}
    assert fitted.certificate() == model.certificate() and not fitted.training
    kspace = kspace.to(torch.complex128)
    operator = Sense(operator.sensitivity_maps.to(torch.complex128), operator.sampling_mask)
    expected, solution = model(kspace, operator, 0.05), fitted(kspace, operator, 0.05)
    assert bool(solution.converged.all()) and (fitted.solver.window, fitted.solver.tol) == (4, 1e-8)
    torch.testing.assert_close(solution.value, expected.value, rtol=1e-6, atol=1e-6)
    assert fit_to_memory(fitted, plan).network.network is model.network


def test_a_first_model_of_another_kind_is_fitted_too() -> None:
    small: dict[str, Any] = {"channels": 2, "features": 2, "levels": 1, "cycles": 1}
    first = ADMMNet(PlainNetwork(layers=2, features=2))
    first.n_unrolls = 4
    model = MOL(ResidualNetwork(guide_channels=GUIDE_CHANNELS, **small), first=first)
    plan = plan_memory(5 * 2**30, model.network, (256, 256), 3)
    fitted = fit_to_memory(model, type(plan)(**{**vars(plan), "tile": (64, 256), "halo": (4, 0)}))
    assert isinstance(fitted.first, ADMMNet) and isinstance(fitted.first.network, Tiled)
    assert fitted.first.n_unrolls == 4
    wide = plan_memory(5 * 2**30, model.network, (256, 256), 3, first=PlainNetwork(features=400))
    assert wide.items["network"] > 10 * plan.items["network"]
    assert {id(p) for p in fitted.parameters()} == {id(p) for p in model.parameters()}


@pytest.mark.parametrize("guide_channels", [0, GUIDE_CHANNELS])
def test_a_solve_takes_no_more_than_estimated(guide_channels: int) -> None:
    # A process of its own: what other tests have left in the heap is no part of the estimate.
    program = f"from {__name__} import solve_within_the_estimate; solve_within_the_estimate({guide_channels})"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@torch.no_grad()
def solve_within_the_estimate(guide_channels: int) -> None:
    return_freed_memory()  # as the commands do inside a budget
    shape, coils = (96, 64, 48), 3
    kspace, operator = make_problem(shape, coils)
    network = ResidualNetwork(
        channels=4, features=24, levels=2, cycles=1, ndim=3, layer="sll", guide_channels=guide_channels
    )
    first = PlaneByPlane(MOL(PlainNetwork(features=2, layers=2))) if guide_channels else None
    model = MOL(network, first=first).eval()
    model.solver = replace(model.solver, max_steps=1, tol=0.0)
    conditioning = model.condition(kspace, operator, 0.05)
    for budget in (8 * 2**30, PROGRAM_BYTES + 300 * 2**20):
        plan = plan_memory(budget, model.network, shape, coils)
        fitted = fit_to_memory(model, plan)
        fitted(*make_problem((16, 8, 8), coils), 0.05)
        used = peak_growth(partial(fitted, kspace, operator, conditioning=conditioning), CPU)
        if used is None:  # it cannot be measured here
            return
        allowed = plan.total - sum(plan.items[name] for name in ("program", "k-space", "maps"))
        assert used <= allowed + 30e6
    assert max(plan.halo) > 0


def test_training_an_equilibrium_takes_less_memory_than_training_as_many_unrolls() -> None:
    kspace, operator = make_problem((80, 80))
    conditioning = condition(kspace, operator, 0.05)
    network = ResidualNetwork(features=8, channels=4, levels=2, cycles=1)
    mol, modl = MOL(network), MoDL(network, n_unrolls=12)
    mol.solver = replace(mol.solver, max_steps=12, tol=0.0, backward_tol=0.0, backward_max_steps=12)
    models: tuple[MOL, MoDL] = (mol, modl)
    used = []
    for model in models:
        training_memory(model, kspace, operator, conditioning)
        used.append(training_memory(model, kspace, operator, conditioning))
        assert model.training and all(parameter.grad is None for parameter in model.parameters())
    if used[0] is None or used[1] is None:
        pytest.skip("the resident set cannot be measured here")
    assert used[1] > 2 * used[0]


@torch.no_grad()
@pytest.mark.parametrize("sets", [0, 2])
def test_coils_are_taken_in_groups_where_no_axis_can_be_cut(monkeypatch: pytest.MonkeyPatch, sets: int) -> None:
    kspace, operator = make_problem((6, 7), coils=5, undersampled=0)
    image = operator.adjoint(kspace)
    a: Sense | SoftSense = operator
    if sets:
        maps = torch.stack([operator.sensitivity_maps, operator.sensitivity_maps.flip(1)], 1)
        a, image = SoftSense(maps, operator.sampling_mask), torch.stack([image, 1j * image], 1)
    expected = a.normal(image)
    monkeypatch.setattr(coil_chunks, "CHUNK_BYTES", 1)
    monkeypatch.setattr(coil_chunks, "DEVICE_CHUNK_BYTES", 2 * image.numel() * 8)
    torch.testing.assert_close(a.normal(image), expected, rtol=1e-5, atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("coil_bytes", [1, 2**23])
def test_the_adjoint_in_double_precision_converts_coil_by_coil(
    monkeypatch: pytest.MonkeyPatch, coil_bytes: int
) -> None:
    kspace, operator = make_problem((6, 7), coils=5)
    monkeypatch.setattr(coil_chunks, "COIL_BYTES", coil_bytes)
    expected = operator.adjoint(kspace.to(torch.complex128))
    assert torch.equal(operator.adjoint(kspace, torch.complex128), expected)

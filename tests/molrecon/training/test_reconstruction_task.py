"""Training of reconstructors: every one learns, is handed out as it was made, and resumes to the bit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from molrecon.networks import PlainNetwork, ResidualNetwork
from molrecon.reconstructors.deep_equilibrium import DeepEquilibrium
from molrecon.reconstructors.learned import LearnedReconstructor
from molrecon.reconstructors.modl import MoDL
from molrecon.reconstructors.mol import MOL
from molrecon.reconstructors.unrolled import UnrolledReconstructor
from molrecon.scans.metrics import psnr
from molrecon.simulation.strips import Problem, simulate_scan, strip_problem
from molrecon.training.defaults import DESCRIPTIONS
from molrecon.training.log import read_log
from molrecon.training.loop import train
from molrecon.training.losses import log_mse
from molrecon.training.models import build
from molrecon.training.reconstruction_task import (
    ReconstructionSettings,
    ReconstructionTask,
    mean_psnr,
    withheld_score,
)
from molrecon.training.train_settings import TrainSettings
from operators import SoftSense

SETTINGS = TrainSettings(steps=6, warmup=2, checkpoint_every=2)
POOL = ReconstructionSettings(pool=2, visits=2)
ALWAYS_THE_SAME = ReconstructionSettings(pool=1, visits=1000, early_share=0)


def make_problem(rng: np.random.Generator, step: int = 0) -> Problem:
    del step
    image = np.zeros((32, 32), np.complex64)
    image[6:26, 8:24] = 0.6
    image[10:20, 10:16] = 1
    return strip_problem(simulate_scan(image, 32, rng, coils=4), 8, rng)


def one_or_two_sets(rng: np.random.Generator, step: int = 0) -> Problem:
    """Return a problem, every second time with a second set of maps, orthogonal to the first, and an image for it."""
    problem = make_problem(rng)
    if step % 2:
        return problem
    first = problem.operator.sensitivity_maps
    second = torch.stack([first[:, 1].conj(), -first[:, 0].conj(), first[:, 3].conj(), -first[:, 2].conj()], 1)
    maps = torch.stack([first, second], 1)
    operator = SoftSense(maps, problem.operator.sampling_mask)
    reference = torch.stack([problem.reference, 0.5 * problem.reference.flip(-1)], 1)
    return Problem(operator(reference), operator, reference, problem.noise_level)


def strict() -> MOL:
    return MOL(ResidualNetwork(channels=2, features=4, levels=2, cycles=1))


def penalised() -> MOL:
    return MOL(PlainNetwork(monotonicity=0.05, layers=2, features=4, skip=True))


def loss_of(model: LearnedReconstructor, problem: Problem) -> float:
    with torch.no_grad():
        answer = model(problem.kspace, problem.operator, problem.noise_level)
    return float(log_mse(answer if isinstance(answer, Tensor) else answer.value, problem.reference))


@pytest.mark.parametrize("name", DESCRIPTIONS)
def test_every_reconstructor_learns(name: str, tmp_path: Path) -> None:
    problem = make_problem(np.random.default_rng(1))
    model = build(name, channels=2, features=4, levels=2)
    if isinstance(model, UnrolledReconstructor):
        model.n_unrolls = 2
    # Much larger steps on so small a problem lose the fixed point of an equilibrium that is not monotone.
    rate, gain = (2e-4, 0.02) if isinstance(model, DeepEquilibrium) else (5e-3, 0.05)
    settings = TrainSettings(steps=6, warmup=1, learning_rate=rate, ema=0)
    before = loss_of(model, problem)
    list(train(ReconstructionTask(model, lambda rng, step: problem, ALWAYS_THE_SAME), settings, tmp_path))
    assert loss_of(model, problem) < before - gain


def test_models_have_equal_size() -> None:
    counts = {name: sum(p.numel() for p in build(name).parameters()) for name in DESCRIPTIONS}
    assert max(counts.values()) < 1.05 * min(counts.values()), counts
    with pytest.raises(ValueError, match="model 'xyz', expected one of mol, mol-penalised"):
        build("xyz")
    assert build("admm-net", plain_features=32).network.settings()["features"] == 32


@pytest.mark.parametrize(("own", "early"), [(0.01, 0.05), (0.1, 0.1)])
def test_the_early_monotonicity_is_never_smaller_than_the_models_own(own: float, early: float, tmp_path: Path) -> None:
    model, seen = MOL(ResidualNetwork(channels=2, features=4, levels=2, cycles=1, monotonicity=own)), []

    def problem(rng: np.random.Generator, step: int) -> Problem:
        seen.append(model.network.monotonicity)
        return make_problem(rng)

    settings = TrainSettings(steps=4, warmup=1)
    list(
        train(
            ReconstructionTask(model, problem, ReconstructionSettings(pool=1, visits=1, early_share=0.5)),
            settings,
            tmp_path,
        )
    )
    assert seen == [early, early, own, own] and model.network.monotonicity == own


@pytest.mark.parametrize("kind", ["strict", "penalised", "modl"])
def test_what_changes_in_training_is_put_back(kind: str, tmp_path: Path) -> None:
    def fresh() -> LearnedReconstructor:
        models = {"strict": strict, "penalised": penalised}
        return models[kind]() if kind in models else MoDL(PlainNetwork(layers=2, features=4, skip=True), n_unrolls=3)

    model, untouched = fresh(), fresh()

    def validate(scored: LearnedReconstructor) -> float:
        assert not scored.training and not torch.is_grad_enabled()
        check(scored)
        return 0.0

    def check(scored: LearnedReconstructor) -> None:
        assert scored.network.monotonicity == untouched.network.monotonicity
        assert scored.solver == untouched.solver
        if isinstance(scored, UnrolledReconstructor):
            assert scored.n_unrolls == 3

    task = ReconstructionTask(model, make_problem, replace(POOL, early_unrolls=2))
    assert list(train(task, SETTINGS, tmp_path, validate)) == [1, 2, 3, 4, 5, 6]
    check(model)
    for key, value in model.state_dict().items():
        assert torch.isfinite(value).all()
        assert not torch.equal(value, untouched.state_dict()[key]), f"{key} was not trained"
    if isinstance(model, MOL):
        assert model.certificate().kind == ("certified" if kind == "strict" else "estimated")


def many_lines(rng: np.random.Generator, step: int) -> Problem:
    while (problem := make_problem(rng)).operator.sampling_mask.float().mean() < 0.25:
        pass
    return problem


@pytest.mark.parametrize(("fresh", "self_supervised"), [(strict, False), (penalised, True)])
def test_training_resumes_to_the_bit(fresh: Callable[[], MOL], self_supervised: bool, tmp_path: Path) -> None:
    own = replace(POOL, self_supervised=self_supervised)

    def task() -> ReconstructionTask:
        return ReconstructionTask(fresh(), many_lines if self_supervised else make_problem, own)

    interrupted = train(task(), SETTINGS, tmp_path / "a")
    assert [next(interrupted) for _ in range(3)] == [1, 2, 3]
    whole, resumed = task(), task()
    assert list(train(resumed, SETTINGS, tmp_path / "a")) == [3, 4, 5, 6]
    list(train(whole, SETTINGS, tmp_path / "b"))
    for a, b in zip(whole.model.state_dict().values(), resumed.model.state_dict().values(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("self_supervised", [False, True])
@pytest.mark.parametrize("fresh", [strict, penalised])
def test_one_and_two_sets_of_maps_train_together(
    fresh: Callable[[], MOL], self_supervised: bool, tmp_path: Path
) -> None:
    """And a training that stopped goes on to the bit."""
    own = replace(POOL, self_supervised=self_supervised)
    interrupted = train(ReconstructionTask(fresh(), one_or_two_sets, own), SETTINGS, tmp_path / "a")
    assert [next(interrupted) for _ in range(3)] == [1, 2, 3]
    whole, resumed = (ReconstructionTask(fresh(), one_or_two_sets, own) for _ in range(2))
    assert list(train(resumed, SETTINGS, tmp_path / "a")) == [3, 4, 5, 6]
    list(train(whole, SETTINGS, tmp_path / "b"))
    for a, b in zip(whole.model.state_dict().values(), resumed.model.state_dict().values(), strict=True):
        assert torch.isfinite(a).all() and torch.equal(a, b)


def test_the_loss_and_the_score_of_two_sets_see_both_images() -> None:
    problem = one_or_two_sets(np.random.default_rng(1))
    model = strict()
    (loss,) = ReconstructionTask(model, lambda rng, step: problem, ALWAYS_THE_SAME).losses(0, np.random.default_rng(0))
    louder = replace(problem, reference=problem.reference * torch.tensor([1, 2]).reshape(1, 2, 1, 1))
    (other,) = ReconstructionTask(model, lambda rng, step: louder, ALWAYS_THE_SAME).losses(0, np.random.default_rng(0))
    assert float(other.detach()) > float(loss.detach()) + 0.1
    with torch.no_grad():
        image = model(problem.kspace, problem.operator, problem.noise_level).value
    shown, expected = (torch.linalg.vector_norm(x, dim=1).numpy() for x in (image, problem.reference))
    assert mean_psnr(model, [problem]) == pytest.approx(psnr(expected, shown), abs=0.5)  # that has its own scale


def test_withheld_samples_can_be_predicted_better_after_training(tmp_path: Path) -> None:
    problem = many_lines(np.random.default_rng(1), 0)
    model = MoDL(PlainNetwork(layers=2, features=4, skip=True), n_unrolls=2)
    before = withheld_score(model, [problem])
    own = replace(ALWAYS_THE_SAME, self_supervised=True)
    blind = replace(problem, reference=torch.full_like(problem.reference, torch.nan))
    settings = TrainSettings(steps=8, warmup=1, learning_rate=5e-3, ema=0.5)
    list(train(ReconstructionTask(model, lambda rng, step: blind, own), settings, tmp_path))
    assert before < withheld_score(model, [problem]) < 0 < mean_psnr(model, [problem])


def test_mixed_precision_is_for_the_network_of_unrolled_models(tmp_path: Path) -> None:
    problem = make_problem(np.random.default_rng(1))
    mixed = replace(ALWAYS_THE_SAME, precision="mixed")
    models = [build("modl"), build("modl")]
    seen: list[torch.dtype] = []
    for model, own in zip(models, (mixed, ALWAYS_THE_SAME), strict=True):
        model.network.get_submodule("convolutions.1").register_forward_hook(lambda m, i, y: seen.append(y.dtype))
        settings = TrainSettings(steps=2, warmup=1, ema=0)
        list(train(ReconstructionTask(model, lambda rng, step: problem, own), settings, tmp_path / own.precision))
    assert seen == [torch.bfloat16] * 20 + [torch.float32] * 20
    assert all(value.dtype == torch.float32 for value in models[0].state_dict().values())
    rough, exact = (float(read_log(tmp_path / name)[-1]["loss"]) for name in ("mixed", "single"))
    assert rough != exact and rough == pytest.approx(exact, abs=0.05)
    for name in ("mol", "de-prox"):
        with pytest.raises(ValueError, match=r"precision 'mixed' for .*, expected 'single'.* rounds by 2\^-8"):
            ReconstructionTask(build(name, channels=2, features=4, levels=2), make_problem, mixed)


def test_the_network_of_an_equilibrium_is_not_rounded_by_somebodys_autocast() -> None:
    problem = make_problem(np.random.default_rng(1))
    model = penalised()
    seen: list[torch.dtype] = []
    model.network.get_submodule("convolutions.1").register_forward_hook(lambda m, i, y: seen.append(y.dtype))
    alone = model(problem.kspace, problem.operator, problem.noise_level).value.detach()
    with torch.autocast("cpu", torch.bfloat16):
        inside = model(problem.kspace, problem.operator, problem.noise_level).value.detach()
    assert set(seen) == {torch.float32}
    torch.testing.assert_close(inside, alone, rtol=0, atol=1e-4)

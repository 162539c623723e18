"""Descent training: exact multipliers, a quadratic whose layers descend only when asked to, choice, resuming, arms."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from examples._arms import ARMS, RESULT_FILE, FourArms, mean_and_spread, run_arms
from molrecon.descent.constraints import Assessment, Descent, DescentProblem, assess
from molrecon.descent.descent_checks import LayerNoise, check_descent, distance_ratios, gradient_norm_ratios
from molrecon.descent.multipliers import Layerwise
from molrecon.descent.training import DescentTask
from molrecon.reconstructors.unrolled import Disturb
from molrecon.training.log import finish, read_log
from molrecon.training.loop import train
from molrecon.training.train_settings import TrainSettings

CURVATURE = torch.tensor([1.0, 10.0])


class Steps(nn.Module):
    """`y_l = y_{l-1} - s_l (Q y_{l-1} - Q y*)`, y_0 = 0."""

    def __init__(self, steps: Sequence[float]) -> None:
        super().__init__()
        self.steps = nn.Parameter(torch.tensor(steps))

    def stages(self, target: Tensor, disturb: Disturb | None = None) -> Iterator[Tensor]:
        y = torch.zeros_like(target)
        for number, step in enumerate(self.steps, 1):
            y = y - step * CURVATURE * (y - target)
            if disturb is not None and number < len(self.steps):
                y = disturb(number, y)
            yield y


class Quadratic(DescentProblem[Steps, Tensor]):
    """f = 1/2 |Q^(1/2) (y - y*)|^2; a batch holds y* (8, 2) of both components alike."""

    def __init__(self, steps: Sequence[float] = (0.9, 0.11)) -> None:
        self.model = Steps(steps)
        self.n_layers = len(steps)

    def draw(self, step: int, rng: np.random.Generator) -> Tensor:
        return torch.from_numpy(rng.choice([-1.0, 1.0], (8, 2)) * rng.uniform(0.9, 1.1, (8, 2))).float()

    def layers(self, batch: Tensor, disturb: Disturb | None) -> tuple[Tensor, list[Tensor]]:
        return torch.zeros_like(batch), list(self.model.stages(batch, disturb))

    def final_loss(self, last: Tensor, batch: Tensor) -> Tensor:
        return (last - batch).square().mean()

    def reference(self, batch: Tensor) -> Tensor:
        return batch

    def gradient(self, output: Tensor, batch: Tensor) -> Tensor:
        return CURVATURE * (output - batch)


BATCHES = [Quadratic().draw(0, np.random.default_rng(100))]
SETTINGS = TrainSettings(
    steps=400,
    learning_rate=5e-3,
    warmup=0,
    final_rate=1.0,
    betas=(0.9, 0.9),
    ema=0,
    clip=None,
    checkpoint_every=50,
    log_every=50,
    patience=99,
)


def trained(
    folder: Path, descent: Descent, *, constrained: bool = True, settings: TrainSettings = SETTINGS
) -> tuple[DescentTask[Steps, Tensor], Assessment]:
    task = DescentTask(Quadratic(), descent, constrained=constrained)
    finish(train(task, settings, folder, task.validator(BATCHES)), settings.steps)
    return task, assess(task.problem, BATCHES, descent)


DESCENT = Descent(0.05, dual_rate=0.05)


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> tuple[DescentTask[Steps, Tensor], Assessment, Path]:
    folder = tmp_path_factory.mktemp("asked")
    return *trained(folder, DESCENT), folder


@pytest.mark.parametrize("augmented", [0.0, 2.0], ids=["plain", "augmented"])
def test_multipliers_move_by_the_dual_step_and_stop_at_zero(augmented: float) -> None:
    constraints = Layerwise(3, 0.5, augmented, torch.zeros(1, dtype=torch.float64))
    nu = constraints.multiplier.weight
    for seen, expected in [
        ([0.2, -0.1, 0.0], [0.1, 0.0, 0.0]),
        ([0.2, 0.6, 0.0], [0.2, 0.3, 0.0]),
        ([-0.3, -0.7, 0.0], [0.05, 0.0, 0.0]),
        ([-0.3, 0.5, -1.0], [0.0, 0.25, 0.0]),
    ]:
        constraints.ascend(torch.tensor(seen, dtype=torch.float64))
        torch.testing.assert_close(nu.data, torch.tensor(expected, dtype=torch.float64))
    violation = torch.tensor([-0.3, 0.5, 0.1], dtype=torch.float64, requires_grad=True)
    total = constraints.lagrangian(torch.tensor(7.0, dtype=torch.float64), violation)
    (slope,) = torch.autograd.grad(total, violation)
    # Both forms push with max(0, nu + c v), c = 0 in the plain one; only that pushes where nothing is violated, too.
    pushed = (nu.data + augmented * violation.detach()).clamp_min(0) if augmented else nu.data
    torch.testing.assert_close(slope, pushed)
    if not augmented:
        torch.testing.assert_close(total.detach(), torch.tensor(7 + 0.25 * 0.5, dtype=torch.float64))


def test_ratios() -> None:
    start, reference = torch.tensor([[4.0, 0.0], [0.0, 0.0]]), torch.tensor([[0.0, 0.0], [0.0, 2.0]])
    outputs = [torch.tensor([[2.0, 0.0], [0.0, 3.0]]), torch.tensor([[0.0, 3.0], [0.0, 2.5]])]
    torch.testing.assert_close(distance_ratios(outputs, start, reference), torch.tensor([0.5, 1.0]))
    # Ratios of means are other numbers than means of ratios.
    torch.testing.assert_close(gradient_norm_ratios(outputs, outputs[0]), torch.tensor([1.0, 5.5 / 5]))
    found = check_descent(outputs, start, reference)
    assert found.mean_distances == pytest.approx((3.0, 1.5, 1.75))
    assert (found.layers_descending, found.samples_descending, found.always_descending) == (0.5, 0.75, 0.5)
    # Who has arrived descends by staying.
    assert check_descent([reference, reference], reference, reference).always_descending == 1
    strict = check_descent(outputs, start, reference, threshold=0.5)
    assert (strict.layers_descending, strict.samples_descending) == (0.0, 0.0)


def test_layer_noise_has_its_size_and_its_seed() -> None:
    state = torch.get_rng_state()
    output = torch.complex(torch.full((2, 40_000), 3.0), torch.full((2, 40_000), 4.0)) * torch.tensor([[1.0], [10.0]])
    noise = LayerNoise(0.2, decay=0.5)
    for layer, share in ((1, 0.2), (3, 0.05)):
        one, again = (noise.disturb(torch.Generator().manual_seed(5))(layer, output) for _ in range(2))
        assert torch.equal(one, again)
        sizes = (one - output).abs().square().mean(1).sqrt()
        torch.testing.assert_close(sizes, share * torch.tensor([5.0, 50.0]), rtol=0.02, atol=0)
    assert torch.equal(torch.get_rng_state(), state)


def test_unconstrained_layers_do_not_descend_and_constrained_ones_do(
    asked: tuple[DescentTask[Steps, Tensor], Assessment, Path], tmp_path: Path
) -> None:
    # Steps of 1 / 1 and 1 / 10 solve the quadratic in any order; the long one first takes a detour.
    _, free = trained(tmp_path, DESCENT, constrained=False, settings=replace(SETTINGS, steps=200))
    assert free.loss < 1e-3
    assert free.ratios[0] > 5
    assert not free.feasible
    task, found, folder = asked
    assert found.feasible
    assert max(found.ratios) <= 0.95 + DESCENT.tolerance
    assert found.loss < 0.01
    # A log that says so: violated at first, satisfied in the end.
    rows = read_log(folder)
    assert float(rows[0]["slack_1"]) < 0 <= float(rows[-1]["slack_1"])
    assert float(rows[0]["multiplier_1"]) > 0
    assert float(rows[-1]["multiplier_2"]) == task.multipliers[1]


def test_gradient_form(tmp_path: Path) -> None:
    problem, batch = Quadratic((0.15, 0.05)), BATCHES[0]
    start, outputs = problem.layers(batch, None)
    # Errors shrink by 1 - s q, and gradients with them.
    sizes = [batch.abs() * CURVATURE]
    sizes += [sizes[0] * (1 - 0.15 * CURVATURE).abs()]
    sizes += [sizes[1] * (1 - 0.05 * CURVATURE).abs()]
    means = torch.stack([size.norm(dim=1).mean() for size in sizes])
    torch.testing.assert_close(problem.ratios(start, outputs, batch, "gradient"), means[1:] / means[:-1])
    _, found = trained(tmp_path, Descent(0.3, "gradient", dual_rate=0.05))
    assert found.feasible
    assert max(found.ratios) <= 0.7 + 0.01


def test_the_best_feasible_checkpoint_is_taken(tmp_path: Path) -> None:
    task, chosen = trained(tmp_path / "some", DESCENT, settings=replace(SETTINGS, steps=200))
    found = [assessment for _, assessment in task.assessments]
    assert len(found) == 4
    assert {assessment.feasible for assessment in found} == {True, False}
    assert chosen == min((a for a in found if a.feasible), key=lambda a: a.loss)
    assert chosen.loss > found[0].loss  # which was not feasible
    # Nothing is feasible, and the least violating is taken.
    few = replace(SETTINGS, steps=60, checkpoint_every=10)
    task, chosen = trained(tmp_path / "none", Descent(0.999, dual_rate=0.5), settings=few)
    assert not any(assessment.feasible for _, assessment in task.assessments)
    assert chosen == min((a for _, a in task.assessments), key=lambda a: a.excess)
    losses = (-3.0, -0.1, 0.0, 0.1, 5.0)
    scores = [Assessment(loss, (), 0.0, True).score() for loss in losses]
    scores += [Assessment(0.0, (), excess, False).score() for excess in (0.1, 2.0)]
    assert scores == sorted(scores, reverse=True)
    assert len(set(scores)) == len(scores)


def test_a_resumed_run_is_the_run_that_was_never_stopped(tmp_path: Path) -> None:
    settings = replace(SETTINGS, steps=10, checkpoint_every=5, log_every=2)
    descent = Descent((0.05, 0.2), dual_rate=0.5, dual_every=3, augmented=1.0, ramp=0.8)

    def steps(name: str) -> tuple[DescentTask[Steps, Tensor], Iterator[int]]:
        task = DescentTask(Quadratic(), descent, LayerNoise(0.3, decay=0.5))
        return task, train(task, settings, tmp_path / name, task.validator(BATCHES))

    whole, running = steps("whole")
    assert len(list(running)) == 10
    assert list(itertools.islice(steps("parts")[1], 7))[-1] == 7
    resumed, running = steps("parts")
    assert list(running) == [6, 7, 8, 9, 10]
    assert torch.equal(whole.model.steps, resumed.model.steps)
    assert torch.equal(whole.multipliers, resumed.multipliers)
    assert whole.multipliers.any()
    assert whole.assessments == resumed.assessments
    columns = [[{**row, "seconds": ""} for row in read_log(tmp_path / name)] for name in ("whole", "parts")]
    assert columns[0][-1] == columns[1][-1]
    assert len(columns[0]) == len(columns[1])


def test_schedule_and_settings() -> None:
    assert Descent(0.1, ramp=0.5).limits(2, 0.25) == pytest.approx([0.95, 0.95])
    assert Descent((0.1, 0.3), ramp=0.5).limits(2, 0.75) == pytest.approx([0.9, 0.7])
    assert Descent(0.1).limits(1, 0.0) == pytest.approx([0.9])
    for wrong in ({"epsilon": 1.0}, {"form": "other"}, {"dual_rate": 0.0}, {"dual_every": 0}, {"ramp": 2.0}):
        with pytest.raises(ValueError, match=r"Descent: .* expected"):
            Descent(**cast(Any, wrong))
    with pytest.raises(ValueError, match="2 epsilons for a network of 3 layers"):
        DescentTask(Quadratic((0.1, 0.1, 0.1)), Descent((0.1, 0.1)))
    with pytest.raises(ValueError, match="LayerNoise"):
        LayerNoise(-0.1)


def test_four_arms_share_all_but_what_names_them(tmp_path: Path) -> None:
    comparison = FourArms(
        build=lambda seed: Quadratic((0.9 + 0.01 * seed, 0.11)),
        settings=replace(SETTINGS, steps=40, checkpoint_every=20, log_every=1),
        descent=Descent(0.05, dual_rate=0.5),
        noise=LayerNoise(0.1, decay=0.5),
        validation=BATCHES,
        conditions={"unseen": BATCHES, "larger": [3 * BATCHES[0], BATCHES[0]]},
        quality=lambda last, batch: float((last - batch).norm()),
        layer_noise=(0.1,),
    )
    found = run_arms(comparison, tmp_path, seeds=(0, 1))
    assert list(found) == list(ARMS)
    assert found == json.loads((tmp_path / "arms.json").read_text())
    quality = found["constrained"]["conditions"]["larger"]["quality"]
    assert quality["mean"] == pytest.approx(sum(quality["each"]) / 2)
    distances = found["constrained"]["conditions"]["unseen"]["distance"]
    assert len(distances) == 3
    assert distances[0]["mean"] == pytest.approx(1)
    losses = {arm: float(read_log(tmp_path / arm / "1")[0]["final_loss"]) for arm in ARMS}
    # The first step's loss, taken before any constraint counts: the same weights and the same batch.
    assert losses["unconstrained"] == losses["constrained"]
    assert losses["unconstrained-noise"] == losses["constrained-noise"] != losses["constrained"]
    (tmp_path / "constrained" / "0" / "checkpoint.pt").unlink()
    assert run_arms(comparison, tmp_path, seeds=(0, 1)) == found
    assert not (tmp_path / "constrained" / "0" / "checkpoint.pt").exists()
    assert (tmp_path / "constrained" / "0" / RESULT_FILE).is_file()
    for other, message in (
        (replace(comparison, fingerprint={"data": "others"}), r'found data not given \(expected "others"\)'),
        (replace(comparison, descent=Descent(0.1, dual_rate=0.5)), r"found descent.epsilon 0.05 \(expected 0.1\)"),
        (replace(comparison, settings=replace(comparison.settings, steps=41)), r"found steps 40 \(expected 41\)"),
    ):
        with pytest.raises(ValueError, match=rf"result\.json: of another training, {message}"):
            run_arms(other, tmp_path, seeds=(0, 1))


def test_mean_and_spread() -> None:
    found = mean_and_spread([{"a": [1.0, True]}, {"a": [3.0, False]}])
    assert found["a"][0] == {"mean": 2.0, "spread": pytest.approx(2**0.5), "each": [1.0, 3.0]}
    assert found["a"][1]["mean"] == 0.5
    assert mean_and_spread([1.0])["spread"] is None

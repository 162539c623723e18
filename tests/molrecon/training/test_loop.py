"""The loop: its rates, early stopping, log, checkpoints, and several processes."""

from __future__ import annotations

import logging
import math
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from molrecon.networks import PlainNetwork
from molrecon.reconstructors.learned import LearnedReconstructor
from molrecon.reconstructors.mol import MOL
from molrecon.simulation.strips import Problem, simulate_scan, strip_problem
from molrecon.training.log import finish, read_log
from molrecon.training.loop import train
from molrecon.training.reconstruction_task import ReconstructionSettings, ReconstructionTask
from molrecon.training.task import Task
from molrecon.training.train_settings import TrainSettings

SETTINGS = TrainSettings(
    steps=12, warmup=1, learning_rate=0.05, decay_start=0, ema=0.5, clip=10.0, checkpoint_every=4, log_every=3
)


class Line(Task[nn.Linear]):
    """Noisy samples of y = 2 x - 1, in two parts."""

    def __init__(self, start: float = 0.0) -> None:
        self.model = nn.Linear(1, 1, dtype=torch.float64)
        nn.init.constant_(self.model.weight, start)
        nn.init.constant_(self.model.bias, start)

    def losses(self, step: int, rng: np.random.Generator) -> Iterator[Tensor]:
        x = torch.from_numpy(rng.standard_normal((2, 4, 1)))
        for part in x:
            yield (self.model(part) - (2 * part - 1)).square().mean() / 2

    def log(self) -> dict[str, float | None]:
        return {"slope": float(self.model.weight.detach())}


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_learning_rate() -> None:
    settings = TrainSettings(steps=100, learning_rate=1.0, warmup=10, final_rate=0.1)
    assert settings.rate(0) == pytest.approx(0.1) and settings.rate(9) == settings.rate(10) == 1
    assert settings.rate(55) == pytest.approx(0.55) and settings.rate(55, 5) == pytest.approx(2.75)
    assert settings.rate(99) == pytest.approx(0.1, rel=0.01)
    from_start = replace(settings, decay_start=0)
    assert from_start.rate(50) == pytest.approx(0.55) and from_start.rate(4) < 0.5
    assert TrainSettings(final_rate=1.0, warmup=0).rate(1234) == TrainSettings().learning_rate


def test_log_of_a_resumed_run_is_that_of_the_whole_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    whole, stopped, resumed = Line(), Line(), Line(start=9.0)

    def error(model: nn.Linear) -> float:
        assert not model.training
        return -abs(float(model.weight) - 2)

    finish(train(whole, SETTINGS, tmp_path / "a", error), SETTINGS.steps)
    for done in train(stopped, SETTINGS, tmp_path / "b", error):
        if done == 7:
            break
    with caplog.at_level(logging.INFO):
        assert list(train(resumed, SETTINGS, tmp_path / "b", error)) == list(range(5, 13))
    assert "resumed at step 4" in caplog.text
    assert same(whole.model, resumed.model)
    rows = [[{**row, "seconds": ""} for row in read_log(tmp_path / name)] for name in ("a", "b")]
    assert rows[0] == rows[1]
    assert [int(row["step"]) for row in rows[0]] == [3, 4, 6, 8, 9, 12]
    assert list(rows[0][0]) == ["step", "loss", "rate", "seconds", "validation", "slope"]
    assert [bool(row["validation"]) for row in rows[0]] == [False, True, False, True, False, True]
    assert float(rows[0][-1]["rate"]) == pytest.approx(SETTINGS.rate(11))
    assert float(rows[0][-1]["loss"]) < float(rows[0][0]["loss"])
    # What is finished only hands out its weights.
    finished = Line()
    assert not list(train(finished, SETTINGS, tmp_path / "b", error)) and same(finished.model, whole.model)


def test_early_stopping_ends_with_the_best(tmp_path: Path) -> None:
    scores = iter([1.0, 3.0, 2.0, 3.0, 9.0])
    weights: list[dict[str, Tensor]] = []

    def validate(model: nn.Linear) -> float:
        weights.append({key: value.clone() for key, value in model.state_dict().items()})
        return next(scores)

    settings = replace(SETTINGS, steps=100, patience=2)
    task = Line()
    assert list(train(task, settings, tmp_path, validate))[-1] == 16
    assert len(weights) == 4
    for key, value in task.model.state_dict().items():
        assert torch.equal(value, weights[1][key]) and not torch.equal(value, weights[0][key])
    again = Line()
    assert not list(train(again, settings, tmp_path, validate)) and same(again.model, task.model)
    with pytest.raises(ValueError, match="patience 2 without validation, expected"):
        train(Line(), settings, tmp_path / "c")


class Curriculum(Line):
    def begin(self, step: int, steps: int) -> None:
        """Depend on both."""


class Steep(Line):
    def fingerprint(self) -> dict[str, Any]:
        return {"slope": 2, "points": (4, 1)}


@pytest.mark.parametrize(
    ("task", "changes", "fingerprint", "message"),
    [
        (Steep, {"clip": 9.0}, {}, r"found clip 10\.0 \(expected 9\.0\)\), expected"),
        (Steep, {"learning_rate": 0.1, "seed": 1}, {}, r"found learning_rate 0\.05 \(expected 0\.1\), seed 0"),
        (Steep, {"steps": 13}, {}, r"found steps 12 \(expected 13\)"),
        (Line, {}, {}, r"found slope 2 \(expected not given\), points \[4, 1\]"),
        (Steep, {}, {"data": "other.npy"}, r'found data "head.npy" \(expected "other.npy"\)'),
        (Steep, {}, {"data": "head.npy", "scans": {"rows": 8}}, r"found scans.rows not given \(expected 8\)"),
        (Steep, {"checkpoint_every": 3, "log_every": 2}, {"data": "head.npy"}, None),
        (Steep, {}, {"data": "head.npy"}, None),
    ],
)
@pytest.mark.parametrize("until", [4, 12])
def test_a_checkpoint_of_another_training_is_refused(
    until: int,
    task: type[Line],
    changes: dict[str, Any],
    fingerprint: dict[str, Any],
    message: str | None,
    tmp_path: Path,
) -> None:
    recorded = {"data": "head.npy"} if message is None or "data" in message or "scans" in message else {}
    for done in train(Steep(), SETTINGS, tmp_path, fingerprint=recorded):
        if done == until:
            break
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    if message is None:
        assert len(list(train(task(), replace(SETTINGS, **changes), tmp_path, fingerprint=fingerprint))) == 12 - until
        return
    with pytest.raises(ValueError, match=rf"checkpoint\.pt: not a checkpoint of this training \({message}"):
        train(task(), replace(SETTINGS, **changes), tmp_path, fingerprint=fingerprint)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_more_steps_where_no_step_depends_on_their_number(tmp_path: Path) -> None:
    constant = replace(SETTINGS, final_rate=1.0)
    whole, longer = Line(), Line()
    list(train(whole, replace(constant, steps=20), tmp_path / "a"))
    list(train(Line(), constant, tmp_path / "b"))
    assert list(train(longer, replace(constant, steps=20), tmp_path / "b")) == list(range(13, 21))
    assert same(whole.model, longer.model)
    with pytest.raises(ValueError, match=r"found steps 20 \(expected 12\)"):
        train(Line(), constant, tmp_path / "b")
    list(train(Curriculum(), constant, tmp_path / "c"))
    with pytest.raises(ValueError, match=r"found steps 12 \(expected 20\)"):
        train(Curriculum(), replace(constant, steps=20), tmp_path / "c")


def test_a_checkpoint_without_a_fingerprint(tmp_path: Path) -> None:
    list(train(Line(), SETTINGS, tmp_path))
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    del state["facts"]
    torch.save(state, tmp_path / "checkpoint.pt")
    with pytest.raises(ValueError, match=r"it does not say of which training"):
        train(Line(), SETTINGS, tmp_path)
    with pytest.raises(TypeError, match="not JSON serializable"):
        train(Line(), SETTINGS, tmp_path, fingerprint={"data": tmp_path})


def test_training_that_cannot_go_on(tmp_path: Path) -> None:
    class Broken(Line):
        def losses(self, step: int, rng: np.random.Generator) -> Iterator[Tensor]:
            yield self.model.weight.sum() * (math.nan if step == 5 else 1.0)

    with pytest.raises(FloatingPointError, match=r"loss nan .* at step 5, expected finite"):
        list(train(Broken(), SETTINGS, tmp_path))
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"] == 4
    other = Line()
    other.model = nn.Linear(3, 1)
    with pytest.raises(ValueError, match=r"checkpoint\.pt: not a checkpoint of this training"):
        train(other, SETTINGS, tmp_path)
    (tmp_path / "checkpoint.pt").write_bytes(b"something else")
    with pytest.raises(ValueError, match=r"checkpoint\.pt: not a checkpoint"):
        train(Line(), SETTINGS, tmp_path)


def test_tensorboard_reads_what_is_written(tmp_path: Path) -> None:
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    for done in train(Line(), SETTINGS, tmp_path, tensorboard=True):
        if done == 6:
            break
    list(train(Line(), SETTINGS, tmp_path, tensorboard=True))
    reader = event_accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    reader.Reload()
    assert set(reader.Tags()["scalars"]) == {"loss", "rate", "seconds", "slope"}
    rows = read_log(tmp_path)
    slopes = reader.Scalars("slope")
    assert [event.step for event in slopes] == [int(row["step"]) for row in rows]
    assert [event.value for event in slopes] == pytest.approx([float(row["slope"]) for row in rows])


# Two processes against one that gets both of their problems; this file is also what torchrun runs.
PARALLEL = TrainSettings(steps=5, warmup=1, checkpoint_every=2, seed=3)
POOL = ReconstructionSettings(pool=2, visits=2, penalty=0.5)


def draw(rng: np.random.Generator, step: int) -> Problem:
    image = np.zeros((32, 32), np.complex64)
    image[6:26, 8:24] = 1
    return strip_problem(simulate_scan(image, 32, rng, coils=4), 8, rng)


def model(seed: int) -> MOL:
    # In double precision: what two processes and one round differently, Adam makes as large as a step.
    return MOL(PlainNetwork(monotonicity=0.05, layers=2, features=4, skip=True, seed=seed)).double()


class Both(Task[LearnedReconstructor]):
    """The tasks of two processes in one."""

    def __init__(self) -> None:
        self.model = model(0)
        self.halves = [ReconstructionTask(self.model, draw, POOL) for _ in range(2)]

    def groups(self) -> list[dict[str, Any]]:
        return self.halves[0].groups()

    def begin(self, step: int, steps: int) -> None:
        self.halves[0].begin(step, steps)

    def end(self) -> None:
        self.halves[0].end()

    def losses(self, step: int, rng: np.random.Generator) -> Iterator[Tensor]:
        sources = (rng, np.random.default_rng([PARALLEL.seed, step, 1]))
        for half, source in zip(self.halves, sources, strict=True):
            yield from (loss / 2 for loss in half.losses(step, source))


def process(folder: Path) -> None:
    """Run in each of two processes: train, stop, and resume."""
    from molrecon.training.processes import process_group, rank

    torch.set_num_threads(1)
    with process_group("cpu"):
        for done in train(ReconstructionTask(model(rank()), draw, POOL), PARALLEL, folder, lambda m: 1.0):
            if done == 3:
                break
        task = ReconstructionTask(model(7), draw, POOL)
        assert list(train(task, PARALLEL, folder, lambda m: 1.0)) == [3, 4, 5]
        torch.save(task.model.state_dict(), folder / f"weights-{rank()}.pt")


def test_two_processes_are_one_with_twice_the_problems(tmp_path: Path) -> None:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    run = subprocess.run([*launcher, __file__, str(tmp_path)], check=False, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    first, second = (torch.load(tmp_path / f"weights-{i}.pt", weights_only=True) for i in range(2))
    task = Both()
    list(train(task, PARALLEL, tmp_path / "one"))
    for key, value in task.model.state_dict().items():
        assert torch.equal(first[key], second[key])
        torch.testing.assert_close(first[key], value, rtol=1e-4, atol=1e-5)
        assert not torch.allclose(value, model(0).state_dict()[key], rtol=1e-4, atol=1e-5)
    names = {"checkpoint.pt", "log.csv", "weights-0.pt", "weights-1.pt", "one"}
    assert {path.name for path in tmp_path.iterdir()} == names
    assert len(read_log(tmp_path)) == 3
    with pytest.raises(ValueError, match="written by 2 processes, expected as many as there are, 1"):
        train(ReconstructionTask(model(0), draw, POOL), PARALLEL, tmp_path)


if __name__ == "__main__":
    process(Path(sys.argv[1]))

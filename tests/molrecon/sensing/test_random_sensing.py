"""Matrix and ratio change from step to step, and depend on the seed and the step alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from molrecon.sensing.assembly import assemble
from molrecon.sensing.block_batches import BlockBatches
from molrecon.sensing.random_sensing import MATRICES, RATIOS, RandomSensingTask
from molrecon.sensing.ratios import MEASUREMENTS

BLOCKS = np.random.default_rng(0).integers(0, 256, (8, 1089), np.uint8)


def parts(task: RandomSensingTask, step: int) -> list[float]:
    return [float(loss.detach()) for loss in task.losses(step, np.random.default_rng(step))]


def test_every_step_has_a_matrix_and_a_ratio_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("molrecon.sensing.random_sensing.MATRICES", 3)
    task = RandomSensingTask(assemble("coast", "gin", n_stages=1), BlockBatches(BLOCKS, 4, 2))
    rows: list[int] = []
    original = task.model.stages

    def seen(measurements: torch.Tensor, operator: object, start: object = None, *, mixed: bool) -> object:
        rows.append(measurements.shape[1])
        assert mixed is task.mixed
        return original(measurements, operator, mixed=mixed)  # type: ignore[arg-type]

    monkeypatch.setattr(task.model, "stages", seen)
    losses = [parts(task, step) for step in range(12)]
    assert all(len(terms) == 2 and all(np.isfinite(terms)) for terms in losses)
    assert set(rows) <= {MEASUREMENTS[ratio] for ratio in RATIOS} and len(set(rows)) > 2
    assert losses[5] == parts(task, 5)
    task.mixed = True
    assert parts(task, 5) == pytest.approx(losses[5], rel=0.05)
    gram = task.matrices[0] @ task.matrices[0].mT
    torch.testing.assert_close(gram, torch.eye(len(gram)), rtol=0, atol=1e-5)
    assert MATRICES == 25 and len(task.matrices) == 3


def test_errors() -> None:
    with pytest.raises(ValueError, match="a batch of 9 from 8 blocks"):
        BlockBatches(BLOCKS, 9)

"""Training of the LISTA family: layer by layer in one run, every layer judged in dB."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from molrecon.descent.lista import CodeNetwork
from molrecon.descent.sparse import pooled_nmse_db
from molrecon.descent.sparse_problems import SparseProblem
from molrecon.training.task import Task
from molrecon.training.train_settings import TrainSettings
from operators import Dense

SCALAR_FACTOR = 20.0  # rate of logarithms of steps and thresholds over that of matrices
CODING_SETTINGS = TrainSettings(
    steps=2000,
    learning_rate=1e-3,
    warmup=0,
    decay_start=1200,
    final_rate=0.01,
    betas=(0.9, 0.99),
    ema=0,
    clip=None,
    checkpoint_every=200,
    log_every=100,
)


@final
class SparseCodingTask(Task[CodeNetwork]):
    """A network, and codes to train it on.

    The loss is the mean over the layers that are run of `log10(sum |x_k - x*|^2 / sum |x*|^2)`, sums over the batch:
    a decibel is worth the same at every layer, where a sum of squares would see the first ones only. Layers are added
    one after the other over the first `growth` of the steps, and each starts as a copy of the one before.

    Args:
        model: trained in place.
        problem: codes and measurements.
        batch: samples a step.
        growth: share of the steps in which layers are added; 0 trains all from the start.
    """

    def __init__(self, model: CodeNetwork, problem: SparseProblem, *, batch: int = 64, growth: float = 0.6) -> None:
        self.model = model
        self.problem = problem
        self.operator = Dense(problem.dictionary)
        self.batch = batch
        self.growth = growth
        self._layers = model.n_layers

    def groups(self) -> list[dict[str, Any]]:
        """Return Adam's groups, see `code_groups`."""
        return code_groups(self.model)

    def begin(self, step: int, steps: int) -> None:
        """Set how many layers are run, and start the new one."""
        self.model.n_layers = self._grown(step, steps)
        if step > 0:
            for new in range(self._grown(step - 1, steps) + 1, self.model.n_layers + 1):
                self.model.repeat_layer(new)

    def _grown(self, step: int, steps: int) -> int:
        share = 1.0 if self.growth == 0 else step / (self.growth * steps)
        return min(self._layers, 1 + int(share * self._layers))

    def end(self) -> None:
        """Run all layers."""
        self.model.n_layers = self._layers

    def losses(self, step: int, rng: np.random.Generator) -> Iterator[Tensor]:
        """Yield the loss of a batch."""
        codes, measurements = self.problem.draw(self.batch, rng)
        energy = codes.square().sum()
        errors = [(x - codes).square().sum() for x in self.model.stages(measurements, self.operator)]
        yield torch.stack([(error / energy).log10() for error in errors]).mean()


def code_groups(model: CodeNetwork) -> list[dict[str, Any]]:
    """Return Adam's groups: matrices, and logarithms of steps and thresholds with 20 times their rate."""
    parameters = list(model.parameters())
    return [
        {"params": [p for p in parameters if p.ndim >= 2], "factor": 1.0},
        {"params": [p for p in parameters if p.ndim < 2], "factor": SCALAR_FACTOR},
    ]


def coding_score(problem: SparseProblem, count: int, rng: np.random.Generator) -> Callable[[CodeNetwork], float]:
    """Return a validation: minus the pooled NMSE in dB of the last layer, on draws that stay the same."""
    codes, measurements = problem.draw(count, rng)
    operator = Dense(problem.dictionary)
    return lambda model: -pooled_nmse_db(model(measurements, operator), codes)

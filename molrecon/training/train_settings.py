"""How long and how fast to train."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import numpy as np

from molrecon.training.defaults import CHECKPOINT_EVERY, CLIP, EMA, LEARNING_RATE, SEED, STEPS
from molrecon.training.processes import rank


@final
@dataclass(frozen=True)
class TrainSettings:
    """How long and how fast to train.

    Attributes:
        steps: optimiser steps of the whole schedule.
        learning_rate: peak of Adam's rate; a task may give groups of parameters a multiple of it.
        warmup: steps of linear increase.
        final_rate: what a cosine decays the rate to, relative to the peak; 1 for a constant rate.
        decay_start: step at which the cosine begins; the end of the warmup when None.
        betas: of Adam.
        seed: of every draw.
        ema: decay of the exponential moving average of the weights that the model ends with; 0 for none.
        clip: largest norm of the gradient, None for any.
        checkpoint_every: steps between checkpoints, each with a validation.
        log_every: steps between rows of the log.
        patience: stop after so many validations in a row without a new best score, and end with the weights of the
            best; None: never stop early, end with the last.
    """

    steps: int = STEPS
    learning_rate: float = LEARNING_RATE
    warmup: int = 100
    final_rate: float = 0.01
    decay_start: int | None = None
    betas: tuple[float, float] = (0.9, 0.98)
    seed: int = SEED
    ema: float = EMA
    clip: float | None = CLIP
    checkpoint_every: int = CHECKPOINT_EVERY
    log_every: int = 50
    patience: int | None = None

    def rate(self, step: int, factor: float = 1.0) -> float:
        """Return the learning rate of step 0, 1, ... for a group of parameters with this factor."""
        start = self.warmup if self.decay_start is None else self.decay_start
        progress = max(0, step - start) / max(1, self.steps - start)
        cosine = 0.5 * (1 + math.cos(math.pi * progress))
        rising = min(1.0, (step + 1) / max(1, self.warmup))
        return self.learning_rate * factor * rising * (self.final_rate + (1 - self.final_rate) * cosine)

    def rng(self, step: int) -> np.random.Generator:
        """Return the source of all randomness of a step; every process has a stream of its own."""
        return np.random.default_rng([self.seed, step, rank()] if rank() else [self.seed, step])

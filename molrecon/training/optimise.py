"""The loop of end-to-end training: Adam, a cosine schedule, resumable checkpoints."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np
import torch
from torch import Tensor, nn

from molrecon.training.files import write_checkpoint

logger = logging.getLogger(__name__)

LOG_EVERY = 50


@final
@dataclass(frozen=True)
class Schedule:
    """How long and how fast to train.

    Attributes:
        steps: optimiser steps.
        learning_rate: of Adam at the start; a cosine decays it to `final_rate` times that.
        final_rate: 1 for a constant rate.
        warmup: steps of linear increase.
        checkpoint_every: steps between checkpoints.
    """

    steps: int = 3000
    learning_rate: float = 1e-3
    final_rate: float = 0.02
    warmup: int = 50
    checkpoint_every: int = 250

    def rate(self, step: int) -> float:
        """Return the learning rate of step 0, 1, ..."""
        cosine = 0.5 * (1 + math.cos(math.pi * step / self.steps))
        decay = self.final_rate + (1 - self.final_rate) * cosine
        return self.learning_rate * min(1.0, (step + 1) / self.warmup) * decay


def optimise(
    model: nn.Module,
    losses: Callable[[int], Iterable[Tensor]],
    schedule: Schedule,
    checkpoint: Path,
    validate: Callable[[], float] | None = None,
) -> Iterator[int]:
    """Train in place, yielding the number of finished steps; at the end the model is in evaluation mode.

    Args:
        model: what is trained.
        losses: step -> terms of its loss, which are differentiated one by one; what they draw must depend on the step
            alone, and a run that is resumed is then the run that was never stopped.
        schedule: see Schedule.
        checkpoint: file to resume from where it exists, rewritten every `checkpoint_every` steps.
        validate: scores the model at checkpoints, for the log.
    """
    optimiser = torch.optim.Adam(model.parameters(), lr=schedule.learning_rate)
    first = 0
    if checkpoint.is_file():
        state = torch.load(checkpoint, weights_only=True, map_location=next(model.parameters()).device)
        model.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        first = state["step"]
        logger.info("resumed at step %d", first)
    history: list[float] = []
    started = time.perf_counter()
    model.train()
    for step in range(first, schedule.steps):
        for group in optimiser.param_groups:
            group["lr"] = schedule.rate(step)
        optimiser.zero_grad()
        history.append(0.0)
        for loss in losses(step):
            loss.backward()
            history[-1] += float(loss.detach())
        optimiser.step()
        done = step + 1
        if done % LOG_EVERY == 0:
            seconds = (time.perf_counter() - started) / len(history)
            logger.info("step %d  loss %.3e  %.2f s/step", done, float(np.mean(history)), seconds)
            history, started = [], time.perf_counter()
        if done % schedule.checkpoint_every == 0 or done == schedule.steps:
            state = {"model": model.state_dict(), "optimiser": optimiser.state_dict(), "step": done}
            write_checkpoint(state, checkpoint)
            if validate is not None:
                logger.info("step %d  validation PSNR %.3f", done, validate())
        yield done
    model.eval()

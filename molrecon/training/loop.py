"""The one training loop: Adam, a cosine schedule, averaged weights, early stopping, resumable to the bit."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Generic, TypeVar, final

import numpy as np
import torch
from torch import Tensor, nn

from molrecon.training.checkpoints import write_checkpoint
from molrecon.training.fingerprint import as_json_values, differences
from molrecon.training.log import TrainingLog
from molrecon.training.processes import (
    average_gradients,
    gather_states,
    process_count,
    rank,
    share_number,
    share_weights,
)
from molrecon.training.task import Task
from molrecon.training.train_settings import TrainSettings

logger = logging.getLogger(__name__)

M = TypeVar("M", bound=nn.Module)

CHECKPOINT_FILE = "checkpoint.pt"
FINGERPRINT_KEY = "facts"  # the name that existing checkpoints have


def train(
    task: Task[M],
    settings: TrainSettings,
    folder: Path,
    validate: Callable[[M], float] | None = None,
    *,
    fingerprint: Mapping[str, Any] | None = None,
    tensorboard: bool = False,
) -> Iterator[int]:
    """Return an iterator that trains in place and yields the number of finished steps.

    At the end the model is in evaluation mode and holds the averaged weights (see `TrainSettings`). The run resumes
    from FOLDER/checkpoint.pt where that exists, and continues to the bit; a finished one only hands out its weights.
    FOLDER/log.csv holds the columns step, loss (mean since the row before), rate, seconds (a step), validation, and the
    task's own.

    A checkpoint holds the fingerprint of its training: settings, model, and what the task and the caller add. One with
    another fingerprint is refused. The number of steps may change where no step depends on it: at a constant rate,
    without curriculum and patience. So may `log_every`, and without patience `checkpoint_every`.

    In several processes (see `process_group`) every one draws its own problems, gradients are averaged, so that the
    batch is that of all of them, and process 0 alone writes and validates. FOLDER must be the same folder for all.

    Args:
        task: what to train, and on what.
        settings: see `TrainSettings`.
        folder: for the checkpoint and the log; made where it is missing.
        validate: scores the model at checkpoints, more is better. The model then holds the averaged weights, in
            evaluation mode and as it will be handed out. Its data should be none of the training's, nor of a test's.
        fingerprint: what else distinguishes this training from others, as values that JSON can hold: first of all the
            data (see `array_fingerprint`, `file_fingerprint`).
        tensorboard: write the log for TensorBoard as well, to FOLDER/tensorboard.

    Raises:
        ValueError: patience without validation, or a checkpoint of another training or number of processes.
        TypeError: a fingerprint that JSON cannot hold.
        ImportError: TensorBoard is asked for and not installed.
        FloatingPointError: the loss or its gradient is not finite any more.
    """
    if settings.patience is not None and (validate is None or settings.patience < 1):
        raise ValueError(
            f"train: patience {settings.patience} with{'out' if validate is None else ''} validation, expected it to be"
            " positive, and a validation"
        )
    folder.mkdir(parents=True, exist_ok=True)
    return _steps(_Training(task, settings, folder / CHECKPOINT_FILE, validate, fingerprint or {}), folder, tensorboard)


def _steps(run: _Training[M], folder: Path, tensorboard: bool) -> Iterator[int]:
    log = TrainingLog(folder, run.step, tensorboard) if rank() == 0 else None
    losses: list[float] = []
    started = time.perf_counter()
    try:
        while not run.finished():
            run.model.train()
            losses.append(run.advance())
            at_checkpoint = run.step % run.settings.checkpoint_every == 0 or run.step == run.settings.steps
            if at_checkpoint or run.step % run.settings.log_every == 0:
                row = {
                    "loss": float(np.mean(losses)),
                    "rate": run.settings.rate(run.step - 1),
                    "seconds": (time.perf_counter() - started) / len(losses),
                }
                own = run.task.log()
                score = run.check_point() if at_checkpoint else None
                if log is not None:
                    log.write(run.step, {**row, "validation": score, **own})
                losses, started = [], time.perf_counter()
            yield run.step
        run.hand_out()
    finally:
        run.task.end()
        run.model.eval()
        if log is not None:
            log.close()


@final
class _Training(Generic[M]):
    """A training between two steps: all that a checkpoint holds."""

    def __init__(
        self,
        task: Task[M],
        settings: TrainSettings,
        checkpoint: Path,
        validate: Callable[[M], float] | None,
        fingerprint: Mapping[str, Any],
    ) -> None:
        self.task = task
        self.model = task.model
        self.settings = settings
        self.checkpoint = checkpoint
        self.validate = validate
        self.fingerprint = self._complete(fingerprint)
        self.device = next(self.model.parameters()).device
        self.optimiser = torch.optim.Adam(task.groups(), lr=settings.learning_rate, betas=settings.betas)
        self.step = 0
        self.best: dict[str, Tensor] | None = None
        self.best_score = -math.inf
        self.misses = 0
        share_weights(self.model)
        self.average = self._copy() if settings.ema else None
        if checkpoint.is_file():
            self._resume()

    def finished(self) -> bool:
        patience = self.settings.patience
        return self.step >= self.settings.steps or (patience is not None and self.misses >= patience)

    def advance(self) -> float:
        """Take a step and return its loss."""
        step, settings = self.step, self.settings
        self.task.begin(step, settings.steps)
        for group in self.optimiser.param_groups:
            group["lr"] = settings.rate(step, group["factor"])
        self.optimiser.zero_grad()
        total = 0.0
        for loss in self.task.losses(step, settings.rng(step)):
            loss.backward()
            total += float(loss.detach())
        average_gradients(self.model.parameters())
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), settings.clip or math.inf)
        if not (math.isfinite(total) and bool(torch.isfinite(norm))):
            raise FloatingPointError(
                f"train: loss {total} and gradient norm {float(norm)} at step {step}, expected finite numbers; a"
                " smaller learning rate may help"
            )
        self.optimiser.step()
        self.task.after_step(step)
        self._update_average(step)
        self.step += 1
        return total

    def _update_average(self, step: int) -> None:
        if self.average is None:
            return
        # A smaller decay at first, so that the average does not hold on to the untrained weights.
        decay = min(self.settings.ema, (1 + step) / (10 + step))
        for key, value in self.model.state_dict().items():
            if value.is_floating_point() or value.is_complex():
                self.average[key].lerp_(value, 1 - decay)
            else:
                self.average[key].copy_(value)

    def check_point(self) -> float | None:
        """Validate, write the checkpoint, and return the score."""
        score = None
        if self.validate is not None:
            score = share_number(self._score() if rank() == 0 else 0.0, self.device)
            self.misses = 0 if score > self.best_score else self.misses + 1
            if score > self.best_score:
                self.best_score = score
                weights = self.model.state_dict() if self.average is None else self.average
                self.best = {key: value.clone() for key, value in weights.items()}
        tasks = gather_states(self.task.state(), self.device)
        if rank() == 0:
            state = {"model": self.model.state_dict(), "optimiser": self.optimiser.state_dict(), "tasks": tasks}
            state |= {name: getattr(self, name) for name in ("step", "average", "best", "best_score", "misses")}
            write_checkpoint({**state, FINGERPRINT_KEY: self.fingerprint}, self.checkpoint)
        return score

    def hand_out(self) -> None:
        """Give the model the weights that it ends with."""
        weights = self.average if self.settings.patience is None or self.best is None else self.best
        if weights is not None:
            self.model.load_state_dict(weights)

    def _complete(self, fingerprint: Mapping[str, Any]) -> dict[str, Any]:
        own = {"model": type(self.model).__name__, "parameters": sum(p.numel() for p in self.model.parameters())}
        return as_json_values({**own, **asdict(self.settings), **self.task.fingerprint(), **fingerprint})

    def _free(self, step: int) -> set[str]:
        """Return the entries of the fingerprint that may change at a step and leave all earlier steps as they were."""
        settings = self.settings
        free = {"log_every"} | ({"checkpoint_every"} if settings.patience is None else set())
        # A constant rate and no curriculum: a longer training begins as the shorter one did.
        constant = settings.final_rate == 1 and settings.patience is None and type(self.task).begin is Task.begin
        return free | ({"steps"} if constant and step <= settings.steps else set())

    def _resume(self) -> None:
        try:
            state = torch.load(self.checkpoint, weights_only=True, map_location=self.device)
            recorded, free = state.get(FINGERPRINT_KEY), self._free(state["step"])
            if recorded is None:
                raise ValueError("it does not say of which training, as those of version 0.1")
            bound = [{name: x for name, x in each.items() if name not in free} for each in (recorded, self.fingerprint)]
            if different := differences(*bound):
                raise ValueError(f"found {', '.join(different)}")
            self.model.load_state_dict(state["model"])
            self.optimiser.load_state_dict(state["optimiser"])
        except Exception as error:  # torch.load raises many kinds, one for every way a file can be wrong
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise ValueError(
                f"{self.checkpoint}: not a checkpoint of this training ({reason}), expected one, or another folder"
            ) from error
        if len(state["tasks"]) != process_count():
            raise ValueError(
                f"{self.checkpoint}: written by {len(state['tasks'])} processes, expected as many as there are,"
                f" {process_count()}"
            )
        for name in ("step", "average", "best", "best_score", "misses"):
            setattr(self, name, state[name])
        self.average = (self.average or self._copy()) if self.settings.ema else None
        if not self.finished():
            self.task.load_state(state["tasks"][rank()], self.settings.rng)
        logger.info("resumed at step %d", self.step)

    def _score(self) -> float:
        """Return the score of the averaged weights; the model has its own again afterwards."""
        if self.validate is None:
            raise RuntimeError("train: nothing to validate with")
        own = self._copy()
        if self.average is not None:
            self.model.load_state_dict(self.average)
        self.task.end()
        self.model.eval()
        with torch.no_grad():
            score = self.validate(self.model)
        self.model.load_state_dict(own)
        return score

    def _copy(self) -> dict[str, Tensor]:
        return {key: value.clone() for key, value in self.model.state_dict().items()}

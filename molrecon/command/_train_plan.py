"""The training that the arguments of `molrecon train` describe: data, model and run. Imports torch."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch

from molrecon.command._train_data import training_data
from molrecon.reconstructors.learned import LearnedReconstructor
from molrecon.simulation.problem import Problem
from molrecon.training.defaults import DEFAULT_LOSS, DESCRIPTIONS
from molrecon.training.fastmri_folder import FastMRIFolder
from molrecon.training.image_stacks import Scans
from molrecon.training.log import finish, read_log, require_tensorboard
from molrecon.training.loop import train
from molrecon.training.losses import LOSSES
from molrecon.training.models import build
from molrecon.training.processes import process_count, rank
from molrecon.training.reconstruction_task import (
    ReconstructionSettings,
    ReconstructionTask,
    mean_psnr,
    withheld_score,
)
from molrecon.training.train_settings import TrainSettings
from molrecon.weights import save

VALIDATION_PROBLEMS = 12


@final
@dataclass(frozen=True)
class TrainingPlan:
    """A training that is ready to run.

    Attributes:
        task, settings: see `training.loop.train`.
        data: what is drawn from.
        problems: of the validation.
        card: of the model, without its scores.
        folder, name: where the weights go.
        tensorboard: whether to write for it.
    """

    task: ReconstructionTask
    settings: TrainSettings
    data: FastMRIFolder | Scans
    problems: list[Problem]
    card: dict[str, Any]
    folder: Path
    name: str
    tensorboard: bool

    def score(self, model: LearnedReconstructor) -> float:
        """Return the validation score: PSNR, or without references minus the loss of withheld samples."""
        return withheld_score(model, self.problems) if self._blind() else mean_psnr(model, self.problems)

    def start(self) -> Iterator[int]:
        """Return the steps of the training, see `training.loop.train`."""
        fingerprint = {**self.data.fingerprint(), "validation_problems": len(self.problems)}
        return train(
            self.task, self.settings, self.folder, self.score, fingerprint=fingerprint, tensorboard=self.tensorboard
        )

    def finish(self, steps: Iterator[int]) -> str:
        """Take all steps, write weights and card, and return what to tell the user; process 0 alone writes."""
        finish(steps, self.settings.steps)
        if rank() > 0:
            return ""
        score = round(self.score(self.task.model), 3)
        name, number = ("withheld_loss", -score) if self._blind() else ("validation_psnr_db", score)
        path = self.folder / f"{self.name}.safetensors"
        rows = read_log(self.folder)
        steps_done = int(rows[-1]["step"]) if rows else self.settings.steps
        outcome = {"steps": steps_done, "data": self.data.describe(), "scores": {name: number}}
        save(self.task.model, path, {**self.card, **outcome})
        return f"{steps_done} steps, {name.replace('_', ' ')} {number:.2f}: {path}"

    def unusable(self) -> list[str]:
        """Return the files that were left out, each with the reason."""
        rejected = self.data.rejected if isinstance(self.data, FastMRIFolder) else []
        return [f"{path}: {reason}" for path, reason in rejected]

    def _blind(self) -> bool:
        return any(bool(torch.isnan(problem.reference).any()) for problem in self.problems)


def plan_training(args: argparse.Namespace, device: torch.device) -> TrainingPlan:
    """Read the data as far as needed and build the model.

    Args:
        args: of the command.
        device: of this process.

    Raises:
        UnreadableInput: data that cannot be used.
        ValueError: arguments that make no sense together.
    """
    if args.self_supervised and args.loss is not None:
        raise ValueError(f"--loss {args.loss} with --self-supervised, expected one of them: that has a loss of its own")
    if args.tensorboard:
        try:
            require_tensorboard()
        except ImportError as error:
            raise ValueError(str(error)) from error
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    settings = TrainSettings(
        steps=args.steps,
        learning_rate=args.learning_rate,
        seed=args.seed,
        ema=args.ema,
        clip=args.clip or None,
        checkpoint_every=args.checkpoint_every,
        patience=args.patience,
    )
    task_settings = ReconstructionSettings(self_supervised=args.self_supervised, precision=args.precision)
    model = build(args.model, seed=args.seed).to(device)
    data = training_data(args, device)
    loss = LOSSES[args.loss or DEFAULT_LOSS]
    name = args.name or args.model
    card = {
        "name": name,
        "model": DESCRIPTIONS[args.model] + ", 2D multi-coil Cartesian MRI",
        "loss": "withheld samples (SSDU)" if args.self_supervised else args.loss or DEFAULT_LOSS,
        "batch": args.batch,
        "processes": process_count(),
        **{key: getattr(args, key) for key in ("seed", "learning_rate", "ema", "patience", "precision")},
        "parameters": sum(p.numel() for p in model.parameters()),
        "licence": "that of the data",
        "intended_use": "research use",
    }
    task = ReconstructionTask(model, data.draw, task_settings, loss)
    problems = data.problems(VALIDATION_PROBLEMS)
    return TrainingPlan(task, settings, data, problems, card, args.out, name, args.tensorboard)

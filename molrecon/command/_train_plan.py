"""The training that the arguments of `molrecon train` describe: data, model and run. Imports torch."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, final

import torch

from molrecon.io import UnreadableInput
from molrecon.reconstructors.learned import LearnedReconstructor
from molrecon.simulation.problem import Problem
from molrecon.training.defaults import DEFAULT_LOSS, DESCRIPTIONS
from molrecon.training.fastmri_folder import FastMRIFolder
from molrecon.training.image_stacks import Scans, hold_out, read_stack
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
FASTMRI_SUFFIXES = (".h5", ".hdf5")


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
    data = _data(args, device)
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


def _data(args: argparse.Namespace, device: torch.device) -> FastMRIFolder | Scans:
    if any(_is_fastmri(path) for path in args.data):
        if len(args.data) > 1 or not args.data[0].is_dir() or len(args.validation or []) > 1:
            raise ValueError(
                "DATA of fastMRI files: expected one folder of them, and one for --validation at most; got"
                f" {', '.join(map(str, (*args.data, *(args.validation or []))))}"
            )
        return _fastmri(args, device)
    training = [read_stack(path) for path in args.data]
    if args.validation:
        validation = [read_stack(path) for path in args.validation]
    else:
        splits = [hold_out(stack) for stack in training]
        training, validation = [split[0] for split in splits], [split[1] for split in splits]
    return Scans(
        training,
        validation,
        size=args.size,
        rows=args.rows,
        batch=args.batch,
        first=max(1, min(48, args.steps)),
        seed=args.seed,
        device=device,
        name=_names(args.data),
    )


def _fastmri(args: argparse.Namespace, device: torch.device) -> FastMRIFolder:
    build = partial(
        FastMRIFolder,
        args.data[0],
        args.validation[0] if args.validation else None,
        rows=args.rows,
        batch=args.batch,
        seed=args.seed,
        device=device,
    )
    if not args.self_supervised:
        return build()
    # Fully sampled files are undersampled anew, as ever, and validated by their references. Others are as measured.
    measured = build(as_measured=True)
    try:
        full = build()
    except UnreadableInput:
        return measured
    return full if len(full.rejected) <= len(measured.rejected) else measured


def _is_fastmri(path: Path) -> bool:
    if not path.exists():
        raise UnreadableInput(path, "no such file or folder", "fastMRI files or image stacks")
    if path.is_dir():
        return any(item.suffix in FASTMRI_SUFFIXES for item in path.iterdir())
    return path.suffix in FASTMRI_SUFFIXES


def _names(paths: Sequence[Path]) -> str:
    return "image stacks " + ", ".join(path.name for path in paths)

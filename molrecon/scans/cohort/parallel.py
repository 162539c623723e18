"""A cohort in several processes of this machine, each with the model on a device of its own."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import final

import torch

from molrecon.reconstructors.base import Reconstructor
from molrecon.scans.cohort.one_volume import carry_out, conclude
from molrecon.scans.cohort.recipe import Item, Outcome, Recipe
from molrecon.scans.cohort.workers import Died, run_in_workers
from molrecon.scans.manifest import FAILED, Entry
from molrecon.scans.memory.allocator import tune_for
from molrecon.scans.methods import load_method
from molrecon.scans.outputs import temporary_prefix

CarryOut = Callable[[Item, Reconstructor, Recipe], Outcome]


@final
@dataclass(frozen=True)
class InWorkers:
    """Carries out items in processes, any of which may be killed: its volume is tried again, twice, and then fails.

    Attributes:
        workers: how many processes.
        devices: of the workers in turn; none: all have that of the settings.
        carry_out: what is done with each item; a function of a module, which is called in the workers.
    """

    workers: int
    devices: Sequence[torch.device | str] = ()
    carry_out: CarryOut = carry_out

    def __call__(self, model: Reconstructor, recipe: Recipe, items: Sequence[Item]) -> Iterator[Outcome]:
        """Yield what becomes of each item, as it comes.

        Raises:
            RuntimeError: the workers cannot start, see `run_in_workers`.
        """
        processes = max(1, min(self.workers, len(items)))
        threads = max(1, (os.cpu_count() or 1) // processes)
        start = _Start(self.carry_out, recipe, tuple(self.devices), threads)

        def remove_unfinished(process: int) -> None:
            _remove_unfinished(recipe.out, process)

        for item, outcome in run_in_workers(items, start, processes, remove_unfinished):
            yield _failed(item, recipe, outcome) if isinstance(outcome, Died) else outcome


@final
@dataclass(frozen=True, eq=False)
class _Start:
    """Loads the model in a new process."""

    carry_out: CarryOut
    recipe: Recipe
    devices: tuple[torch.device | str, ...]
    threads: int

    def __call__(self, number: int) -> Callable[[Item], Outcome]:
        tune_for(self.recipe.settings.memory)
        if "OMP_NUM_THREADS" not in os.environ:  # else torch has obeyed it
            torch.set_num_threads(self.threads)
        device = self.devices[number % len(self.devices)] if self.devices else self.recipe.settings.device
        recipe = replace(self.recipe, settings=replace(self.recipe.settings, device=device, progress=False))
        model = load_same(recipe)
        return lambda item: self.carry_out(item, model, recipe)


def load_same(recipe: Recipe) -> Reconstructor:
    """Return the recipe's model, loaded again by its name.

    Raises:
        ValueError: its weights are others by now.
    """
    model, source = load_method(recipe.source.name)
    if source != recipe.source:
        raise ValueError(
            f"reconstruct: {recipe.source.name} has weights {source.weights_sha256}, expected"
            f" {recipe.source.weights_sha256}, those of the process that started this one"
        )
    return model


def _failed(item: Item, recipe: Recipe, died: Died) -> Outcome:
    message = (
        f"the process that worked on it was ended {died.attempts} times, the last time with exit code {died.exit_code}"
        " (-9: killed, for instance when memory runs out)"
    )
    return conclude(item, recipe, Entry(str(item.path), FAILED, message, []))


def _remove_unfinished(out: Path | None, process: int) -> None:
    """Remove what a dead process of this machine was about to write."""
    if out is not None:
        for folder in out.glob(f"{temporary_prefix(socket.gethostname(), process)}*"):
            shutil.rmtree(folder, ignore_errors=True)

"""What is trained, and on what: the part of a training that the loop does not know."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

import numpy as np
from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)


class Task(ABC, Generic[M]):
    """What is trained, and on what: the part of a training that the loop does not know.

    Attributes:
        model: its parameters are trained in place.
    """

    model: M

    @abstractmethod
    def losses(self, step: int, rng: np.random.Generator) -> Iterator[Tensor]:
        """Yield the terms of the loss of a step, which are differentiated one by one and released.

        What is drawn must depend on the step and `rng` alone, or on what `state` returns: then a run that is resumed
        is the run that was never stopped.
        """

    def groups(self) -> list[dict[str, Any]]:
        """Return Adam's groups: "params", and "factor", their multiple of the learning rate."""
        return [{"params": list(self.model.parameters()), "factor": 1.0}]

    def begin(self, step: int, steps: int) -> None:
        """Prepare the model for step number `step` of `steps`: curricula belong here."""

    def end(self) -> None:
        """Put back what `begin` changed: called before every validation and at the end."""

    def after_step(self, step: int) -> None:
        """Do what an optimiser step needs afterwards, such as a projection."""

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint must hold beside weights and optimiser, such that torch.load can read it."""
        return {}

    def load_state(self, state: dict[str, Any], rng: Callable[[int], np.random.Generator]) -> None:
        """Take back what `state` returned; `rng` gives the source of randomness of an earlier step."""

    def fingerprint(self) -> dict[str, Any]:
        """Return what distinguishes this training from others of its kind, as values that JSON can hold."""
        return {}

    def log(self) -> dict[str, float | None]:
        """Return the task's own columns, means since the last call; the same names every time."""
        return {}

"""What is asked of the layers of a network, and whether a network does it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar, final

import numpy as np
import torch
from torch import Tensor, nn

from molrecon.descent.descent_checks import distance_ratios, gradient_norm_ratios
from molrecon.reconstructors.unrolled import Disturb

M = TypeVar("M", bound=nn.Module)
B = TypeVar("B")
Form = Literal["distance", "gradient"]


@final
@dataclass(frozen=True)
class Descent:
    """What every layer is asked for, and how the multipliers move.

    Attributes:
        epsilon: eps_l, one number for all layers or one for each.
        form: "distance" or "gradient".
        dual_rate: of the multipliers' ascent.
        dual_every: optimiser steps between two dual steps; each then takes the mean of the violations in between.
        augmented: weight c of the augmented Lagrangian, which adds `((max(0, nu + c v))^2 - nu^2) / (2 c)` in place of
            `nu v` for a violation v; 0 for the plain Lagrangian.
        ramp: share of the training in which epsilon grows linearly from 0.
        tolerance: a network is feasible if no layer's ratio exceeds `1 - eps_l` by more on the validation data.

    Raises:
        ValueError: numbers out of their range, or another form.
    """

    epsilon: float | tuple[float, ...] = 0.05
    form: Form = "distance"
    dual_rate: float = 1e-3
    dual_every: int = 1
    augmented: float = 0.0
    ramp: float = 0.0
    tolerance: float = 0.01

    def __post_init__(self) -> None:
        epsilons = self.epsilon if isinstance(self.epsilon, tuple) else (self.epsilon,)
        if not all(0 <= eps < 1 for eps in epsilons) or self.form not in ("distance", "gradient"):
            raise ValueError(
                f"Descent: epsilon {self.epsilon} in the form {self.form!r}, expected numbers in [0, 1), and 'distance'"
                " or 'gradient'"
            )
        if self.dual_rate <= 0 or self.dual_every < 1 or self.augmented < 0 or self.tolerance < 0:
            raise ValueError(
                f"Descent: dual_rate {self.dual_rate}, dual_every {self.dual_every}, augmented {self.augmented} and"
                f" tolerance {self.tolerance}, expected the first two positive and the others not negative"
            )
        if not 0 <= self.ramp <= 1:
            raise ValueError(f"Descent: ramp {self.ramp}, expected a share in [0, 1]")

    def limits(self, n_layers: int, progress: float = 1.0) -> list[float]:
        """Return `1 - eps_l` of each layer after this share of the training.

        Raises:
            ValueError: epsilons for another number of layers.
        """
        epsilons = self.epsilon if isinstance(self.epsilon, tuple) else (self.epsilon,) * n_layers
        if len(epsilons) != n_layers:
            raise ValueError(f"Descent: {len(epsilons)} epsilons for a network of {n_layers} layers, expected as many")
        share = min(1.0, progress / self.ramp) if self.ramp else 1.0
        return [1 - share * eps for eps in epsilons]


class DescentProblem(ABC, Generic[M, B]):
    """A network that exposes its layers, and problems to train it on.

    Attributes:
        model: trained in place.
        n_layers: L.
    """

    model: M
    n_layers: int

    @abstractmethod
    def draw(self, step: int, rng: np.random.Generator) -> B:
        """Return the batch of a step, which depends on the step and `rng` alone."""

    @abstractmethod
    def layers(self, batch: B, disturb: Disturb | None) -> tuple[Tensor, Sequence[Tensor]]:
        """Return y_0 and [y_1, .., y_L], each (batch, ...); `disturb` is for the outputs of layers 1, .., L - 1."""

    @abstractmethod
    def final_loss(self, last: Tensor, batch: B) -> Tensor:
        """Return the loss of y_L, a scalar."""

    def reference(self, batch: B) -> Tensor:
        """Return y* of each sample, for the distance form and for all checks."""
        raise NotImplementedError(f"{type(self).__name__}: no reference, expected one for the distance form")

    def gradient(self, output: Tensor, batch: B) -> Tensor:
        """Return `grad f` of each sample at a layer's output, differentiable, for the gradient form."""
        raise NotImplementedError(f"{type(self).__name__}: no gradient, expected one for the gradient form")

    def run_to(self, n_layers: int) -> None:
        """Let the network run with so many layers, its last one repeated past those it has."""
        raise NotImplementedError(f"{type(self).__name__}: no layers past the last, expected a network that repeats it")

    def groups(self) -> list[dict[str, Any]]:
        """Return Adam's groups, see `Task.groups`."""
        return [{"params": list(self.model.parameters()), "factor": 1.0}]

    def ratios(self, start: Tensor, outputs: Sequence[Tensor], batch: B, form: Form) -> Tensor:
        """Return what the constraints limit, one number a layer, (L,)."""
        if form == "distance":
            return distance_ratios(outputs, start, self.reference(batch))
        return gradient_norm_ratios([self.gradient(y, batch) for y in outputs], self.gradient(start, batch))


@final
@dataclass(frozen=True)
class Assessment:
    """A network on the validation data, without layer noise.

    Attributes:
        loss: mean of the final loss.
        ratios: of each layer, means over the batches.
        excess: the largest ratio minus its limit `1 - eps_l`; how much the worst layer violates its constraint.
        feasible: whether that is within the tolerance.
    """

    loss: float
    ratios: tuple[float, ...]
    excess: float
    feasible: bool

    def score(self) -> float:
        """Return a number that is larger for better networks: feasible ones by loss, then others by violation.

        Feasible: positive, falls with the loss, `1 / (1 + loss)`, for negative losses `1 - loss`. Otherwise: -excess.
        """
        if not self.feasible:
            return -self.excess
        return 1 - self.loss if self.loss < 0 else 1 / (1 + self.loss)


@torch.no_grad()
def assess(problem: DescentProblem[M, B], batches: Sequence[B], descent: Descent) -> Assessment:
    """Return loss and ratios of the problem's network as it is, batches counting alike."""
    losses, ratios = [], []
    for batch in batches:
        start, outputs = problem.layers(batch, None)
        losses.append(float(problem.final_loss(outputs[-1], batch)))
        ratios.append(problem.ratios(start, outputs, batch, descent.form).double())
    mean = torch.stack(ratios).mean(0)
    excess = float((mean - mean.new_tensor(descent.limits(problem.n_layers))).max())
    return Assessment(float(np.mean(losses)), tuple(mean.tolist()), excess, excess <= descent.tolerance)

"""Training unrolled networks whose layers descend: a constraint and a multiplier for each, and noise between them.

    task = DescentTask(problem, Descent(epsilon=0.05), LayerNoise(0.1, decay=0.5))
    finish(train(task, settings, folder, task.validator(batches)), settings.steps)

The problem is `minimise E loss(y_L)` subject to one constraint for each layer l = 1, .., L, either of

    distance form    E[|y_l - y*| / |y_{l-1} - y*|] <= 1 - eps_l
    gradient form    E|grad f(y_l)| / E|grad f(y_{l-1})| <= 1 - eps_l

solved by primal descent and dual ascent. The loop's Adam takes a step on `loss + sum_l nu_l c_l`, c_l the ratio minus
`1 - eps_l` on the batch; then `nu <- max(0, nu + dual_rate c)`. Constraints, multipliers, both forms of the Lagrangian
and the dual step are those of cooper-optim.

References: Hadou, NaderiAlizadeh, Ribeiro, Robust stochastically-descending unrolled networks, IEEE TSP 2024,
arXiv 2312.15788 (constraints, primal-dual training, layer noise); Gallego-Posada et al., Cooper, 2025. It differs from
the source in the form of the gradient constraint, here a ratio so that multipliers mean the same in all layers, and in
the size of the noise.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Generic, Literal, TypeVar, final

import numpy as np
import torch
from torch import Tensor, nn

from molrecon.descent.descent_checks import LayerNoise, distance_ratios, gradient_norm_ratios
from molrecon.descent.multipliers import Layerwise
from molrecon.reconstructors.unrolled import Disturb
from molrecon.training.loop import Task

logger = logging.getLogger(__name__)

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


@final
class DescentTask(Task[M], Generic[M, B]):
    """The training of a network whose layers should descend, or of the same network without that for comparison.

    The log has a column for each layer's ratio (mean over the steps since the last row, layer noise included), its
    slack `1 - eps_l - ratio`, negative where the constraint is violated, and its multiplier. Batches and layer noise
    come from two streams of their own: with and without noise or constraints a step has the same batch.

    Args:
        problem: network and data.
        descent: the constraints; what is logged and validated is measured against them in any case.
        noise: after layers 1, .., L - 1 in training, None for none.
        constrained: whether the constraints take part in the training.

    Attributes:
        assessments: (finished steps, `Assessment`) of the validations so far.
    """

    def __init__(
        self,
        problem: DescentProblem[M, B],
        descent: Descent,
        noise: LayerNoise | None = None,
        *,
        constrained: bool = True,
    ) -> None:
        descent.limits(problem.n_layers)
        self.problem = problem
        self.model = problem.model
        self.descent = descent
        self.noise = noise
        self.constrained = constrained
        self.constraints = Layerwise(
            problem.n_layers, descent.dual_rate, descent.augmented, next(self.model.parameters())
        )
        self.assessments: list[tuple[int, Assessment]] = []
        self._limits = self.constraints.multiplier.weight.new_tensor(descent.limits(problem.n_layers))
        self._pending: list[Tensor] = []
        self._seen: list[tuple[float, Tensor, Tensor]] = []
        self._finished = 0

    @property
    def multipliers(self) -> Tensor:
        """nu, one of each layer, (L,)."""
        return self.constraints.multiplier.weight.detach().clone()

    def groups(self) -> list[dict[str, Any]]:
        """Return Adam's groups: the problem's."""
        return self.problem.groups()

    def begin(self, step: int, steps: int) -> None:
        """Set the limits of this step."""
        self._finished = step
        self._limits = self._limits.new_tensor(self.descent.limits(self.problem.n_layers, step / steps))

    def losses(self, step: int, rng: np.random.Generator) -> Iterator[Tensor]:
        """Yield the Lagrangian of a batch, or its loss alone where nothing is constrained."""
        batches, noise = rng.spawn(2)
        batch = self.problem.draw(step, batches)
        start, outputs = self.problem.layers(batch, self._disturb(noise))
        loss = self.problem.final_loss(outputs[-1], batch)
        ratios = self.problem.ratios(start, outputs, batch, self.descent.form)
        violation = ratios - self._limits
        self._seen.append((float(loss.detach()), ratios.detach(), -violation.detach()))
        if not self.constrained:
            yield loss
            return
        self._pending.append(violation.detach())
        yield self.constraints.lagrangian(loss, violation)

    def _disturb(self, rng: np.random.Generator) -> Disturb | None:
        if self.noise is None:
            return None
        return self.noise.disturb(torch.Generator().manual_seed(int(rng.integers(2**62))))

    def after_step(self, step: int) -> None:
        """Take the dual step, where one is due, with the violations that the weights of the last steps had."""
        self._finished = step + 1
        if len(self._pending) >= self.descent.dual_every:
            self.constraints.ascend(torch.stack(self._pending).mean(0))
            self._pending = []

    def validator(self, batches: Sequence[B]) -> Callable[[M], float]:
        """Return the loop's validation on these batches: the score of `assess`, recorded in `assessments`.

        Where the training is constrained it chooses among feasible networks, and without one the least violating (see
        `Assessment.score`); otherwise by the loss alone. For the loop to end with the best, give it a patience.
        """

        def validate(_: M) -> float:
            found = assess(self.problem, batches, self.descent)
            self.assessments.append((self._finished, found))
            logger.info(
                "step %d  %s: validation loss %.4g, worst layer %+.3g beyond its limit",
                self._finished,
                "feasible" if found.feasible else "not feasible",
                found.loss,
                found.excess,
            )
            return found.score() if self.constrained else Assessment(found.loss, (), 0.0, True).score()

        return validate

    def state(self) -> dict[str, Any]:
        """Return multipliers, dual optimiser, the violations that wait for a dual step, and the validations."""
        return {
            "constraints": self.constraints.state(),
            "pending": self._pending,
            "assessments": [(step, asdict(found)) for step, found in self.assessments],
        }

    def load_state(self, state: dict[str, Any], rng: Callable[[int], np.random.Generator]) -> None:
        """Take back what `state` returned."""
        self.constraints.load(state["constraints"])
        self._pending = list(state["pending"])
        self.assessments = [(step, Assessment(**found)) for step, found in state["assessments"]]

    def log(self) -> dict[str, float | None]:
        """Return the mean final loss, and of each layer ratio, slack and multiplier."""
        seen, self._seen = self._seen, []
        ratios, slacks = (torch.stack([row[i] for row in seen]).mean(0).tolist() for i in (1, 2))  # type: ignore[misc]
        row: dict[str, float | None] = {"final_loss": float(np.mean([loss for loss, _, _ in seen]))}
        for name, numbers in (("ratio", ratios), ("slack", slacks), ("multiplier", self.multipliers.tolist())):
            row |= {f"{name}_{number}": x for number, x in enumerate(numbers, 1)}
        return row

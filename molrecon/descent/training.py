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
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Any, Generic, TypeVar, final

import numpy as np
import torch
from torch import Tensor, nn

from molrecon.descent.constraints import Assessment, Descent, DescentProblem, assess
from molrecon.descent.descent_checks import LayerNoise
from molrecon.descent.multipliers import Layerwise
from molrecon.reconstructors.unrolled import Disturb
from molrecon.training.task import Task

logger = logging.getLogger(__name__)

M = TypeVar("M", bound=nn.Module)
B = TypeVar("B")


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
        self._steps_to_log: list[tuple[float, Tensor, Tensor]] = []
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
        self._steps_to_log.append((float(loss.detach()), ratios.detach(), -violation.detach()))
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
            assessment = assess(self.problem, batches, self.descent)
            self.assessments.append((self._finished, assessment))
            logger.info(
                "step %d  %s: validation loss %.4g, worst layer %+.3g beyond its limit",
                self._finished,
                "feasible" if assessment.feasible else "not feasible",
                assessment.loss,
                assessment.excess,
            )
            return assessment.score() if self.constrained else Assessment(assessment.loss, (), 0.0, True).score()

        return validate

    def state(self) -> dict[str, Any]:
        """Return multipliers, dual optimiser, the violations that wait for a dual step, and the validations."""
        return {
            "constraints": self.constraints.state(),
            "pending": self._pending,
            "assessments": [(step, asdict(assessment)) for step, assessment in self.assessments],
        }

    def load_state(self, state: dict[str, Any], rng: Callable[[int], np.random.Generator]) -> None:
        """Take back what `state` returned."""
        self.constraints.load(state["constraints"])
        self._pending = list(state["pending"])
        self.assessments = [(step, Assessment(**assessment)) for step, assessment in state["assessments"]]

    def log(self) -> dict[str, float | None]:
        """Return the mean final loss, and of each layer ratio, slack and multiplier."""
        steps, self._steps_to_log = self._steps_to_log, []
        ratios, slacks = (torch.stack([row[i] for row in steps]).mean(0).tolist() for i in (1, 2))  # type: ignore[misc]
        row: dict[str, float | None] = {"final_loss": float(np.mean([loss for loss, _, _ in steps]))}
        for name, numbers in (("ratio", ratios), ("slack", slacks), ("multiplier", self.multipliers.tolist())):
            row |= {f"{name}_{number}": x for number, x in enumerate(numbers, 1)}
        return row

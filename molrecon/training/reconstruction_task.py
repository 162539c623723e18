"""Training of multi-coil reconstructors, equilibrium or unrolled: a pool of problems, warm starts, the barrier."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, final

import numpy as np
import torch
from torch import Tensor

from molrecon.networks.denoiser import to_channels
from molrecon.reconstructors.conditioning import NOISE_LIMITS, Conditioning, smooth_phase, with_model_error
from molrecon.reconstructors.learned import LearnedReconstructor
from molrecon.reconstructors.planes import PlaneByPlane
from molrecon.simulation.strips import Problem, magnitude_psnr
from molrecon.solvers.batched import per_sample
from molrecon.solvers.solution import Solution
from molrecon.solvers.solver_settings import SolverSettings
from molrecon.training.lipschitz_penalty import log_barrier, stretch
from molrecon.training.losses import Loss, log_mse
from molrecon.training.self_supervised import split
from molrecon.training.task import Task
from molrecon.weights.stored import describe_model

Precision = Literal["single", "mixed"]
Draw = Callable[[np.random.Generator, int], Problem]


@final
@dataclass(frozen=True)
class ReconstructionSettings:
    """How reconstructors are trained.

    Attributes:
        pool: problems in rotation.
        visits: optimiser steps that each problem takes part in, started from its last equilibrium.
        early_share, early_monotonicity: for this first share of the steps the network has this m where its own is
            smaller: a solve then takes half the iterations. Its own pulls less towards zero and wants smaller steps of
            everything.
        early_unrolls: stages of an unrolled network in that share.
        penalty: weight of the Lipschitz barrier at `T = 1 - m` for monotone equilibrium models that are not strict.
        forward_tol, backward_tol: goals for the residuals `|r| / |x|` of the two solves.
        self_supervised: judge the image by a part of the samples that is withheld from the model (SSDU), and not by the
            reference and the loss; see `self_supervised.split`.
        precision: "mixed" computes the network's convolutions in bfloat16 by autocast, the data consistency and all
            complex numbers as ever. Not for equilibrium models: rounding by 2^-8 leaves a residual of that size, an
            error of 2^-8 / m, where the residual's goal is 7e-4; TF32, at 2^-10, does not reach that either.
    """

    pool: int = 16
    visits: int = 4
    early_share: float = 0.4
    early_monotonicity: float = 0.05
    early_unrolls: int = 3
    penalty: float = 0.05
    forward_tol: float = 7e-4
    backward_tol: float = 5e-2
    self_supervised: bool = False
    precision: Precision = "single"


@dataclass
class _Visit:
    """A problem of the pool; all but what a redraw brings back is in the checkpoint."""

    drawn_at: int
    problem: Problem
    conditioning: Conditioning
    judge: Callable[[Tensor], Tensor]
    image: Tensor | None = None
    direction: Tensor | None = None
    count: int = 0


@final
class ReconstructionTask(Task[LearnedReconstructor]):
    """A reconstructor, and problems to train it on.

    A problem stays in a pool for several optimiser steps. An equilibrium model starts each from its last equilibrium,
    which moves little with the weights: most steps cost three or four iterations; its gradient is the implicit one at
    that equilibrium. Strict networks keep to their Lipschitz bound by themselves; other networks of MOL pay a log
    barrier on a local Lipschitz estimate at the equilibrium.

    Args:
        model: the reconstructor.
        draw: (generator, step) -> a problem whose reference has intensity near 1, on the model's device; steps come
            in rising order.
        settings: see ReconstructionSettings.
        loss: (image, reference) -> scalar.

    Raises:
        ValueError: mixed precision for an equilibrium model.
    """

    def __init__(
        self,
        model: LearnedReconstructor,
        draw: Draw,
        settings: ReconstructionSettings | None = None,
        loss: Loss = log_mse,
    ) -> None:
        self.settings = settings or ReconstructionSettings()
        if self.settings.precision == "mixed" and model.solver is not None:
            raise ValueError(
                f"ReconstructionTask: precision 'mixed' for {type(model).__name__}, expected 'single': an equilibrium"
                " is found to the rounding of its network over m, and bfloat16 rounds by 2^-8"
            )
        self.model = model
        self.draw = draw
        self.loss = loss
        self._monotonicity = model.network.monotonicity
        self._unrolls = model.n_unrolls
        self._pool: list[_Visit | None] = [None] * self.settings.pool
        self._reports = _Reports()

    def groups(self) -> list[dict[str, Any]]:
        """Return Adam's groups: filters, and thresholds, biases and lambda with five times their rate."""
        parameters = list(self.model.parameters())
        return [
            {"params": [p for p in parameters if p.ndim >= 4], "factor": 1.0},
            {"params": [p for p in parameters if p.ndim < 4], "factor": 5.0},
        ]

    def fingerprint(self) -> dict[str, Any]:
        """Return the settings of model, network, problems and solves, and the loss."""
        own = asdict(self.settings)
        if not self.settings.self_supervised:
            own["loss"] = getattr(self.loss, "__name__", type(self.loss).__name__)
        return {"model": describe_model(self.model), **own}

    def begin(self, step: int, steps: int) -> None:
        """Set m and the unrolls for this step."""
        model, settings = self.model, self.settings
        early = step < settings.early_share * steps
        least = settings.early_monotonicity if early else 0.0
        model.network.monotonicity = max(least, self._monotonicity)
        if self._unrolls is not None:
            model.n_unrolls = min(settings.early_unrolls, self._unrolls) if early else self._unrolls

    def end(self) -> None:
        """Give the model its own m and unrolls."""
        self.model.network.monotonicity = self._monotonicity
        if self._unrolls is not None:
            self.model.n_unrolls = self._unrolls

    def losses(self, step: int, rng: np.random.Generator) -> Iterator[Tensor]:
        """Yield the loss of one visit to a problem of the pool."""
        slot = int(rng.integers(len(self._pool)))
        visit = self._pool[slot]
        if visit is None or visit.count >= self.settings.visits:
            visit = self._pool[slot] = self._new_visit(rng, step)
        image = self._reconstruct(visit)
        visit.image = image.detach()
        loss = visit.judge(image)
        target = self.model.lipschitz_target()
        if target is not None:
            loss = loss + self.settings.penalty * self._barrier(visit, visit.image, target)
        visit.count += 1
        yield loss

    def state(self) -> dict[str, Any]:
        """Return the pool without its problems, which their steps bring back."""
        return {
            str(slot): {"drawn_at": v.drawn_at, "count": v.count, "image": v.image, "direction": v.direction}
            for slot, v in enumerate(self._pool)
            if v is not None
        }

    def load_state(self, state: dict[str, Any], rng: Callable[[int], np.random.Generator]) -> None:
        """Fill the pool as it was: problems drawn again from their own seeds, in the order of their steps."""
        for slot, stored in sorted(state.items(), key=lambda item: item[1]["drawn_at"]):
            source = rng(stored["drawn_at"])
            source.integers(len(self._pool))  # the slot
            visit = self._new_visit(source, stored["drawn_at"])
            visit.count, visit.image, visit.direction = stored["count"], stored["image"], stored["direction"]
            self._pool[int(slot)] = visit

    def log(self) -> dict[str, float | None]:
        """Return lambda, and for equilibrium models iterations, shares of missed goals, local Lipschitz estimates."""
        reports, self._reports = self._reports, _Reports()
        row: dict[str, float | None] = {**reports.means()}
        if reports.lipschitz:
            row |= {"lipschitz": float(np.mean(reports.lipschitz)), "lipschitz_max": max(reports.lipschitz)}
        if self.model.log_data_weight is not None:
            row["lambda"] = float(self.model.log_data_weight[0].detach().exp())
        return row

    def _reconstruct(self, visit: _Visit) -> Tensor:
        problem = visit.problem
        solution: Solution = self.model(
            problem.kspace,
            problem.operator,
            conditioning=visit.conditioning,
            start=visit.image,
            solver=self._solver(),
        )
        if self.model.solver is not None:
            self._reports.add_solve("forward", solution)
        return solution.value

    def _solver(self) -> SolverSettings | None:
        """Return the goals of this step's solves; None for a model that iterates nothing.

        They are given as residuals, see `LearnedReconstructor.tolerance`, and are far above what single precision
        rounds to: nothing need be refined.
        """
        if self.model.solver is None:
            return None
        return replace(
            self.model.solver,
            tol=self.model.tolerance(self.settings.forward_tol),
            backward_tol=self.model.tolerance(self.settings.backward_tol),
            refine=False,
            on_backward=lambda answer: self._reports.add_solve("backward", answer),
        )

    def _barrier(self, visit: _Visit, image: Tensor, target: float) -> Tensor:
        conditioning = visit.conditioning
        x = image / per_sample(conditioning.scale, image) * conditioning.phase.conj()
        level = conditioning.noise_level
        sets = visit.problem.operator.sets
        if sets is not None:  # H acts on each set by itself
            x, level = x.flatten(0, 1), level.repeat_interleave(sets)
        channels = to_channels(x).contiguous()
        direction = channels if visit.direction is None else visit.direction
        denoiser = self.model.network.denoiser(level)
        estimate, visit.direction = stretch(denoiser, channels, direction)
        self._reports.lipschitz.append(float(estimate.detach().max()))
        return log_barrier(estimate, target).mean()

    def _new_visit(self, rng: np.random.Generator, step: int) -> _Visit:
        problem, judge = self._judged(self.draw(rng, step), rng)
        # The intensity scale and the noise level of a real scan are estimates: the network sees their scatter.
        batch = len(problem.noise_level)
        scale = torch.from_numpy(np.exp(rng.normal(0, 0.1, batch)).astype(np.float32)).to(problem.noise_level)
        error = torch.from_numpy(np.exp(rng.normal(0, 0.07, batch)).astype(np.float32)).to(problem.noise_level)
        level = with_model_error(problem.noise_level * error, problem.kspace, problem.operator)
        level = (level / scale).clamp(*NOISE_LIMITS)
        mixed = self.settings.precision == "mixed"
        conditioning = Conditioning(scale, level, reference_phase(self.model, problem), mixed)
        conditioning = self.model.guided(problem.kspace, problem.operator, conditioning)  # fixed for all visits
        return _Visit(step, problem, conditioning, judge)

    def _judged(self, problem: Problem, rng: np.random.Generator) -> tuple[Problem, Callable[[Tensor], Tensor]]:
        """Return what the model is given, and the loss of its image."""
        if self.settings.self_supervised:
            return split(problem, rng)
        return problem, lambda image: self.loss(problem.judged(image), problem.judged(problem.reference))


def reference_phase(model: LearnedReconstructor | PlaneByPlane, problem: Problem) -> Tensor:
    """Return the smooth phase of the zero-filled image, or 1 for a model without `phase_reference`."""
    image = problem.operator.adjoint(problem.kspace)
    return smooth_phase(image, problem.operator.sets) if model.phase_reference else torch.ones_like(image)


@torch.no_grad()
def mean_psnr(
    model: LearnedReconstructor | PlaneByPlane, problems: Sequence[Problem], *, solver: SolverSettings | None = None
) -> float:
    """Return the mean PSNR in dB of magnitudes (reference maximum as peak), with scale 1 and the true noise level.

    `solver` takes the place of the model's own settings.
    """
    scores = [magnitude_psnr(p.magnitude(_image(model, p, solver)), p.magnitude(p.reference)) for p in problems]
    return float(np.mean(scores))


@torch.no_grad()
def withheld_score(model: LearnedReconstructor, problems: Sequence[Problem]) -> float:
    """Return minus the mean self-supervised loss, where there are no references; the samples withheld are fixed."""
    losses = []
    for number, problem in enumerate(problems):
        given, judge = split(problem, np.random.default_rng(number))
        losses.append(float(judge(_image(model, given))))
    return -float(np.mean(losses))


def _image(
    model: LearnedReconstructor | PlaneByPlane, problem: Problem, solver: SolverSettings | None = None
) -> Tensor:
    level = with_model_error(problem.noise_level, problem.kspace, problem.operator)
    level = level.clamp(*NOISE_LIMITS)  # as `condition` holds it: noise of zero has no logarithm
    conditioning = Conditioning(torch.ones_like(level), level, reference_phase(model, problem))
    solution: Solution = model(problem.kspace, problem.operator, conditioning=conditioning, solver=solver)
    return solution.value


@final
class _Reports:
    """What the solvers and the barrier reported since the last row of the log."""

    def __init__(self) -> None:
        self.numbers: dict[str, list[float]] = {}
        self.lipschitz: list[float] = []

    def add_solve(self, which: str, solution: Solution) -> None:
        steps, missed = solution.n_steps.float().mean(), (~solution.converged).float().mean()
        for name, number in (("steps", steps), ("missed", missed)):
            self.numbers.setdefault(f"{which}_{name}", []).append(float(number))

    def means(self) -> dict[str, float]:
        return {name: float(np.mean(numbers)) for name, numbers in self.numbers.items()}

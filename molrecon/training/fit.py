"""The training loop of every learned reconstructor here, equilibrium or unrolled."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from molrecon.batched import per_sample
from molrecon.conditioning import Conditioning, smooth_phase, to_channels
from molrecon.mol import MOL
from molrecon.solution import Solution
from molrecon.training.files import write_checkpoint
from molrecon.training.penalty import log_barrier, stretch
from molrecon.training.simulate import Problem
from molrecon.unrolled.modl import MoDL

logger = logging.getLogger(__name__)

Reconstructor = MOL | MoDL

PROJECT_EVERY = 10
LOG_EVERY = 50


@final
@dataclass(frozen=True)
class FitSettings:
    """How long and how fast to train.

    Attributes:
        steps: optimiser steps of the whole schedule.
        learning_rate: peak of Adam's rate for the filters; thresholds and lambda take five times that.
        warmup: steps of linear increase; a cosine decays to 1 % afterwards.
        seed: of every draw.
        pool: problems in rotation.
        visits: optimiser steps that each problem takes part in, started from its last equilibrium.
        early_share, early_monotonicity: for this first share of the steps the network has this larger m, with which a
            solve takes half the iterations. The final m, the network's own, pulls less towards zero and wants smaller
            steps of everything.
        early_unrolls: stages of an unrolled network in that share.
        penalty: weight of the Lipschitz barrier at `T = 1 - m` for equilibrium models that are not certified.
        forward_tol, backward_tol: goals for the residuals `|r| / |x|` of the two solves.
        ema: decay of the exponential moving average that is saved.
        checkpoint_every: steps between checkpoints.
    """

    steps: int = 4000
    learning_rate: float = 2e-3
    warmup: int = 100
    seed: int = 0
    pool: int = 16
    visits: int = 4
    early_share: float = 0.4
    early_monotonicity: float = 0.05
    early_unrolls: int = 3
    penalty: float = 0.05
    forward_tol: float = 7e-4
    backward_tol: float = 5e-2
    ema: float = 0.998
    checkpoint_every: int = 500


@dataclass
class _Visit:
    """A problem of the pool; all but what a redraw brings back is in the checkpoint."""

    drawn_at: int
    problem: Problem
    conditioning: Conditioning
    image: Tensor | None = None
    direction: Tensor | None = None
    count: int = 0


def log_mse(image: Tensor, reference: Tensor) -> Tensor:
    """Return the batch mean of `log(|x - x_ref|^2 + ||x| - |x_ref||^2)`, both per pixel: PSNR up to constants."""
    error = (image - reference).abs().square().flatten(1).mean(1)
    magnitude = (image.abs() - reference.abs()).square().flatten(1).mean(1)
    return (error + magnitude + 1e-8).log().mean()


def fit(
    model: Reconstructor,
    draw: Callable[[np.random.Generator, int], Problem],
    settings: FitSettings,
    checkpoint: Path,
    validate: Callable[[Reconstructor], float] | None = None,
) -> Iterator[int]:
    """Train in place, yielding the number of finished steps; at the end the model holds the averaged weights.

    A problem stays in a pool for several optimiser steps. An equilibrium model starts each from its last equilibrium,
    which moves little with the weights: most steps cost three or four iterations; its gradient is the implicit one at
    that equilibrium. Networks whose Lipschitz bound is certified are projected back onto their constraint now and
    then; the other equilibrium models pay a log barrier on a local Lipschitz estimate at the equilibrium.

    A run that resumes from its checkpoint continues to the bit.

    Args:
        model: the reconstructor.
        draw: (generator, step) -> a problem whose reference has intensity near 1, on the model's device; steps come
            in rising order.
        settings: see FitSettings.
        checkpoint: file to resume from where it exists, rewritten every `checkpoint_every` steps.
        validate: scores the averaged model at checkpoints, for the log.
    """
    network = model.network
    monotonicity = network.monotonicity
    goals = (model.tol, model.backward_tol) if isinstance(model, MOL) else None
    unrolls = None if isinstance(model, MOL) else model.n_unrolls
    try:
        yield from _loop(model, draw, settings, checkpoint, validate)
    finally:
        network.monotonicity = monotonicity
        if isinstance(model, MOL) and goals is not None:
            model.tol, model.backward_tol = goals
        elif isinstance(model, MoDL) and unrolls is not None:
            model.n_unrolls = unrolls
        model.eval()


def _loop(
    model: Reconstructor,
    draw: Callable[[np.random.Generator, int], Problem],
    settings: FitSettings,
    checkpoint: Path,
    validate: Callable[[Reconstructor], float] | None,
) -> Iterator[int]:
    network, monotonicity = model.network, model.network.monotonicity
    unrolls = model.n_unrolls if isinstance(model, MoDL) else 0
    optimiser = torch.optim.Adam(_groups(model), lr=settings.learning_rate, betas=(0.9, 0.98))
    average = {key: value.clone() for key, value in model.state_dict().items()}
    pool: list[_Visit | None] = [None] * settings.pool
    first = 0
    if checkpoint.is_file():
        state = torch.load(checkpoint, weights_only=True, map_location=next(model.parameters()).device)
        model.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        average, first = state["average"], state["step"]
        if first < settings.steps:
            _redraw(pool, state["pool"], draw, settings.seed)
        logger.info("resumed at step %d", first)
    log = _Log()
    model.train()
    for step in range(first, settings.steps):
        rng = np.random.default_rng([settings.seed, step])
        slot = int(rng.integers(settings.pool))
        visit = pool[slot]
        if visit is None or visit.count >= settings.visits:
            visit = pool[slot] = _new_visit(draw, rng, step)
        early = step < settings.early_share * settings.steps
        network.monotonicity = settings.early_monotonicity if early else monotonicity
        if isinstance(model, MoDL):
            model.n_unrolls = min(settings.early_unrolls, unrolls) if early else unrolls
        for group in optimiser.param_groups:
            group["lr"] = settings.learning_rate * group["factor"] * _schedule(step, settings)
        loss = _loss(model, visit, settings, log)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        if step % PROJECT_EVERY == 0:
            network.project()
        visit.count += 1
        decay = min(settings.ema, (1 + step) / (10 + step))
        for key, value in model.state_dict().items():
            average[key].lerp_(value, 1 - decay)
        done = step + 1
        if done % LOG_EVERY == 0:
            log.write(done, float(model.log_data_weight[0].detach().exp()))
            log = _Log()
        if done % settings.checkpoint_every == 0 or done == settings.steps:
            state = {"model": model.state_dict(), "optimiser": optimiser.state_dict(), "average": average, "step": done}
            write_checkpoint({**state, "pool": _stored(pool)}, checkpoint)
            if validate is not None:
                logger.info("step %d  validation PSNR %.2f", done, _score_average(model, average, validate))
        yield done
    model.load_state_dict(average)


def _groups(model: Reconstructor) -> list[dict[str, object]]:
    """Return Adam's groups: filters, and thresholds, biases and lambda with five times their rate."""
    parameters = list(model.parameters())
    return [
        {"params": [p for p in parameters if p.ndim >= 4], "factor": 1.0},
        {"params": [p for p in parameters if p.ndim < 4], "factor": 5.0},
    ]


def _loss(model: Reconstructor, visit: _Visit, settings: FitSettings, log: _Log) -> Tensor:
    """Return the loss at the visit's problem, penalty included, and leave the reconstruction in the visit."""
    problem, known = visit.problem, visit.conditioning
    if isinstance(model, MoDL):
        image = model(problem.kspace, problem.operator, conditioning=known)
    else:
        m = model.network.monotonicity
        model.tol, model.backward_tol = settings.forward_tol / m, settings.backward_tol / m
        solution = model(
            problem.kspace, problem.operator, conditioning=known, start=visit.image, on_backward=log.backward.append
        )
        image = solution.value
        log.steps.append(float(solution.n_steps.float().mean()))
    visit.image = image.detach()
    loss = log_mse(image, problem.reference)
    log.losses.append(float(loss.detach()))
    if isinstance(model, MOL) and not model.network.certified:
        loss = loss + settings.penalty * _barrier(model, visit, log)
    return loss


def _barrier(model: MOL, visit: _Visit, log: _Log) -> Tensor:
    known, image = visit.conditioning, visit.image
    if image is None:
        raise RuntimeError("fit: the penalty needs the visit's reconstruction")
    x = to_channels(image / per_sample(known.scale, image) * known.phase.conj()).contiguous()
    direction = x if visit.direction is None else visit.direction
    estimate, visit.direction = stretch(model.network.denoiser(known.noise_level), x, direction)
    log.lipschitz.append(float(estimate.detach().max()))
    return log_barrier(estimate, 1 - model.network.monotonicity).mean()


@final
class _Log:
    """Running means between two lines of the log."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.steps: list[float] = []
        self.lipschitz: list[float] = []
        self.backward: list[Solution] = []
        self.started = time.perf_counter()

    def write(self, done: int, data_weight: float) -> None:
        """Write the line."""
        parts = [f"step {done}", f"PSNR {-10 / math.log(10) * float(np.mean(self.losses)) + 10 * math.log10(2):.2f}"]
        if self.steps:
            backward = float(torch.stack([s.n_steps.float().mean() for s in self.backward]).mean())
            parts.append(f"steps {np.mean(self.steps):.1f} + {backward:.1f}")
        if self.lipschitz:
            parts.append(f"local Lipschitz {np.mean(self.lipschitz):.3f} (max {np.max(self.lipschitz):.3f})")
        seconds = (time.perf_counter() - self.started) / len(self.losses)
        logger.info("%s", "  ".join([*parts, f"lambda {data_weight:.1f}", f"{seconds:.2f} s/step"]))


def _schedule(step: int, settings: FitSettings) -> float:
    if step < settings.warmup:
        return (step + 1) / settings.warmup
    progress = (step - settings.warmup) / max(1, settings.steps - settings.warmup)
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress))


def _new_visit(draw: Callable[[np.random.Generator, int], Problem], rng: np.random.Generator, step: int) -> _Visit:
    problem = draw(rng, step)
    # The intensity scale and the noise level of a real scan are estimates: the network sees their scatter.
    batch = len(problem.noise_level)
    scale = torch.from_numpy(np.exp(rng.normal(0, 0.1, batch)).astype(np.float32)).to(problem.noise_level)
    error = torch.from_numpy(np.exp(rng.normal(0, 0.07, batch)).astype(np.float32)).to(problem.noise_level)
    level = problem.noise_level * error / scale
    phase = smooth_phase(problem.operator.adjoint(problem.kspace))
    return _Visit(step, problem, Conditioning(scale, level, phase))


def _stored(pool: list[_Visit | None]) -> dict[str, dict[str, int | Tensor | None]]:
    return {
        str(slot): {"drawn_at": v.drawn_at, "count": v.count, "image": v.image, "direction": v.direction}
        for slot, v in enumerate(pool)
        if v is not None
    }


def _redraw(
    pool: list[_Visit | None],
    stored: dict[str, dict[str, Any]],
    draw: Callable[[np.random.Generator, int], Problem],
    seed: int,
) -> None:
    """Fill the pool as it was: problems drawn again from their own seeds, in the order of their steps."""
    for slot, visit in sorted(stored.items(), key=lambda item: item[1]["drawn_at"]):
        rng = np.random.default_rng([seed, visit["drawn_at"]])
        rng.integers(len(pool))  # the slot
        redrawn = _new_visit(draw, rng, visit["drawn_at"])
        redrawn.count, redrawn.image, redrawn.direction = visit["count"], visit["image"], visit["direction"]
        pool[int(slot)] = redrawn


def _score_average(
    model: Reconstructor, average: dict[str, Tensor], validate: Callable[[Reconstructor], float]
) -> float:
    current = {key: value.clone() for key, value in model.state_dict().items()}
    model.load_state_dict(average)
    model.eval()
    with torch.no_grad():
        score = validate(model)
    model.load_state_dict(current)
    model.train()
    return score

"""The training loop of the equilibrium model."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np
import torch
from torch import Tensor

from molrecon.conditioning import Conditioning, smooth_phase
from molrecon.mol import MOL
from molrecon.networks import ResidualNetwork
from molrecon.solution import Solution
from molrecon.training.simulate import Problem

logger = logging.getLogger(__name__)

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
    forward_tol: float = 7e-4
    backward_tol: float = 5e-2
    ema: float = 0.998
    checkpoint_every: int = 500


@dataclass
class _Visit:
    problem: Problem
    conditioning: Conditioning
    image: Tensor | None = None
    count: int = 0


def log_mse(image: Tensor, reference: Tensor) -> Tensor:
    """Return the batch mean of `log(|x - x_ref|^2 + ||x| - |x_ref||^2)`, both per pixel: PSNR up to constants."""
    error = (image - reference).abs().square().flatten(1).mean(1)
    magnitude = (image.abs() - reference.abs()).square().flatten(1).mean(1)
    return (error + magnitude + 1e-8).log().mean()


def fit(
    model: MOL,
    draw: Callable[[np.random.Generator, int], Problem],
    settings: FitSettings,
    checkpoint: Path,
    validate: Callable[[MOL], float] | None = None,
) -> Iterator[int]:
    """Train in place, yielding the number of finished steps; at the end the model holds the averaged weights.

    A problem stays in a pool for several optimiser steps and starts each from its last equilibrium, which moves little
    with the weights: most steps cost three or four iterations. The gradient is the implicit one at that equilibrium.

    Args:
        model: a MOL with a ResidualNetwork.
        draw: (generator, step) -> a problem whose reference has intensity near 1, on the model's device.
        settings: see FitSettings.
        checkpoint: file to resume from where it exists, rewritten every `checkpoint_every` steps.
        validate: scores the averaged model at checkpoints, for the log.
    """
    network = model.network
    if not isinstance(network, ResidualNetwork):
        raise TypeError(f"fit: network is {type(network).__name__}, expected ResidualNetwork")
    monotonicity, tol, backward_tol = network.monotonicity, model.tol, model.backward_tol
    try:
        yield from _loop(model, network, draw, settings, checkpoint, validate)
    finally:
        network.monotonicity, model.tol, model.backward_tol = monotonicity, tol, backward_tol
        model.eval()


def _loop(
    model: MOL,
    network: ResidualNetwork,
    draw: Callable[[np.random.Generator, int], Problem],
    settings: FitSettings,
    checkpoint: Path,
    validate: Callable[[MOL], float] | None,
) -> Iterator[int]:
    monotonicity = network.monotonicity
    fast = [p for name, p in model.named_parameters() if name != "network.weight"]
    groups = [{"params": [network.weight], "factor": 1.0}, {"params": fast, "factor": 5.0}]
    optimiser = torch.optim.Adam(groups, lr=settings.learning_rate, betas=(0.9, 0.98))
    average = {key: value.clone() for key, value in model.state_dict().items()}
    first = 0
    if checkpoint.is_file():
        state = torch.load(checkpoint, weights_only=True, map_location=network.weight.device)
        model.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        average, first = state["average"], state["step"]
        logger.info("resumed at step %d", first)
    pool: list[_Visit | None] = [None] * settings.pool
    losses: list[float] = []
    counts: list[float] = []
    backward: list[Solution] = []
    started = time.perf_counter()
    model.train()
    for step in range(first, settings.steps):
        rng = np.random.default_rng([settings.seed, step])
        slot = int(rng.integers(settings.pool))
        visit = pool[slot]
        if visit is None or visit.count >= settings.visits:
            visit = pool[slot] = _new_visit(draw(rng, step), rng)
        network.monotonicity = (
            settings.early_monotonicity if step < settings.early_share * settings.steps else monotonicity
        )
        model.tol = settings.forward_tol / network.monotonicity
        model.backward_tol = settings.backward_tol / network.monotonicity
        for group in optimiser.param_groups:
            group["lr"] = settings.learning_rate * group["factor"] * _schedule(step, settings)
        solution = model(
            visit.problem.kspace,
            visit.problem.operator,
            conditioning=visit.conditioning,
            start=visit.image,
            on_backward=backward.append,
        )
        loss = log_mse(solution.value, visit.problem.reference)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        if step % PROJECT_EVERY == 0:
            network.project()
        visit.image = solution.value.detach()
        visit.count += 1
        decay = min(settings.ema, (1 + step) / (10 + step))
        for key, value in model.state_dict().items():
            average[key].lerp_(value, 1 - decay)
        losses.append(float(loss.detach()))
        counts.append(float(solution.n_steps.float().mean()))
        done = step + 1
        if done % LOG_EVERY == 0:
            logger.info(
                "step %d  PSNR %.2f  steps %.1f + %.1f  lambda %.1f  %.2f s/step",
                done,
                -10 / math.log(10) * float(np.mean(losses)) + 10 * math.log10(2),
                np.mean(counts),
                torch.stack([s.n_steps.float().mean() for s in backward]).mean(),
                float(model.log_data_weight[0].detach().exp()),
                (time.perf_counter() - started) / len(losses),
            )
            losses, counts, backward, started = [], [], [], time.perf_counter()
        if done % settings.checkpoint_every == 0 or done == settings.steps:
            state = {"model": model.state_dict(), "optimiser": optimiser.state_dict(), "average": average, "step": done}
            temporary = checkpoint.with_suffix(".partial")
            torch.save(state, temporary)
            temporary.replace(checkpoint)
            if validate is not None:
                logger.info("step %d  validation PSNR %.2f", done, _score_average(model, average, validate))
        yield done
    model.load_state_dict(average)


def _schedule(step: int, settings: FitSettings) -> float:
    if step < settings.warmup:
        return (step + 1) / settings.warmup
    progress = (step - settings.warmup) / max(1, settings.steps - settings.warmup)
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress))


def _new_visit(problem: Problem, rng: np.random.Generator) -> _Visit:
    # The intensity scale and the noise level of a real scan are estimates: the network sees their scatter.
    batch = len(problem.noise_level)
    scale = torch.from_numpy(np.exp(rng.normal(0, 0.1, batch)).astype(np.float32)).to(problem.noise_level)
    error = torch.from_numpy(np.exp(rng.normal(0, 0.07, batch)).astype(np.float32)).to(problem.noise_level)
    level = problem.noise_level * error / scale
    phase = smooth_phase(problem.operator.adjoint(problem.kspace))
    return _Visit(problem, Conditioning(scale, level, phase))


def _score_average(model: MOL, average: dict[str, Tensor], validate: Callable[[MOL], float]) -> float:
    current = {key: value.clone() for key, value in model.state_dict().items()}
    model.load_state_dict(average)
    model.eval()
    with torch.no_grad():
        score = validate(model)
    model.load_state_dict(current)
    model.train()
    return score

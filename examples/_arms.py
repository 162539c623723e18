"""Four arms of one training: with and without descent constraints, with and without layer noise, all else equal.

Noise alone makes networks robust to noise, whatever the constraints add: only all four tell the two apart. Networks of
one seed start from the same weights in every arm and see the same batches in the same order, at the same learning
rate, for as many steps, and every arm ends with its best validated weights.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Generic, TypeVar, final

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn

from molrecon.descent.constraints import Descent, DescentProblem, assess
from molrecon.descent.descent_checks import LayerNoise, layer_distances, sample_ratios, summarised
from molrecon.descent.training import DescentTask
from molrecon.io import write_atomically
from molrecon.solvers.batched import norm
from molrecon.training.fingerprint import as_json_values, differences
from molrecon.training.log import finish
from molrecon.training.loop import train
from molrecon.training.train_settings import TrainSettings

logger = logging.getLogger(__name__)

M = TypeVar("M", bound=nn.Module)
B = TypeVar("B")

ARMS = {  # name: (constrained, with layer noise)
    "unconstrained": (False, False),
    "unconstrained-noise": (False, True),
    "constrained": (True, False),
    "constrained-noise": (True, True),
}
RESULT_FILE, WEIGHTS_FILE, SUMMARY_FILE = "result.json", "weights.safetensors", "arms.json"
NOISE_SEED = 1234  # of the layer noise that networks are tested with


@final
@dataclass(frozen=True)
class FourArms(Generic[M, B]):
    """What the arms share.

    Attributes:
        build: seed -> untrained network with its training problems.
        settings: of the loop; seed and patience are set by the runner.
        descent: constraints of the two constrained arms, and the yardstick of all four.
        noise: layer noise of the two noisy arms.
        validation: batches that choose the checkpoint.
        conditions: batches that a trained network is tested on, by name; the first is the undisturbed one. Each batch
            has the reference of its own problem.
        quality: (y_L, batch) -> a number for the tables.
        layer_noise: relative levels that networks are tested with, on the first condition, constant over the layers.
        deeper: layers past the trained depth to be tested, for problems that define `run_to`.
        fingerprint: what the problems are, data first of all (see `train`).
    """

    build: Callable[[int], DescentProblem[M, B]]
    settings: TrainSettings
    descent: Descent
    noise: LayerNoise
    validation: Sequence[B]
    conditions: Mapping[str, Sequence[B]]
    quality: Callable[[Tensor, B], float]
    layer_noise: tuple[float, ...] = (0.05, 0.1, 0.2)
    deeper: int = 0
    fingerprint: Mapping[str, Any] = field(default_factory=dict)


def run_arms(comparison: FourArms[M, B], folder: Path, seeds: Sequence[int] = (0, 1, 2)) -> dict[str, Any]:
    """Train and test all arms, and return means and spreads over the seeds by arm, as FOLDER/arms.json holds them.

    Seed by seed, so that what is finished can always be compared. FOLDER/ARM/SEED has checkpoint, log, weights and
    result of each training; what is there is not done again, what was interrupted resumes.

    Raises:
        ValueError: no seeds, no conditions, or a folder of another comparison.
    """
    if not seeds or not comparison.conditions:
        raise ValueError(
            f"run_arms: {len(seeds)} seeds and {len(comparison.conditions)} conditions, expected one or more of each"
        )
    results: dict[str, list[Any]] = {arm: [] for arm in ARMS}
    for seed in seeds:
        for arm in ARMS:
            results[arm].append(run(comparison, arm, seed, folder / arm / str(seed)))
    summary = {arm: mean_and_spread(runs) for arm, runs in results.items()}
    write_atomically(folder / SUMMARY_FILE, (json.dumps(summary, indent=1) + "\n").encode())
    return summary


def run(comparison: FourArms[M, B], arm: str, seed: int, folder: Path) -> dict[str, Any]:
    """Train and test one arm with one seed, unless its result is there, and return that.

    Raises:
        ValueError: another arm, or a result or checkpoint of another training.
    """
    if arm not in ARMS:
        raise ValueError(f"run: arm {arm!r}, expected one of {', '.join(ARMS)}")
    settings = replace(comparison.settings, seed=seed, patience=comparison.settings.steps)
    fingerprint = _fingerprint(comparison, arm)
    complete = as_json_values({**asdict(settings), **fingerprint})
    if (folder / RESULT_FILE).is_file():
        stored: dict[str, Any] = json.loads((folder / RESULT_FILE).read_text(encoding="utf-8"))
        if other := differences(stored.pop("facts", {}), complete):
            raise ValueError(
                f"{folder / RESULT_FILE}: of another training, found {', '.join(other)}, expected another folder"
            )
        return stored
    constrained, noisy = ARMS[arm]
    problem = comparison.build(seed)
    task = DescentTask(problem, comparison.descent, comparison.noise if noisy else None, constrained=constrained)
    finish(
        train(task, settings, folder, task.validator(comparison.validation), fingerprint=fingerprint), settings.steps
    )
    result = measure(comparison, problem)
    if constrained and not result["validation"]["feasible"]:
        logger.warning("%s: no checkpoint is feasible, the least violating one was taken", folder)
    weights = {key: x.contiguous() for key, x in problem.model.state_dict().items()}
    write_atomically(folder / WEIGHTS_FILE, save(weights))
    write_atomically(folder / RESULT_FILE, (json.dumps({**result, "facts": complete}, indent=1) + "\n").encode())
    return result


def _fingerprint(comparison: FourArms[M, B], arm: str) -> dict[str, Any]:
    return {
        "arm": arm,
        "descent": asdict(comparison.descent),
        "noise": asdict(comparison.noise),
        "conditions": list(comparison.conditions),
        "layer_noise": comparison.layer_noise,
        "deeper": comparison.deeper,
        **comparison.fingerprint,
    }


@torch.no_grad()
def measure(comparison: FourArms[M, B], problem: DescentProblem[M, B]) -> dict[str, Any]:
    """Return what a trained network does: validation, every condition, layer noise, and layers past its depth."""
    clean = next(iter(comparison.conditions.values()))
    result: dict[str, Any] = {
        "validation": asdict(assess(problem, comparison.validation, comparison.descent)),
        "conditions": {
            name: measure_condition(problem, batches, comparison.quality)
            for name, batches in comparison.conditions.items()
        },
        "layer_noise": {
            str(level): measure_condition(problem, clean, comparison.quality, LayerNoise(level))
            for level in comparison.layer_noise
        },
    }
    if comparison.deeper:
        depth = problem.n_layers
        problem.run_to(depth + comparison.deeper)
        result["deeper"] = measure_condition(problem, clean, comparison.quality, skip=depth)
        problem.run_to(depth)
    return result


@torch.no_grad()
def measure_condition(
    problem: DescentProblem[M, B],
    batches: Sequence[B],
    quality: Callable[[Tensor, B], float],
    noise: LayerNoise | None = None,
    *,
    skip: int = 0,
) -> dict[str, Any]:
    """Return mean quality, and how the layers descend, samples of all batches counting alike.

    Args:
        problem: with its network in evaluation mode.
        batches: each with its own reference.
        quality: see `FourArms`.
        noise: between the layers, the same draws for every network.
        skip: begin after so many layers.

    Returns: "quality", "distance" (`E|y_l - y*| / E|y*|` for l = skip, .., L), and the fields of `DescentCheck`.
    """
    generator = torch.Generator().manual_seed(NOISE_SEED)
    qualities, distances, ratios, sizes = [], [], [], []
    for batch in batches:
        start, outputs = problem.layers(batch, noise.disturb(generator) if noise else None)
        reference = problem.reference(batch)
        qualities.append(quality(outputs[-1], batch))
        start, later = (outputs[skip - 1] if skip else start), outputs[skip:]
        distances.append(layer_distances(later, start, reference))
        ratios.append(sample_ratios(later, start, reference))
        sizes.append(norm(reference))
    check = summarised(torch.cat(distances), torch.cat(ratios))
    size = float(torch.cat(sizes).mean())
    return {
        "quality": float(np.mean(qualities)),
        "distance": [distance / size for distance in check.mean_distances],
        **asdict(check),
    }


def mean_and_spread(results: Sequence[Any]) -> Any:
    """Return equal nests of results as one, each number as {"mean", "spread", "each"} over the results.

    The spread is the standard deviation (n - 1), None for a single result.
    """
    first = results[0]
    if isinstance(first, Mapping):
        return {key: mean_and_spread([result[key] for result in results]) for key in first}
    if isinstance(first, (list, tuple)):
        return [mean_and_spread(numbers) for numbers in zip(*results, strict=True)]
    numbers = [float(x) for x in results]
    spread = float(np.std(numbers, ddof=1)) if len(numbers) > 1 else math.nan
    return {
        "mean": float(np.mean(numbers)),
        "spread": spread if math.isfinite(spread) else None,
        "each": numbers,
    }

"""GIN against GDM on multi-coil MRI: the stages of ISTA-Net+ with `A^H (A x - b)` of the SENSE operator.

    python examples/train_gin_mri.py --data DATA --data-step gin --seed 0 --steps 1500 --out runs/mri-gin-0

With GDM this is an unrolled network in the manner of VarNet: a learned gradient step and a network, nine times. Both
data steps get the same simulated scans of SIAT slices, masks, noise, and initial weights for the same seed; one problem
a step. OUT/result.json holds "psnr" (dB, of magnitudes, peak the reference's maximum), the mean over validation strips
of slices that training never saw, and "cg_sense_psnr" of CG-SENSE on the same. The run resumes from OUT/checkpoint.pt.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import final

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # to run from a checkout that is not installed

from examples._slices import SIAT_TRAIN, SIAT_VALIDATION, siat_slices
from molrecon.command.shared.argument_types import positive
from molrecon.reconstructors.classical import CGSense
from molrecon.sensing.assembly import DATA_STEPS, HOSTS, assemble
from molrecon.sensing.stage import Unrolled, last_image
from molrecon.sensing.training import IMAGING_SETTINGS, PENALTY_WEIGHT
from molrecon.simulation.strips import Problem, Scan, magnitude_psnr, simulate_scan, strip_problem
from molrecon.training.checkpoints import log_to
from molrecon.training.fingerprint import array_fingerprint, identifying_arguments
from molrecon.training.log import finish
from molrecon.training.loop import train
from molrecon.training.losses import log_mse
from molrecon.training.task import Task

SIZE = 224  # rows and columns of the simulated scans
STRIP = 48  # readout positions of a training problem
TRAINING_STREAM, VALIDATION_STREAM = 1, 2


def simulated(slices: list[np.ndarray], count: int, stream: int, seed: int) -> list[Scan]:
    """Return `count` scans; number i depends on the stream, the seed and i alone."""
    scans = []
    for i in range(count):
        rng = np.random.default_rng([seed, stream, i])
        scans.append(simulate_scan(slices[int(rng.integers(len(slices)))], SIZE, rng))
    return scans


def mean_psnr(reconstruct: Callable[[Problem], Tensor], problems: Sequence[Problem]) -> float:
    """Return the mean PSNR over problems."""
    with torch.no_grad():
        return float(np.mean([magnitude_psnr(reconstruct(p), p.reference) for p in problems]))


def score(model: Unrolled, problems: Sequence[Problem]) -> float:
    """Return the mean PSNR of a model in evaluation mode."""
    return mean_psnr(lambda p: model(p.kspace, p.operator), problems)


@final
class GinTask(Task[Unrolled]):
    """Strips of random scans, one a step: the logarithmic error of the last image, and 0.01 times all penalties."""

    def __init__(self, model: Unrolled, scans: Sequence[Scan]) -> None:
        self.model = model
        self.scans = scans

    def losses(self, step: int, rng: np.random.Generator) -> Iterator[Tensor]:
        """Yield the loss of one strip."""
        problem = strip_problem(self.scans[int(rng.integers(len(self.scans)))], STRIP, rng)
        image, penalty = last_image(self.model.stages(problem.kspace, problem.operator))
        yield log_mse(image, problem.reference) + PENALTY_WEIGHT * penalty


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with mri/siat200_256_reim_i16.npz")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--host", choices=HOSTS, default="ista-net-plus")
    parser.add_argument("--data-step", choices=DATA_STEPS, default="gin")
    parser.add_argument("--gradient-scale", type=positive, default=1.0, help="of GIN (default: %(default)g)")
    parser.add_argument("--stages", type=int, help="default: the published number")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--learning-rate", type=float, default=IMAGING_SETTINGS.learning_rate)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scans", type=int, default=64, help="simulated scans to train on")
    parser.add_argument("--validation-scans", type=int, default=12)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    return parser.parse_args(argv)


def run(arguments: argparse.Namespace) -> dict[str, str | int | float]:
    """Train, and return what result.json holds."""
    torch.set_num_threads(arguments.threads)
    slices, others = (siat_slices(arguments.data, part) for part in (SIAT_TRAIN, SIAT_VALIDATION))
    scans = simulated(slices, arguments.scans, TRAINING_STREAM, arguments.seed)
    held_out = simulated(others, arguments.validation_scans, VALIDATION_STREAM, 0)
    problems = [
        strip_problem(scan, 2 * STRIP, np.random.default_rng([i, VALIDATION_STREAM])) for i, scan in enumerate(held_out)
    ]
    model = assemble(
        arguments.host,
        arguments.data_step,
        channels=2,
        n_stages=arguments.stages,
        gradient_scale=arguments.gradient_scale,
        seed=arguments.seed,
    )
    settings = replace(
        IMAGING_SETTINGS, steps=arguments.steps, learning_rate=arguments.learning_rate, seed=arguments.seed
    )
    fingerprint = {
        **identifying_arguments(arguments, "data", "steps"),
        "training_data": array_fingerprint(slices),
        "validation_data": array_fingerprint(others),
    }
    steps = train(GinTask(model, scans), settings, arguments.out, lambda m: score(m, problems), fingerprint=fingerprint)
    finish(steps, arguments.steps)
    cg_sense = CGSense()
    result: dict[str, str | int | float] = {
        "host": arguments.host,
        "data_step": arguments.data_step,
        "gradient_scale": arguments.gradient_scale,
        "seed": arguments.seed,
        "steps": arguments.steps,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "psnr": score(model, problems),
        "cg_sense_psnr": mean_psnr(lambda p: cg_sense(p.kspace, p.operator).value, problems),
    }
    (arguments.out / "result.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return result


def main() -> None:
    """Run the command, with a log in OUT."""
    arguments = parse()
    log_to(arguments.out)
    print(json.dumps(run(arguments)))


if __name__ == "__main__":
    main()

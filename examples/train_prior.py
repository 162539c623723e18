"""Train the packaged 2D models on problems as varied as real scans: `python examples/train_prior.py --out runs/NAME`.

    MOLRECON_DATA=DATA python examples/train_prior.py --out runs/strict [--model mol|admm-net] [--steps N] [--seed S]

All have about 43,000 parameters, and equal data, steps and schedule. `mol` is the strictly monotone equilibrium model,
`mol-penalised` an equilibrium model of a plain network that pays for its local Lipschitz constant; `modl`, `admm-net`
and `varnet` are the same plain network unrolled ten times, `de-grad` and `de-prox` its deep equilibria without
monotonicity; `unet` is a U-Net on the zero-filled image.

DATA is the folder that data_scripts lay out. The rate is constant, then falls as a cosine over the last four tenths of
the steps. At every checkpoint OUT/NAME.safetensors takes the averaged weights, and OUT/log.csv their PSNR on whole
slices of subjects that are not trained on. The run resumes from OUT/checkpoint.pt, to the bit; with more --steps it
goes on where it ended.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from pathlib import Path

import torch

from molrecon.mol import MOL
from molrecon.simulation.noise import NOISE_RANGE
from molrecon.simulation.problem import Problem
from molrecon.simulation.sources import training_sets, validation_sets
from molrecon.simulation.stream import ProblemStream
from molrecon.training.files import log_to
from molrecon.training.log import finish
from molrecon.training.loop import TrainSettings, train
from molrecon.training.models import DESCRIPTIONS, Trainable, build
from molrecon.training.reconstruction import ReconstructionSettings, ReconstructionTask, mean_psnr
from molrecon.weights import save

VALIDATION_TOL = 1e-2  # of an equilibrium's error bound; hundredths of a decibel


def parse() -> argparse.Namespace:
    """Return the arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("MOLRECON_DATA"), help="default: $MOLRECON_DATA")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", choices=tuple(DESCRIPTIONS), default="mol")
    parser.add_argument("--name", help="of the weights; default: MODEL-brain-2d")
    parser.add_argument("--steps", type=int, default=8000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--rows", type=int, default=112, help="readout positions of a strip")
    parser.add_argument("--steps-per-scan", type=int, default=6)
    parser.add_argument("--validation-problems", type=int, default=10)
    parser.add_argument("--checkpoint-every", type=int, default=250)
    for option, default in (("--channels", 8), ("--features", 32), ("--levels", 5)):
        parser.add_argument(option, type=int, default=default, help="of the strict network")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    if arguments.data is None:
        parser.error("--data is not given and MOLRECON_DATA not set, expected the data folder")
    return arguments


def main() -> None:
    """Run the command."""
    arguments = parse()
    torch.set_num_threads(arguments.threads)
    # With ten bits the rounding of an equilibrium would be larger than what its solver aims at.
    torch.backends.cudnn.allow_tf32 = False
    log_to(arguments.out)
    stream = ProblemStream(
        training_sets(arguments.data),
        rows=arguments.rows,
        steps_per_scan=arguments.steps_per_scan,
        seed=arguments.seed,
        device=arguments.device,
    )
    problems = ProblemStream(validation_sets(arguments.data), seed=0, device=arguments.device).problems(
        arguments.validation_problems
    )
    model = build(
        arguments.model,
        seed=arguments.seed,
        channels=arguments.channels,
        features=arguments.features,
        levels=arguments.levels,
    ).to(arguments.device)
    if isinstance(model, MOL):
        model.solver = replace(
            model.solver, refine=False
        )  # a residual of 7e-4 is far above what single precision rounds to
    settings = TrainSettings(
        steps=arguments.steps,
        seed=arguments.seed,
        learning_rate=arguments.learning_rate,
        decay_start=round(0.6 * arguments.steps),
        checkpoint_every=arguments.checkpoint_every,
    )
    name = arguments.name or f"{arguments.model}-brain-2d"
    card = {
        "name": name,
        "model": DESCRIPTIONS[arguments.model] + ", 2D multi-coil Cartesian MRI",
        "data": f"{stream.describe()}, ESPIRiT maps, noise {NOISE_RANGE[0]}-{NOISE_RANGE[1]}",
        "split": "by subject, see molrecon/simulation/sources.py",
        "steps": arguments.steps,
        "rows": arguments.rows,
        "seed": arguments.seed,
        "learning_rate": arguments.learning_rate,
        "parameters": sum(p.numel() for p in model.parameters()),
        "licence": "data: see molrecon/simulation/sources.py; some sets are for research, not for profit",
        "intended_use": "research use",
    }

    def validate(averaged: Trainable) -> float:
        score = _score(averaged, problems)
        card["scores"] = {"validation_psnr_db": round(score, 2)}
        save(averaged, arguments.out / f"{name}.safetensors", card)
        return score

    task = ReconstructionTask(model, stream.draw, ReconstructionSettings(early_share=0.25))
    finish(train(task, settings, arguments.out, validate), arguments.steps)
    save(model, arguments.out / f"{name}.safetensors", card)


def _score(model: Trainable, problems: list[Problem]) -> float:
    solver = None if model.solver is None else replace(model.solver, tol=VALIDATION_TOL)
    return mean_psnr(model, problems, solver=solver)


if __name__ == "__main__":
    main()

"""Train the packaged 2D models on problems as varied as real scans: `python examples/train_prior.py --out runs/NAME`.

    MOLRECON_DATA=DATA python examples/train_prior.py --out runs/strict [--model mol|admm-net] [--steps N] [--seed S]
    ... --out runs/guided --first runs/strict/mol-brain-2d.safetensors      a second stage, guided by the first one
    ... --out runs/longer --start runs/strict/mol-brain-2d.safetensors      further steps, on a schedule of their own
    ... --out runs/other --start runs/guided/mol-brain-2d.safetensors --first admm-net-2d       with another guide,
        --monotonicity 0.03                                                 and a larger m: fewer iterations

All have about 43,000 parameters unless told otherwise, and equal data, steps and schedule. `mol` is the strictly
monotone equilibrium model, `mol-penalised` an equilibrium model of a plain network that pays for its local Lipschitz
constant; `modl`, `admm-net` and `varnet` are the same plain network unrolled --unrolls times, `de-grad` and `de-prox`
its deep equilibria without monotonicity; `unet` is a U-Net on the zero-filled image.

--two-sets is the share of scans whose field of view is smaller than the object, and all have as many sets of maps as
`molrecon reconstruct` would take.

DATA is the folder that data_scripts lay out. The rate is constant, then falls as a cosine over the last four tenths of
the steps. At every checkpoint OUT/NAME.safetensors takes the averaged weights, and OUT/log.csv their PSNR on whole
slices of subjects that are not trained on, with one set of maps; the card tells that of wrapped ones as well. The run
resumes from OUT/checkpoint.pt, to the bit.
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # to run from a checkout that is not installed

from examples._subjects import training_sets, validation_sets
from molrecon.networks import ResidualNetwork
from molrecon.reconstructors.base import Reconstructor
from molrecon.reconstructors.guiding import GUIDE_CHANNELS
from molrecon.reconstructors.learned import LearnedReconstructor
from molrecon.reconstructors.mol import MOL
from molrecon.simulation.noise import NOISE_RANGE
from molrecon.simulation.problem import Problem
from molrecon.simulation.stream import ProblemStream
from molrecon.solvers.solver_settings import IMAGE_TOL, SolverSettings
from molrecon.training.checkpoints import log_to
from molrecon.training.defaults import DESCRIPTIONS
from molrecon.training.log import finish
from molrecon.training.loop import train
from molrecon.training.models import PLAIN_FEATURES, UNROLLS, build
from molrecon.training.reconstruction_task import ReconstructionSettings, ReconstructionTask, mean_psnr
from molrecon.training.train_settings import TrainSettings
from molrecon.weights import load, save, weights_hash

TWO_SETS = 0.15
VALIDATION_TOL = 1e-2  # of an equilibrium's error bound; hundredths of a decibel


def parse() -> argparse.Namespace:
    """Return the arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("MOLRECON_DATA"), help="default: $MOLRECON_DATA")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", choices=tuple(DESCRIPTIONS), default="mol")
    parser.add_argument("--first", help="weights of a model whose image guides the one that is trained")
    parser.add_argument("--start", help="weights of the same kind of model to go on from, in a run of its own")
    parser.add_argument(
        "--early-share", type=float, default=0.25, help="of the steps, at m = 0.05 at least; 0 with --start, --first"
    )
    parser.add_argument("--monotonicity", type=float, help="m; default: that of --start, or 0.01")
    parser.add_argument("--name", help="of the weights; default: MODEL-brain-2d")
    parser.add_argument("--steps", type=int, default=8000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--two-sets", type=float, default=TWO_SETS, help="share of scans that wrap")
    parser.add_argument("--largest", type=int, default=512, help="pixels of the longer side of an object at most")
    parser.add_argument("--rows", type=int, default=112, help="readout positions of a strip")
    parser.add_argument("--steps-per-scan", type=int, default=6)
    parser.add_argument("--validation-problems", type=int, default=10)
    parser.add_argument("--checkpoint-every", type=int, default=250)
    for option, default in (("--channels", 8), ("--features", 32), ("--levels", 5)):
        parser.add_argument(option, type=int, default=default, help="of the strict network")
    parser.add_argument("--plain-features", type=int, default=PLAIN_FEATURES, help="of the plain network")
    parser.add_argument("--unrolls", type=int, default=UNROLLS, help="stages of an unrolled network")
    parser.add_argument(
        "--precision", choices=("single", "mixed"), default="single", help="mixed: convolutions in bfloat16"
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    if arguments.data is None:
        parser.error("--data is not given and MOLRECON_DATA not set, expected the data folder")
    if arguments.monotonicity is not None and not 0 < arguments.monotonicity < 1:
        parser.error(f"--monotonicity is {arguments.monotonicity}, expected a number between 0 and 1")
    return arguments


def main() -> None:
    """Run the command."""
    arguments = parse()
    torch.set_num_threads(arguments.threads)
    # With ten bits the rounding of an equilibrium would be larger than what its solver aims at.
    torch.backends.cudnn.allow_tf32 = False
    log_to(arguments.out)
    model = untrained(arguments).to(arguments.device)
    if arguments.monotonicity is not None:
        model.network.monotonicity = arguments.monotonicity
    stream = ProblemStream(
        training_sets(arguments.data),
        rows=arguments.rows,
        steps_per_scan=arguments.steps_per_scan,
        seed=arguments.seed,
        device=arguments.device,
        two_sets=arguments.two_sets,
        largest=arguments.largest,
    )
    held_out, count = validation_sets(arguments.data), arguments.validation_problems
    problems = ProblemStream(held_out, seed=0, device=arguments.device).problems(count)
    wrapped: list[Problem] = []
    if arguments.two_sets:
        folded = ProblemStream(held_out, seed=0, device=arguments.device, two_sets=1.0)
        wrapped = folded.problems(min(len(held_out), count))
    origin = {key: weights_hash(path) for key in ("first", "start") if (path := getattr(arguments, key)) is not None}
    early_share = 0.0 if origin else arguments.early_share
    settings = TrainSettings(
        steps=arguments.steps,
        seed=arguments.seed,
        learning_rate=arguments.learning_rate,
        decay_start=round(0.6 * arguments.steps),
        checkpoint_every=arguments.checkpoint_every,
    )
    name = arguments.name or f"{arguments.model}-brain-2d"
    card: dict[str, Any] = {
        "name": name,
        "model": f"{type(model).__name__ if origin else DESCRIPTIONS[arguments.model]}, 2D multi-coil Cartesian MRI",
        **({} if model.n_unrolls is None else {"unrolls": model.n_unrolls}),
        "data": f"{stream.describe()}, ESPIRiT maps, noise {NOISE_RANGE[0]}-{NOISE_RANGE[1]}",
        "split": "by subject, see examples/_subjects.py",
        **{key: f"{Path(getattr(arguments, key)).stem}, sha256 {digest}" for key, digest in origin.items()},
        "monotonicity": model.network.monotonicity,
        "steps": arguments.steps,
        "rows": arguments.rows,
        "seed": arguments.seed,
        "learning_rate": arguments.learning_rate,
        "precision": arguments.precision,
        "parameters": sum(p.numel() for p in model.parameters()),
        "licence": "data: see examples/_subjects.py; some sets are for research, not for profit",
        "intended_use": "research use",
    }

    def validate(averaged: LearnedReconstructor) -> float:
        score = _score(averaged, problems)
        card["scores"] = {"validation_psnr_db": round(score, 2)}
        if wrapped:
            card["scores"]["validation_wrapped_psnr_db"] = round(_score(averaged, wrapped), 2)
        save(averaged, arguments.out / f"{name}.safetensors", card)
        return score

    task = ReconstructionTask(
        model, stream.draw, ReconstructionSettings(early_share=early_share, precision=arguments.precision)
    )
    fingerprint = {
        **origin,
        "problems": stream.describe(),
        "rows": arguments.rows,
        "steps_per_scan": arguments.steps_per_scan,
    }
    finish(train(task, settings, arguments.out, validate, fingerprint=fingerprint), arguments.steps)
    save(model, arguments.out / f"{name}.safetensors", card)


def untrained(arguments: argparse.Namespace) -> LearnedReconstructor:
    """Return the model as this run starts with it."""
    if arguments.start is None and arguments.first is None:
        sizes = {"channels": arguments.channels, "features": arguments.features, "levels": arguments.levels}
        return build(
            arguments.model,
            seed=arguments.seed,
            plain_features=arguments.plain_features,
            unrolls=arguments.unrolls,
            **sizes,
        )
    model = _learned(arguments.start or arguments.first)
    if arguments.first is not None:
        if not isinstance(model, MOL):
            raise SystemExit(
                f"{arguments.start or arguments.first}: holds a {type(model).__name__}, expected MOL: what --first"
                " guides starts as --start, or as --first itself"
            )
        model = guided_by(_learned(arguments.first), model, arguments.seed)
    if isinstance(model, MOL) and model.first is not None:
        model.first.requires_grad_(False)
    return model


def guided_by(first: LearnedReconstructor, start: MOL, seed: int) -> MOL:
    """Return a model that starts as `start` and is guided by `first`."""
    network = ResidualNetwork(**{**start.network.settings(), "guide_channels": GUIDE_CHANNELS, "seed": seed})
    # All of it, or all but the guide, which starts as none.
    network.load_state_dict(start.network.state_dict(), strict=False)
    model = MOL(network, first=first, phase_reference=start.phase_reference, solver=SolverSettings(tol=IMAGE_TOL))
    with torch.no_grad():
        model.log_data_weight.copy_(start.log_data_weight)
    return model


def _learned(path: str) -> LearnedReconstructor:
    model = load(path, Reconstructor)
    if not isinstance(model, LearnedReconstructor):
        raise SystemExit(f"{path}: holds a {type(model).__name__}, expected a model that can be trained")
    return model


def _score(model: LearnedReconstructor, problems: list[Problem]) -> float:
    # Others have no bound but a residual, which an image that is far from their equilibrium may meet.
    solver = replace(model.solver, tol=VALIDATION_TOL) if isinstance(model, MOL) else model.solver
    return mean_psnr(model, problems, solver=solver)


if __name__ == "__main__":
    main()

"""Train the packaged 2D models: `python examples/train_mol.py --data DATA --out runs/mol [--model mol]`.

All have about 43,000 parameters, and equal data, steps and schedule. `mol` is the strictly monotone equilibrium model,
`mol-penalised` an equilibrium model of a plain network that pays for its local Lipschitz constant; `modl`, `admm-net`
and `varnet` are the same plain network unrolled ten times, `de-grad` and `de-prox` its deep equilibria without
monotonicity; `unet` is a U-Net on the zero-filled image.

DATA is the folder that data_scripts/prepare_siat.py and prepare_brains.py lay out. The run resumes from its
checkpoint; with the same seed and steps it is the same run. At the end OUT holds NAME.safetensors and its card.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from molrecon.training.files import log_to
from molrecon.training.log import finish, read_log
from molrecon.training.loop import TrainSettings, train
from molrecon.training.models import DESCRIPTIONS, build
from molrecon.training.reconstruction import ReconstructionTask, mean_psnr
from molrecon.training.sources import SIAT_TRAIN, SIAT_VALIDATION, siat_slices, t1_training_slices, t1_validation_slices
from molrecon.training.stacks import Scans
from molrecon.weights import save


def parse() -> argparse.Namespace:
    """Return the arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, required=True, help="folder with mri/siat200_256_reim_i16.npz and the T1 volume"
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", choices=tuple(DESCRIPTIONS), default="mol")
    parser.add_argument("--name", help="of the weights; default: MODEL-brain-2d")
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch", type=int, default=2, help="strips of a step")
    parser.add_argument("--learning-rate", type=float, default=TrainSettings.learning_rate)
    parser.add_argument("--first-scans", type=int, default=48, help="scans simulated before the first step")
    parser.add_argument("--validation-problems", type=int, default=12)
    for option, default in (("--channels", 8), ("--features", 32), ("--levels", 5)):
        parser.add_argument(option, type=int, default=default, help="of the strict network")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    return parser.parse_args()


def main() -> None:
    """Run the command."""
    arguments = parse()
    torch.set_num_threads(arguments.threads)
    # With ten bits the rounding of an equilibrium would be larger than what its solver aims at.
    torch.backends.cudnn.allow_tf32 = False
    log_to(arguments.out)
    scans = Scans(
        [siat_slices(arguments.data, SIAT_TRAIN), t1_training_slices(arguments.data)],
        [siat_slices(arguments.data, SIAT_VALIDATION), t1_validation_slices(arguments.data)],
        first=arguments.first_scans,
        batch=arguments.batch,
        seed=arguments.seed,
        device=arguments.device,
    )
    problems = scans.problems(arguments.validation_problems)
    model = build(
        arguments.model,
        seed=arguments.seed,
        channels=arguments.channels,
        features=arguments.features,
        levels=arguments.levels,
    ).to(arguments.device)
    settings = TrainSettings(steps=arguments.steps, seed=arguments.seed, learning_rate=arguments.learning_rate)
    task = ReconstructionTask(model, scans.draw)
    finish(train(task, settings, arguments.out, lambda m: mean_psnr(m, problems)), arguments.steps)
    name = arguments.name or f"{arguments.model}-brain-2d"
    card = {
        "name": name,
        "model": DESCRIPTIONS[arguments.model] + ", 2D multi-coil Cartesian MRI",
        "data": "SIAT T2 slices, one T1 volume (three orientations), simulated coils, ESPIRiT maps, noise 0.001-0.03",
        "split": "train: SIAT 0-159, T1 without axial 120-139; validation: SIAT 170-199, T1 axial 120-139",
        "steps": arguments.steps,
        "batch": arguments.batch,
        "seed": arguments.seed,
        "learning_rate": arguments.learning_rate,
        "parameters": sum(p.numel() for p in model.parameters()),
        "scores": {"validation_psnr_db": round(float(read_log(arguments.out)[-1]["validation"]), 2)},
        "licence": "data: SIAT, none stated, provided for research; T1 volume, CC BY-NC 4.0",
        "intended_use": "research use",
    }
    save(model, arguments.out / f"{name}.safetensors", card)


if __name__ == "__main__":
    main()

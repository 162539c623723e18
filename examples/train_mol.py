"""Train the packaged 2D models: `python examples/train_mol.py --data DATA --out runs/mol [--model mol]`.

`mol` is the strictly monotone equilibrium model, `mol-penalised` an equilibrium model of a plain network that pays for
its local Lipschitz constant, `modl` the same plain network unrolled ten times: equal data, steps, schedule and number
of parameters (43,000).

DATA is the folder that data_scripts/prepare_siat.py and prepare_brains.py lay out. The run resumes from its
checkpoint; with the same seed and steps it is the same run. At the end OUT holds NAME.safetensors and its card.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from molrecon.conditioning import Conditioning, smooth_phase
from molrecon.mol import MOL
from molrecon.networks import PlainNetwork, ResidualNetwork
from molrecon.training.files import log_to
from molrecon.training.fit import FitSettings, Reconstructor, fit
from molrecon.training.simulate import Problem, Scan, magnitude_psnr, simulate_scan, stack_problems, strip_problem
from molrecon.training.sources import (
    SIAT_TRAIN,
    SIAT_VALIDATION,
    siat_slices,
    t1_training_slices,
    t1_validation_slices,
)
from molrecon.unrolled.modl import MoDL
from molrecon.weights import save_model

SIZE = 224  # rows and columns of the simulated scans
STRIP = 48  # readout positions of a training problem
NEW_SCAN_EVERY = 8  # steps between new simulated scans
MOST_SCANS = 500
PLAIN_FEATURES = 39  # of the plain network: as many parameters as the strict one
DESCRIPTIONS = {
    "mol": "MOL, strictly monotone residual network",
    "mol-penalised": "MOL, plain network of 5 layers with a Lipschitz penalty, approximately monotone",
    "modl": "MoDL, plain network of 5 layers, 10 unrolls with shared weights",
}


class Scans:
    """A growing bank of simulated scans; scan number i depends on the seed and i alone."""

    def __init__(self, sources: list[list[np.ndarray]], first: int, batch: int, seed: int, device: str) -> None:
        self.sources = sources
        self.batch = batch
        self.first = first
        self.seed = seed
        self.device = device
        self.bank: list[Scan] = []
        self.simulated = 0

    def grow(self, count: int) -> None:
        """Simulate until `count` scans have been; the bank keeps the last MOST_SCANS of them."""
        self.simulated = max(self.simulated, count - MOST_SCANS)
        while self.simulated < count:
            rng = np.random.default_rng([self.seed, 10**9, self.simulated])
            slices = self.sources[self.simulated % len(self.sources)]
            self.bank.append(simulate_scan(slices[int(rng.integers(len(slices)))], SIZE, rng))
            self.simulated += 1
        self.bank = self.bank[-MOST_SCANS:]

    def draw(self, rng: np.random.Generator, step: int) -> Problem:
        """Return a batch of strips of random scans."""
        self.grow(self.first + step // NEW_SCAN_EVERY)
        chosen = [self.bank[int(i)] for i in rng.integers(len(self.bank), size=self.batch)]
        return stack_problems([strip_problem(scan, STRIP, rng) for scan in chosen]).to(self.device)


def validation_problems(data: Path, seed: int) -> list[Problem]:
    """Return strips of validation slices, T2 and T1 in turn, never trained on."""
    sources = [siat_slices(data, SIAT_VALIDATION), t1_validation_slices(data)]
    problems = []
    for i in range(12):
        rng = np.random.default_rng([seed, 2 * 10**9, i])
        slices = sources[i % 2]
        scan = simulate_scan(slices[int(rng.integers(len(slices)))], SIZE, rng)
        problems.append(strip_problem(scan, 2 * STRIP, rng))
    return problems


def psnr_of(model: Reconstructor, problems: list[Problem]) -> float:
    """Return the mean PSNR of magnitudes (reference maximum as peak) at the model's tolerance."""
    scores = []
    for p in problems:
        known = Conditioning(torch.ones_like(p.noise_level), p.noise_level, smooth_phase(p.operator.adjoint(p.kspace)))
        answer = model(p.kspace, p.operator, conditioning=known)
        image = answer if isinstance(answer, torch.Tensor) else answer.value
        scores.append(magnitude_psnr(image, p.reference))
    return float(np.mean(scores))


def build_model(arguments: argparse.Namespace) -> Reconstructor:
    """Return the untrained model."""
    if arguments.model == "mol":
        strict = ResidualNetwork(
            monotonicity=arguments.monotonicity,
            channels=arguments.channels,
            features=arguments.features,
            levels=arguments.levels,
            seed=arguments.seed,
        )
        return MOL(strict)
    # Unrolled, the plain network corrects its input, as MoDL's does; as an equilibrium model it is H, as MOL's is.
    unrolled = arguments.model == "modl"
    plain = PlainNetwork(
        monotonicity=arguments.monotonicity, features=PLAIN_FEATURES, skip=unrolled, seed=arguments.seed
    )
    return MoDL(plain) if unrolled else MOL(plain)


def main() -> None:
    """Run the command."""
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
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--first-scans", type=int, default=48, help="scans simulated before the first step")
    parser.add_argument("--channels", type=int, default=8)
    parser.add_argument("--features", type=int, default=32)
    parser.add_argument("--levels", type=int, default=5)
    parser.add_argument("--monotonicity", type=float, default=0.01)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    device = arguments.device
    log_to(arguments.out)
    sources = [siat_slices(arguments.data, SIAT_TRAIN), t1_training_slices(arguments.data)]
    scans = Scans(sources, arguments.first_scans, arguments.batch, arguments.seed, device)
    problems = [problem.to(device) for problem in validation_problems(arguments.data, arguments.seed)]
    model = build_model(arguments).to(device)
    settings = FitSettings(steps=arguments.steps, seed=arguments.seed, learning_rate=arguments.learning_rate)
    steps = fit(model, scans.draw, settings, arguments.out / "checkpoint.pt", lambda m: psnr_of(m, problems))
    for _ in tqdm(steps, total=arguments.steps, desc="training", disable=None):
        pass
    with torch.no_grad():
        score = psnr_of(model, problems)
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
        "scores": {"validation_psnr_db": round(score, 2)},
        "licence": "data: SIAT, none stated, provided for research; T1 volume, CC BY-NC 4.0",
        "intended_use": "research use",
    }
    save_model(model, arguments.out / f"{name}.safetensors", card)


if __name__ == "__main__":
    main()

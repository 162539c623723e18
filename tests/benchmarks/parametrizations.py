"""Which certified network denoises best after equal training? The gain in dB of each parametrization, of equal size.

    python tests/benchmarks/parametrizations.py --steps 300 --seed 0       # MOLRECON_DATA names the data folder

Complex noise of standard deviation 0.03 on patches of SIAT slices (maximum 1), Adam, mean squared error; scored on
patches of validation slices as `10 log10(|noisy - x|^2 / |H(noisy) - x|^2)`.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

# The folder of this file, which Python puts first, holds a benchmark named like the package operators.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import torch
from torch import Tensor

from examples._subjects import SIAT_TRAIN, SIAT_VALIDATION, siat_slices
from molrecon.networks import Denoiser, PlainNetwork, ResidualNetwork, SpectralNetwork

SIGMA = 0.03
PATCH = 44
MARGIN = 6  # of a patch that does not count: zero padding is not what lies there


def networks(seed: int) -> dict[str, Denoiser]:
    """Return one network of each kind, of 3500 to 3700 weights, all with m = 0.01."""
    return {
        "spectral": SpectralNetwork(monotonicity=0.01, layers=4, features=13, seed=seed),
        "residual, potential": ResidualNetwork(features=16, levels=2, cycles=1, seed=seed),
        "residual, SLL": ResidualNetwork(features=16, levels=2, cycles=1, layer="sll", seed=seed),
        "free (no certificate)": PlainNetwork(monotonicity=0.01, layers=4, features=13, skip=True, seed=seed),
    }


def patches(slices: list[np.ndarray], count: int, rng: np.random.Generator) -> Tensor:
    """Return (count, 2, PATCH, PATCH) from the slices' middle, where there is tissue."""
    chosen = []
    for _ in range(count):
        image = slices[int(rng.integers(len(slices)))]
        top, left = rng.integers(64, 192 - PATCH, 2)
        patch = image[top : top + PATCH, left : left + PATCH] / np.abs(image).max()
        chosen.append(np.stack([patch.real, patch.imag]))
    return torch.from_numpy(np.stack(chosen).astype(np.float32))


def noisy(image: Tensor, rng: np.random.Generator) -> Tensor:
    noise = rng.standard_normal(image.shape).astype(np.float32) * np.float32(SIGMA / np.sqrt(2))
    return image + torch.from_numpy(noise)


def error(image: Tensor, reference: Tensor) -> Tensor:
    return (image - reference)[..., MARGIN:-MARGIN, MARGIN:-MARGIN].square().mean()


def train(
    network: Denoiser, slices: list[np.ndarray], steps: int, batch: int, learning_rate: float, seed: int
) -> float:
    """Train in place and return the seconds that took."""
    rng = np.random.default_rng(seed)
    optimiser = torch.optim.Adam(network.parameters(), lr=learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    level = torch.full((batch,), SIGMA)
    started = time.process_time()
    network.train()
    for _ in range(steps):
        image = patches(slices, batch, rng)
        loss = error(network.denoiser(level)(noisy(image, rng)), image)
        optimiser.zero_grad()
        (loss / SIGMA**2).backward()
        optimiser.step()
        schedule.step()
    network.eval()
    return time.process_time() - started


@torch.no_grad()
def gain(network: Denoiser, image: Tensor, seed: int) -> float:
    seen = noisy(image, np.random.default_rng([seed, 1]))
    denoised = network.eval().denoiser(torch.full((len(image),), SIGMA))(seen)
    return float(10 * (error(seen, image) / error(denoised, image)).log10())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="a word of the names of those to run")
    parser.add_argument("--data", type=Path, default=os.environ.get("MOLRECON_DATA"))
    arguments = parser.parse_args()
    if arguments.data is None:
        parser.error("--data or MOLRECON_DATA must name the data folder")
    training, validation = (siat_slices(arguments.data, part) for part in (SIAT_TRAIN, SIAT_VALIDATION))
    held_out = patches(validation, 100, np.random.default_rng([arguments.seed, 2]))
    print("| network | weights | bound of Lip(H) | gain at the start (dB) | trained (dB) | ms a step |")
    print("|---|---|---|---|---|---|")
    chosen = {name: network for name, network in networks(arguments.seed).items() if arguments.only in name}
    for name, network in chosen.items():
        weights = sum(parameter.numel() for parameter in network.parameters())
        before = gain(network, held_out, arguments.seed)
        seconds = train(network, training, arguments.steps, arguments.batch, arguments.learning_rate, arguments.seed)
        after = gain(network, held_out, arguments.seed)
        bound = f"{network.lipschitz_bound():.4f}" if network.certified else "none"
        milliseconds = 1e3 * seconds / arguments.steps
        print(f"| {name} | {weights} | {bound} | {before:.2f} | {after:.2f} | {milliseconds:.0f} |", flush=True)


if __name__ == "__main__":
    main()

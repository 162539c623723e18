"""Do constraints make unrolled networks descend and robust, or does layer noise alone? Four arms, all else equal:

    python examples/train_descent.py patches --data DATA --out runs/patches
    python examples/train_descent.py patches --start random --data DATA --out runs/patches-random
    python examples/train_descent.py blocks --data DATA --out runs/blocks
    python examples/train_descent.py scans --data DATA --out runs/scans

patches: LISTA of ten layers on patches of photographs, the distance to the lasso optimum (FISTA to 1e-10); DATA has
cs/, without it photographs that ship with scikit-image are used. The weights start as ISTA, or at random.
blocks: ISTA-Net+ of a few stages, block compressed sensing at 25 %, the distance to the block; DATA has cs/ and
published/. scans: MoDL of five unrolls on simulated multi-coil scans, the distance to the reference; DATA has mri/.

OUT/ARM/SEED holds log.csv (ratio, slack and multiplier of every layer), weights and result.json of each training, and
OUT/arms.json means and spreads over the seeds (see `examples._arms`). What is interrupted resumes with the same
command. "quality" is the NMSE in dB (mean over samples) for patches, the PSNR in dB otherwise.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # to run from a checkout that is not installed

from examples._arms import FourArms, run_arms
from examples._subjects import SIAT_TRAIN, SIAT_VALIDATION, siat_slices
from examples._volumes import t1_validation_slab
from molrecon.descent.constraints import Descent
from molrecon.descent.descent_checks import LayerNoise
from molrecon.descent.lista import LISTA
from molrecon.descent.problems import BlockProblem, Codes, CodingProblem, ScanProblem
from molrecon.descent.sparse import mean_nmse_db
from molrecon.descent.sparse_problems import (
    Patches,
    draw_patches,
    image_split,
    patch_dictionary,
    stream,
    texture_images,
)
from molrecon.networks import PlainNetwork
from molrecon.reconstructors.modl import MoDL
from molrecon.sensing.assembly import assemble
from molrecon.sensing.imager import BLOCK_SIZE, BlockImager
from molrecon.sensing.training import (
    initialisation_matrix,
    second_moment,
    sensing_matrix,
    training_blocks,
    validation_images,
)
from molrecon.simulation.strips import Problem, Scan, magnitude_psnr, simulate_scan, strip_problem
from molrecon.training.checkpoints import log_to
from molrecon.training.fingerprint import array_fingerprint
from molrecon.training.train_settings import TrainSettings

TRAIN, VALIDATION, TEST, TEXTURES, NOISE = range(10, 15)  # streams of draws
LAYERS = 10  # of LISTA
STAGES, RATIO = 3, 25  # of ISTA-Net+
UNROLLS, SIZE, STRIP = 5, 128, 16  # of MoDL; pixels of its scans
EVERY = 8  # one training block in so many is used
STEPS = {"patches": 2000, "blocks": 600, "scans": 300}
COUNTS = {"patches": 4000, "blocks": 0, "scans": 64}
SETTINGS = TrainSettings(warmup=0, final_rate=0.1, betas=(0.9, 0.99), ema=0, learning_rate=1e-3)
DUAL_RATE = 0.1
EPSILON, ISTA_EPSILON = 0.05, 0.15  # what starts as ISTA fulfils the source's 0.05 without being asked to
NOISE_IN_TRAINING = LayerNoise(0.1, decay=0.8)


def patches(arguments: argparse.Namespace) -> FourArms[Any, Any]:
    """Return the comparison on sparse codes of patches."""
    dictionary = patch_dictionary()
    train, validation, test = image_split(arguments.data)

    def coded(images: list[np.ndarray], which: int, count: int, noise: float = 0.0) -> Patches:
        measurements = draw_patches(images, count, stream(0, which))
        draws = torch.from_numpy(stream(0, NOISE).standard_normal(measurements.shape)).float()
        return Patches(measurements + noise * draws / measurements.shape[1] ** 0.5, dictionary)

    count = arguments.count // 8
    problems = coded(train, TRAIN, arguments.count)
    conditions = {
        "unseen": coded(test, TEST, count),
        "noise 10 %": coded(test, TEST, count, 0.1),
        "noise 30 %": coded(test, TEST, count, 0.3),
        "textures": coded(texture_images(), TEXTURES, count),
    }

    def build(seed: int) -> CodingProblem:
        network = LISTA(dictionary, LAYERS)
        if arguments.start == "random":
            generator = torch.Generator().manual_seed(seed)
            with torch.no_grad():
                for weight in (network.from_measurements, network.from_codes):
                    bound = weight.shape[-1] ** -0.5
                    weight.uniform_(-bound, bound, generator=generator)
        return CodingProblem(network, problems)

    return comparison(
        arguments,
        build,
        [batch(coded(validation, VALIDATION, count))],
        {name: [batch(drawn)] for name, drawn in conditions.items()},
        lambda last, codes: mean_nmse_db(last, codes[0]),
        data=train,
    )


def batch(problems: Patches) -> Codes:
    """Return all codes and measurements."""
    return problems.codes, problems.measurements


def blocks(arguments: argparse.Namespace) -> FourArms[Any, Any]:
    """Return the comparison on blocks of photographs."""
    training = training_blocks(arguments.data)[::EVERY]
    phi = sensing_matrix(arguments.data, RATIO)
    initialisation = torch.from_numpy(initialisation_matrix(phi, second_moment(training))).float()
    sensing = torch.from_numpy(phi).float()

    def build(seed: int) -> BlockProblem:
        model = assemble("ista-net-plus", "gdm", n_stages=STAGES, seed=seed)
        return BlockProblem(BlockImager(model, sensing, initialisation), training, batch=4)

    measured = build(0).measured
    held_out = validation_images(arguments.data)
    unseen = measured(cut(held_out[20:], 200, TEST))
    draws = torch.from_numpy(stream(0, NOISE).standard_normal(unseen[1].shape)).float()
    return comparison(
        arguments,
        build,
        [measured(cut(held_out[:20], 100, VALIDATION))],
        {
            "unseen": [unseen],
            "noise 0.02": [(unseen[0], unseen[1] + 0.02 * draws)],
            "noise 0.1": [(unseen[0], unseen[1] + 0.1 * draws)],
            "textures": [measured(cut(texture_images(), 200, TEXTURES))],
        },
        lambda last, problem: float(-10 * (last.clamp(0, 1) - problem[0]).square().mean((1, 2)).log10().mean()),
        data=[training],
    )


def cut(images: Sequence[np.ndarray], count: int, which: int) -> np.ndarray:
    """Return blocks (count, 1089) uint8 from random places of images."""
    rng, found = stream(0, which), []
    for _ in range(count):
        image = images[int(rng.integers(len(images)))]
        row, col = (int(rng.integers(size - BLOCK_SIZE + 1)) for size in image.shape)
        found.append(image[row : row + BLOCK_SIZE, col : col + BLOCK_SIZE].ravel())
    return np.stack(found)


def scans(arguments: argparse.Namespace) -> FourArms[Any, Any]:
    """Return the comparison on multi-coil scans."""
    training = siat_slices(arguments.data, SIAT_TRAIN)
    simulated = scans_of(training, arguments.count, TRAIN)
    count = arguments.count // 8

    def draw(rng: np.random.Generator, step: int) -> Problem:
        return strip_problem(simulated[int(rng.integers(len(simulated)))], STRIP, rng)

    def build(seed: int) -> ScanProblem:
        network = PlainNetwork(monotonicity=0.01, features=24, skip=True, seed=seed)
        return ScanProblem(MoDL(network, n_unrolls=UNROLLS), draw)

    slices = siat_slices(arguments.data, SIAT_VALIDATION)
    t1_slices = list(t1_validation_slab(arguments.data).transpose(2, 0, 1).astype(np.complex64))
    unseen = scans_of(slices[15:], count, TEST)
    conditions = {
        "unseen": unseen,
        "noise x 3": [replace(scan, noise_level=3 * scan.noise_level) for scan in unseen],
        "T1": scans_of(t1_slices, count, TEXTURES),
    }
    return comparison(
        arguments,
        build,
        strips(scans_of(slices[:15], count, VALIDATION)),
        {name: strips(drawn) for name, drawn in conditions.items()},
        lambda last, problem: magnitude_psnr(last, problem.reference),
        deeper=UNROLLS,
        data=training,
    )


def scans_of(slices: Sequence[np.ndarray], count: int, which: int) -> list[Scan]:
    """Return simulated scans of random slices."""
    rng = stream(0, which)
    return [simulate_scan(slices[int(rng.integers(len(slices)))], SIZE, rng) for _ in range(count)]


def strips(scans: Sequence[Scan]) -> list[Problem]:
    """Return a problem of each scan, with draws of its own."""
    return [strip_problem(scan, STRIP, stream(i, NOISE)) for i, scan in enumerate(scans)]


def comparison(
    arguments: argparse.Namespace,
    build: Callable[[int], Any],
    validation: Sequence[Any],
    conditions: dict[str, Sequence[Any]],
    quality: Callable[[Tensor, Any], float],
    deeper: int = 0,
    *,
    data: Sequence[np.ndarray],
) -> FourArms[Any, Any]:
    """Return what the problems have in common as well; `data` is what is trained on."""
    steps = arguments.steps or STEPS[arguments.problem]
    every = max(1, steps // 10)
    settings = replace(SETTINGS, steps=steps, checkpoint_every=every, log_every=every)
    from_ista = arguments.problem == "patches" and arguments.start == "ista"
    epsilon = (ISTA_EPSILON if from_ista else EPSILON) if arguments.epsilon is None else arguments.epsilon
    descent = Descent(epsilon, dual_rate=DUAL_RATE)
    fingerprint = {"problem": arguments.problem, "start": arguments.start, "count": arguments.count}
    return FourArms(
        build,
        settings,
        descent,
        NOISE_IN_TRAINING,
        validation,
        conditions,
        quality,
        (0.05, 0.1, 0.2),
        deeper,
        {**fingerprint, "training_data": array_fingerprint(data)},
    )


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("problem", choices=STEPS)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--start", choices=("ista", "random"), default="ista", help="of patches; default: %(default)s")
    parser.add_argument("--steps", type=int, help="of each training; default: 2000, 600 and 300")
    parser.add_argument("--epsilon", type=float, help="default: 0.05, and 0.15 for what starts as ISTA")
    parser.add_argument("--count", type=int, help="patches or scans for training; default: 4000 and 64; tests: 1 / 8")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args(argv)
    if arguments.problem != "patches" and arguments.data is None:
        parser.error(f"{arguments.problem}: --data is needed")
    arguments.count = arguments.count or COUNTS[arguments.problem]
    return arguments


def show(summary: dict[str, Any]) -> None:
    """Print a table."""
    for arm, found in summary.items():
        clean = found["conditions"]["unseen"]
        ratios = "  ".join(f"{ratio['mean']:.3f}" for ratio in clean["mean_ratios"])
        print(f"{arm}\n  ratios {ratios}\n  descending samples {clean['samples_descending']['mean']:.3f}")
        tables = {**found["conditions"], **{f"layer noise {key}": row for key, row in found["layer_noise"].items()}}
        for name, row in tables.items():
            quality, last = row["quality"], row["distance"][-1]["mean"]
            print(f"  {name:18} quality {quality['mean']:7.2f} +- {quality['spread'] or 0:.2f} dB, distance {last:.4f}")


def main() -> None:
    """Run the command, with a log in OUT."""
    arguments = parse()
    torch.set_num_threads(arguments.threads)
    log_to(arguments.out)
    arms = {"patches": patches, "blocks": blocks, "scans": scans}[arguments.problem](arguments)
    show(run_arms(arms, arguments.out, range(arguments.seeds)))


if __name__ == "__main__":
    main()

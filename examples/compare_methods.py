"""Every method here on the same scans: SIAT validation slices at 4x and 8x, and the real 8-coil brain at 4x.

    python examples/compare_methods.py --data DATA [--weights FOLDER] [--slices 30] [--json FILE] [--figure FILE]

DATA is the folder that data_scripts/prepare_siat.py and prepare_brains.py lay out. The learned methods are those that
are packaged, or, where FOLDER holds NAME.safetensors files of `examples/train_prior.py`, those. Coils are simulated,
noise is 1 % of the image maximum, masks are random with 8 % (4x) or 4 % (8x) of central lines; maps, noise level,
scale and phase come from the undersampled data. The reference is the noise-free coil combination with the same maps.
The weights of CG-SENSE and L1-wavelet are those that are best on training slices, for each acceleration.

The table has mean and spread (standard deviation) over slices, or over five masks of the brain. Training memory is the
peak of one training step on the first SIAT slice, beside model and data (resident set of this process, or CUDA's
statistics).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # to run from a checkout that is not installed

from examples._subjects import SIAT_TRAIN, SIAT_VALIDATION, siat_slices
from molrecon.io import read_npy
from molrecon.reconstructors.base import Reconstructor
from molrecon.reconstructors.classical import CGSense, L1Wavelet, ZeroFilled
from molrecon.reconstructors.conditioning import condition
from molrecon.scans.comparison import undersample
from molrecon.scans.metrics import nmse, psnr, ssim
from molrecon.scans.preparation import prepare
from molrecon.simulation.strips import Problem, plain_scan
from molrecon.training.step_memory import training_memory
from molrecon.weights import available_models, load
from operators import Sense, centred_fft, estimate_noise_level, random_mask

Method = Callable[[Problem], Tensor]

LEARNED = {  # in the order of the table, with the packaged weights
    "U-Net": "unet-brain-2d",
    "MoDL, 10 unrolls": "modl-brain-2d",
    "ADMM-Net, 10 unrolls": "admm-net-brain-2d",
    "VarNet, 10 unrolls": "varnet-brain-2d",
    "DE-GRAD": "de-grad-brain-2d",
    "DE-PROX": "de-prox-brain-2d",
    "MOL penalised": "mol-penalised-brain-2d",
    "MOL strict": "mol-brief-brain-2d",
    "MOL strict, longer training": "mol-brain-2d",
}
NOISE_LEVEL = 0.01
CENTER_FRACTION = {4: 0.08, 8: 0.04}
CG_GRID = (1e-3, 3e-3, 1e-2, 2e-2, 3e-2, 5e-2, 0.1)
L1_GRID = (5e-4, 1e-3, 2e-3, 3e-3, 5e-3, 8e-3)
TUNING_SLICES = range(0, 160, 40)
BRAIN = "mri/brain_mprage_8ch_230x180_ksp_c64.npy"
BRAIN_MASKS = 5


@final
@dataclass(frozen=True)
class Score:
    """How well one method did on one image."""

    psnr: float
    ssim: float
    nmse: float
    seconds: float


def siat_problem(image: np.ndarray, acceleration: int, seed: Sequence[int]) -> Problem:
    """Return the reconstruction of a whole slice with eight simulated coils, undersampled along the columns."""
    rng = np.random.default_rng(list(seed))
    cols, share = image.shape[1], CENTER_FRACTION[acceleration]
    scan = plain_scan(image, NOISE_LEVEL, round(cols * share), rng)
    mask = torch.from_numpy(random_mask(cols, acceleration, share, int(rng.integers(2**31))))[None, None]
    operator = Sense(scan.sensitivity_maps[None], mask)
    noise = torch.view_as_complex(torch.from_numpy(rng.normal(0, 0.5**0.5, (*scan.coil_images.shape, 2)).astype("f4")))
    kspace = operator.sampling(centred_fft(scan.coil_images + NOISE_LEVEL * noise, (-2, -1))[None])
    level = estimate_noise_level(kspace, operator.sampling_mask)
    return Problem(kspace, operator, scan.reference[None], level)


def brain_problem(data: Path, seed: int) -> Problem:
    """Return the real brain at random 4x with 24 calibration lines; the reference is its fully sampled combination."""
    full = read_npy(data / BRAIN)
    cols = full.kspace.shape[-1]
    scan = prepare(undersample(full, random_mask(cols, 4, 24 / cols, seed), 0.0, [seed]))
    operator = Sense(scan.sensitivity_maps[:, 0], scan.sampling_mask)
    everything = Sense(scan.sensitivity_maps[:, 0], torch.ones(1, 1, 1, dtype=torch.bool))
    reference = everything.adjoint(torch.from_numpy(full.kspace))
    return Problem(scan.kspace, operator, reference, torch.tensor([scan.noise_level]))


def learned(model: Reconstructor) -> Method:
    """Return a trained reconstructor as a method; equilibrium ones return a Solution."""

    def reconstruct(problem: Problem) -> Tensor:
        answer = model(problem.kspace, problem.operator, problem.noise_level)
        return answer if isinstance(answer, Tensor) else answer.value

    return reconstruct


def scored(method: Method, problem: Problem) -> tuple[Score, np.ndarray]:
    """Return the metrics of magnitudes, the reference's maximum as peak, and the magnitude image."""
    start = time.perf_counter()
    with torch.no_grad():
        image = method(problem).abs().numpy()
    seconds = time.perf_counter() - start
    reference = problem.reference.abs().numpy()
    return Score(psnr(reference, image), ssim(reference, image), nmse(reference, image), seconds), image[0]


def classical_methods(tuning: Sequence[Problem]) -> dict[str, Method]:
    """Return the untrained methods, their weights those with the best mean PSNR on the tuning problems."""

    def best(candidates: Sequence[Method]) -> Method:
        means = [np.mean([scored(method, p)[0].psnr for p in tuning]) for method in candidates]
        return candidates[int(np.argmax(means))]

    return {
        "zero-filled": lambda p: ZeroFilled()(p.kspace, p.operator).value,
        "CG-SENSE": best([lambda p, w=w: CGSense(w)(p.kspace, p.operator).value for w in CG_GRID]),  # type: ignore[misc]
        "L1-wavelet": best([lambda p, w=w: L1Wavelet(w)(p.kspace, p.operator).value for w in L1_GRID]),  # type: ignore[misc]
    }


def learned_models(weights: Path | None) -> dict[str, Reconstructor]:
    """Return the reconstructors that have weights."""
    models = {}
    for title, name in LEARNED.items():
        if weights is not None and (file := weights / f"{name}.safetensors").is_file():
            models[title] = load(file, Reconstructor)
        elif name in available_models():
            models[title] = load(name, Reconstructor)
        else:
            print(f"{title}: no weights {name}, packaged or in --weights; it is left out")
    return models


def megabytes(model: Reconstructor, problem: Problem) -> float | None:
    """Return the memory of one training step; the second one's, since a first one loads code and keeps buffers."""
    conditioning = condition(problem.kspace, problem.operator, problem.noise_level)
    used = [training_memory(model, problem.kspace, problem.operator, conditioning) for _ in range(2)][-1]
    return None if used is None else used / 1e6


def problem_sets(data: Path, slices: int, brain_masks: int) -> dict[str, tuple[list[Problem], int]]:
    """Return by name of the set its problems and their acceleration."""
    validation = siat_slices(data, SIAT_VALIDATION)[:slices]
    sets = {
        f"SIAT {a}x": ([siat_problem(image, a, [a, i]) for i, image in enumerate(validation)], a)
        for a in CENTER_FRACTION
    }
    if brain_masks:
        sets["brain 4x"] = [brain_problem(data, seed) for seed in range(brain_masks)], 4
    return sets


def tuning_problems(data: Path, acceleration: int) -> list[Problem]:
    """Return training slices to choose weights on; the brain, which has no partner to tune on, takes those of SIAT."""
    training = siat_slices(data, SIAT_TRAIN)
    return [siat_problem(training[i], acceleration, [acceleration, 10**6 + i]) for i in TUNING_SLICES]


def draw(pictures: dict[str, dict[str, np.ndarray]], references: dict[str, np.ndarray], path: Path) -> None:
    """Write one image of each set, and its error times five, for every method."""
    names = list(next(iter(pictures.values())))
    figure = Figure(figsize=(1.7 * (len(names) + 1), 3.6 * len(pictures)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2 * len(pictures), len(names) + 1, squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for row, (title, images) in enumerate(pictures.items()):
        reference = references[title]
        peak = 0.8 * float(reference.max())
        axes[2 * row, 0].imshow(reference, cmap="gray", vmin=0, vmax=peak)
        axes[2 * row, 0].set_title(f"{title}\nreference", fontsize=8)
        for col, (name, image) in enumerate(images.items(), start=1):
            axes[2 * row, col].imshow(image, cmap="gray", vmin=0, vmax=peak)
            axes[2 * row, col].set_title(f"{name}\n{psnr(reference[None], image[None]):.1f} dB", fontsize=8)
            axes[2 * row + 1, col].imshow(5 * abs(image - reference), cmap="gray", vmin=0, vmax=peak)
    figure.savefig(path, dpi=75)


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", type=Path, help="folder of weights to use in place of the packaged ones")
    parser.add_argument("--slices", type=int, default=30, help="validation slices, the first so many")
    parser.add_argument("--brain-masks", type=int, default=BRAIN_MASKS)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Print the tables; write JSON and figure."""
    arguments = parse(argv)
    torch.set_num_threads(arguments.threads)
    models = learned_models(arguments.weights)
    sets = problem_sets(arguments.data, arguments.slices, arguments.brain_masks)
    example = next(iter(sets.values()))[0][0]
    cost = {
        name: (sum(p.numel() for p in model.parameters()), megabytes(model, example)) for name, model in models.items()
    }
    pictures: dict[str, dict[str, np.ndarray]] = {}
    references: dict[str, np.ndarray] = {}
    scores: dict[str, dict[str, dict[str, list[float]]]] = {}
    classical = {a: classical_methods(tuning_problems(arguments.data, a)) for a in CENTER_FRACTION}
    for title, (problems, acceleration) in sets.items():
        methods = classical[acceleration] | {name: learned(model) for name, model in models.items()}
        shown = len(problems) // 2
        references[title], pictures[title], scores[title] = problems[shown].reference[0].abs().numpy(), {}, {}
        print(f"\n{title}, {len(problems)} images\n")
        print(
            "| method | PSNR, dB | SSIM | NMSE | seconds | training, MB | parameters |\n|---|---|---|---|---|---|---|"
        )
        for name, method in methods.items():
            answers = [scored(method, p) for p in tqdm(problems, desc=f"{title}: {name}", disable=None, leave=False)]
            values = np.array([[s.psnr, s.ssim, s.nmse, s.seconds] for s, _ in answers])
            pictures[title][name] = answers[shown][1]
            mean, spread = values.mean(0), values.std(0)
            scores[title][name] = {"mean": mean.tolist(), "spread": spread.tolist()}
            size, used = cost.get(name, (0, None))
            print(
                f"| {name} | {mean[0]:.2f} ± {spread[0]:.2f} | {mean[1]:.4f} ± {spread[1]:.4f} |"
                f" {mean[2]:.4f} ± {spread[2]:.4f} | {mean[3]:.2f} | {'' if used is None else f'{used:.0f}'} |"
                f" {f'{size:,}' if size else ''} |",
                flush=True,
            )
    if arguments.json:
        summary = {"scores": scores, "parameters and training memory, MB": cost}
        arguments.json.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    if arguments.figure:
        draw(pictures, references, arguments.figure)


if __name__ == "__main__":
    main()

"""The real 8-coil T1 brain: all methods at 1D random 4x with 24 calibration lines, and the prospective R = 8 scan.

    MOLRECON_DATA=DATA python examples/real_brain.py [--model NAME_OR_FILE] [--json FILE] [--figure FILE]

The regularisation of CG-SENSE and of both L1-wavelets (sigpy, BART) is the one with the best PSNR against the
reference, which favours them; MOL has nothing to choose. Maps, noise level and scale come from the undersampled data.
The reference is the coil combination of the fully sampled scan with the same maps; five masks (seeds 0 to 4) give mean
and spread. The prospective scan has no fully sampled partner: its images are compared by eye, in the figure.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # to run from a checkout that is not installed

from examples._bart import bart_l1
from molrecon.io import RawVolume, read_npy
from molrecon.reconstructors.classical import CGSense, L1Wavelet, ZeroFilled
from molrecon.reconstructors.defaults import DEFAULT_MODEL
from molrecon.reconstructors.mol import MOL
from molrecon.scans.comparison import undersample
from molrecon.scans.metrics import nmse, psnr, ssim
from molrecon.scans.preparation import PreparedVolume, prepare
from molrecon.solvers.solution import Solution
from molrecon.weights import load
from operators import Sense, random_mask

BRAIN = "mri/brain_mprage_8ch_230x180_ksp_c64.npy"  # the fully sampled scan, in the folder of MOLRECON_DATA
CG_GRID = (3e-3, 1e-2, 2e-2, 3e-2, 5e-2, 0.1)
SIGPY_GRID = (1e-3, 2e-3, 3e-3, 5e-3, 8e-3)
BART_GRID = (1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2)


def undersampled_brain(full: RawVolume, seed: int) -> PreparedVolume:
    """Return the brain at 1D random 4x with 24 calibration lines, ready to be reconstructed."""
    cols = full.kspace.shape[-1]
    return prepare(undersample(full, random_mask(cols, 4, 24 / cols, seed), 0.0, [seed]))


def candidates(
    model: MOL, noise_level: float, solutions: list[Solution]
) -> dict[str, list[Callable[[Tensor, Sense], Tensor]]]:
    """Return, by method, the reconstructions to choose the best of; MOL's whole answer goes to `solutions`."""

    def mol(kspace: Tensor, operator: Sense) -> Tensor:
        solutions.append(model(kspace, operator, noise_level=noise_level))
        return solutions[-1].value

    methods: dict[str, list[Callable[[Tensor, Sense], Tensor]]] = {
        "zero-filled": [lambda k, A: ZeroFilled()(k, A).value],
        "CG-SENSE": [lambda k, A, w=w: CGSense(w)(k, A).value for w in CG_GRID],  # type: ignore[misc]
        "L1-wavelet (sigpy)": [lambda k, A, w=w: L1Wavelet(w)(k, A).value for w in SIGPY_GRID],  # type: ignore[misc]
    }
    if shutil.which("bart"):
        methods["L1-wavelet (BART)"] = [lambda k, A, w=w: bart_l1(k, A, w) for w in BART_GRID]  # type: ignore[misc]
    methods["MOL"] = [mol]
    return methods


def main() -> None:
    """Print the table; write JSON and figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--figure", type=Path)
    arguments = parser.parse_args()
    folder = Path(os.environ["MOLRECON_DATA"]) / "mri"
    model = load(arguments.model, MOL)
    full = read_npy(folder.parent / BRAIN)
    rows: dict[str, list[list[float]]] = {}
    pictures: list[tuple[str, np.ndarray]] = []
    solutions: list[Solution] = []
    with torch.no_grad():
        for seed in range(arguments.seeds):
            scan = undersampled_brain(full, seed)
            operator = Sense(scan.sensitivity_maps[:, 0], scan.sampling_mask)
            everything = Sense(scan.sensitivity_maps[:, 0], torch.ones(1, 1, 1, dtype=torch.bool))
            reference = everything.adjoint(torch.from_numpy(full.kspace)).abs().numpy()
            if seed == 0:
                pictures.append(("reference", reference[0]))
            for name, choices in candidates(model, scan.noise_level, solutions).items():
                scored = []
                for method in choices:
                    start = time.perf_counter()
                    image = method(scan.kspace, operator).abs().numpy()
                    seconds = time.perf_counter() - start
                    scored.append(
                        (psnr(reference, image), ssim(reference, image), nmse(reference, image), seconds, image)
                    )
                best = max(scored, key=lambda score: score[0])
                rows.setdefault(name, []).append([float(v) for v in best[:4]])
                if seed == 0:
                    pictures.append((f"{name} {best[0]:.1f} dB", best[4][0]))
            solution = solutions[-1]
            print(
                f"mask {seed}: {int(scan.sampling_mask.sum())} lines, sigma {scan.noise_level:.4g},"
                f" MOL {int(solution.n_steps[0])} steps,"
                f" bound {float(solution.error_bound[0]):.1e}, converged {bool(solution.converged[0])}"
            )
        prospective = prepare(read_npy(folder / "brain_prospective_8ch_230x180_ksp_c64.npy"))
        operator = Sense(prospective.sensitivity_maps[:, 0], prospective.sampling_mask)
        for name, choices in candidates(model, prospective.noise_level, solutions).items():
            image = choices[len(choices) // 2](prospective.kspace, operator).abs().numpy()
            pictures.append((f"prospective: {name}", image[0]))
        solution = solutions[-1]
        print(f"prospective: {int(solution.n_steps[0])} steps, bound {float(solution.error_bound[0]):.1e}")
    print(model.certificate())
    print(f"{'method':20s} {'PSNR':>14s} {'SSIM':>16s} {'NMSE':>8s} {'seconds':>8s}")
    summary = {}
    for name, values in rows.items():
        mean, spread = np.mean(values, axis=0), np.std(values, axis=0)
        summary[name] = dict(zip(("psnr", "ssim", "nmse", "seconds"), mean.tolist(), strict=True))
        print(
            f"{name:20s} {mean[0]:7.2f} ± {spread[0]:4.2f} {mean[1]:9.4f} ± {spread[1]:.4f}"
            f" {mean[2]:8.4f} {mean[3]:8.2f}"
        )
    if arguments.json:
        arguments.json.write_text(json.dumps(summary, indent=2) + "\n")
    if arguments.figure:
        draw(pictures, arguments.figure)


def draw(pictures: list[tuple[str, np.ndarray]], path: Path) -> None:
    """Write the images and, below those that have a reference, their errors times five."""
    reference = pictures[0][1]
    n = sum(not title.startswith("prospective") for title, _ in pictures)
    figure = Figure(figsize=(2.4 * n, 9))
    FigureCanvasAgg(figure)
    axes = figure.subplots(3, n)
    for axis in axes.flat:
        axis.axis("off")
    for i, (title, image) in enumerate(pictures[:n]):
        axes[0, i].imshow(image, cmap="gray", vmin=0, vmax=0.8 * reference.max())
        axes[0, i].set_title(title, fontsize=9)
        if i:
            axes[1, i].imshow(5 * abs(image - reference), cmap="gray", vmin=0, vmax=0.8 * reference.max())
    axes[1, 1].set_title("errors x 5", fontsize=9)
    for i, (title, image) in enumerate(pictures[n:], start=1):
        axes[2, i].imshow(image, cmap="gray", vmin=0, vmax=float(np.quantile(image, 0.995)))
        axes[2, i].set_title(title, fontsize=9)
    figure.tight_layout()
    figure.savefig(path, dpi=80)


if __name__ == "__main__":
    main()

"""Validate 2D models on whole slices of subjects that nothing was trained on, against BART and CG-SENSE.

    MOLRECON_DATA=DATA python examples/validate.py --models A B [--json FILE] [--families NAME ...]

A and B are packaged models or safetensors files. Eleven families: two real multi-coil brains, which only measure, and
one of them folded into half of its field of view (two sets of maps, BART's as well), which only measures too; five of
images with their own phase, three of magnitudes with a simulated one (`examples._families`). Maps, noise level and
scale come from the undersampled data, as in `molrecon reconstruct`. CG-SENSE and BART's `pics -S -l1 -i100` have the
same maps, and the weight of a grid that is best for the slice, which favours them; their scores are kept in --baselines
and computed again where the data have changed. The table shows the mean PSNR of a family in dB, and what decides is the
last line: a model's lead over BART in the family where that is least, and on the worst slice.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from molrecon.reconstructors.base import Reconstructor
from molrecon.reconstructors.classical import CGSense
from molrecon.reconstructors.mol import MOL
from molrecon.scans.comparison import reference_image, undersample
from molrecon.scans.metrics import psnr, ssim
from molrecon.scans.preparation import PreparedVolume, prepare
from molrecon.scans.reconstruction import adapt

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # to run from a checkout that is not installed

from examples._bart import bart_l1
from examples._families import Case, families
from molrecon.weights import load

BASELINES = Path(__file__).parent / "results" / "validation_baselines.json"
CG_GRID = tuple(10 ** (k / 4) for k in range(-12, 2))
BART_GRID = tuple(10 ** (k / 6) for k in range(-24, -5))
TOL = 1e-3  # of an equilibrium's error bound

Scores = dict[str, float]


def best_of(score: Callable[[float], float], grid: Sequence[float]) -> tuple[float, float]:
    """Return the largest score and its weight: up the hill from the middle of the grid, two steps beyond the top."""
    scores: dict[int, float] = {}
    top = len(grid) // 2
    while True:
        near = [i for i in range(top - 2, top + 3) if 0 <= i < len(grid)]
        scores |= {i: score(grid[i]) for i in near if i not in scores}
        best = max(near, key=lambda i: scores[i])
        if best == top:
            return scores[top], grid[top]
        top = best


class Judge:
    """A case, undersampled and prepared, and the score of an image of it."""

    def __init__(self, case: Case) -> None:
        self.prepared: PreparedVolume = prepare(
            undersample(case.full, case.sampling_mask, case.added_noise, [case.seed])
        )
        self.operator = self.prepared.cartesian_operator(slice(None))
        self.reference = reference_image(case.full, self.prepared)
        # Of data and maps only what rounding, and another processor, hardly ever change: other data of equal loudness
        # are not told apart, so --baselines has to be made anew where the preparation changes.
        mask, shape = self.prepared.sampling_mask.numpy(), tuple(self.prepared.kspace.shape)
        loudness = [f"{norm:.3g}" for norm in torch.linalg.vector_norm(self.prepared.kspace, dim=(0, 2, 3)).tolist()]
        energy = self.prepared.sensitivity_maps.abs().square().mean((0, 1, 3, 4)).numpy()
        digest = hashlib.sha256(mask.tobytes())
        digest.update(f"{shape} {loudness} {energy.round(1).tolist()}".encode())
        self.digest = digest.hexdigest()[:16]

    def psnr(self, image: Tensor) -> float:
        """Return the PSNR of magnitudes in dB, peak the reference's maximum."""
        return float(psnr(self.reference, self.prepared.magnitude(image)))

    def ssim(self, image: Tensor) -> float:
        """Return the SSIM of magnitudes."""
        return float(ssim(self.reference, self.prepared.magnitude(image)))

    def baselines(self) -> Scores:
        """Return the PSNR of zero filling, and of CG-SENSE and BART at their best weights."""
        kspace, operator = self.prepared.kspace, self.operator
        scores = {"zero-filled": self.psnr(operator.adjoint(kspace))}
        cg = best_of(lambda w: self.psnr(CGSense(w)(kspace, operator).value), CG_GRID)
        bart = best_of(lambda w: self.psnr(bart_l1(kspace, operator, w)), BART_GRID)
        return scores | {"CG-SENSE": cg[0], "CG weight": cg[1], "BART": bart[0], "BART weight": bart[1]}

    def model(self, model: Reconstructor, tol: float | None = None, *, adapted: bool = False) -> tuple[Scores, Tensor]:
        """Return what a model does, with the noise level that the pipeline estimates, or adapts to the scan.

        Args:
            model: the model.
            tol: error bound of a MOL; None: that of its own settings, as others have, whose tolerance is of a residual.
            adapted: choose the strength by withheld samples.

        Returns:
            Scores, and the image (1, sets, rows, cols) or (1, rows, cols).
        """
        started = time.perf_counter()
        solver = replace(model.solver, tol=tol) if isinstance(model, MOL) and tol is not None else model.solver
        factor = adapt(self.prepared, model).factor if adapted else 1.0
        level = factor * self.prepared.noise_level
        image = model(self.prepared.kspace, self.operator, noise_level=level, solver=solver).value
        seconds = time.perf_counter() - started
        scores = {"psnr": self.psnr(image), "ssim": self.ssim(image), "seconds": seconds}
        return scores | ({"factor": factor} if adapted else {}), image


def parse() -> argparse.Namespace:
    """Return the arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("MOLRECON_DATA"), help="default: $MOLRECON_DATA")
    parser.add_argument("--models", nargs="*", default=[], help="packaged models or files")
    parser.add_argument("--families", nargs="*", help="default: all")
    parser.add_argument("--json", type=Path, help="write all scores there")
    parser.add_argument("--baselines", type=Path, default=BASELINES, help="file of CG-SENSE's and BART's scores")
    parser.add_argument("--tol", type=float, default=TOL, help="error bound of MOL models")
    parser.add_argument("--adapt", action="store_true", help="adapt the strength of models, as `reconstruct --adapt`")
    arguments = parser.parse_args()
    if arguments.data is None:
        parser.error("--data is not given and MOLRECON_DATA not set, expected the data folder")
    return arguments


@torch.no_grad()
def main() -> None:
    """Print the table; write JSON."""
    arguments = parse()
    models = {Path(name).stem: load(name, Reconstructor) for name in arguments.models}
    stored: dict[str, Scores] = {}
    if arguments.baselines.is_file():
        stored = json.loads(arguments.baselines.read_text())
    results: dict[str, dict[str, dict[str, Scores]]] = {}
    chosen = [f for f in families(arguments.data) if arguments.families is None or f.name in arguments.families]
    for family in chosen:
        rows = results[family.name] = {}
        for case in family.cases():
            judge = Judge(case)
            key = f"{case.name} [{judge.digest}]"
            if key not in stored and shutil.which("bart"):
                stale = [k for k in stored if k.startswith(f"{case.name} [")]
                for old in stale:
                    del stored[old]
                stored[key] = judge.baselines()
                arguments.baselines.parent.mkdir(parents=True, exist_ok=True)
                arguments.baselines.write_text(json.dumps(stored, indent=1) + "\n")
            rows[case.name] = {"baselines": stored.get(key, {})} | {
                n: judge.model(m, arguments.tol, adapted=arguments.adapt)[0] for n, m in models.items()
            }
    print(table(results, {f.name for f in chosen if not f.chooses}, list(models)))
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(results, indent=1) + "\n")


def table(results: dict[str, dict[str, dict[str, Scores]]], measured: set[str], models: list[str]) -> str:
    """Return the mean PSNR of each family, and for each model the least lead over BART: family, and single slice."""
    lines = [
        f"{'family (slices)':24s}" + "".join(f"{n[:18]:>19s}" for n in ("zero-filled", "CG-SENSE", "BART", *models))
    ]
    leads: dict[str, dict[str, float]] = {model: {} for model in models}
    worst: dict[str, float] = dict.fromkeys(models, float("inf"))
    for family, rows in results.items():
        base = [rows[case]["baselines"] for case in rows]
        numbers = [float(np.mean([b.get(n, np.nan) for b in base])) for n in ("zero-filled", "CG-SENSE", "BART")]
        for model in models:
            scores = [rows[case][model]["psnr"] for case in rows]
            single = [s - b.get("BART", np.nan) for s, b in zip(scores, base, strict=True)]
            leads[model][family] = float(np.mean(single))
            worst[model] = min(worst[model], *single)
            numbers.append(float(np.mean(scores)))
        star = "*" if family in measured else ""
        shown = [f"{n:19.2f}" for n in numbers[:3]]
        shown += [f"{n:11.2f} ({leads[m][family]:+5.2f})" for n, m in zip(numbers[3:], models, strict=True)]
        lines.append(f"{f'{family}{star} ({len(rows)})':24s}" + "".join(shown))
    if models:
        blank = f"{'':19s}" * 3
        mean = [f"{np.mean(list(leads[m].values())):+19.2f}" for m in models]
        least = [f"{min(leads[m].values()):+19.2f}" for m in models]
        choosing = [
            f"{min((v for f, v in leads[m].items() if f not in measured), default=np.nan):+19.2f}" for m in models
        ]
        lines += [
            f"{'mean lead':24s}{blank}" + "".join(mean),
            f"{'worst family':24s}{blank}" + "".join(least),
            f"{'worst that chooses':24s}{blank}" + "".join(choosing),
            f"{'worst slice':24s}{blank}" + "".join(f"{worst[m]:+19.2f}" for m in models),
        ]
    lines.append("* measured only. In brackets: lead over BART.")
    return "\n".join(lines)


if __name__ == "__main__":
    main()

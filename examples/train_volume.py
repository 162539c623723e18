"""Train the packaged 3D and 2D+time models: `python examples/train_volume.py --data DATA --kind 3d --out runs/3d`.

    ... --first mol-guided-2d               guided by the image of a model of planes, plane by plane
    ... --kind 3d --score mol-brain-3d      trains nothing: prints the scores of these weights as JSON

`3d` learns from slabs of two T1 volumes, undersampled 4 to 8 times along two axes; `dynamic` from windows of a
perfusion series, and of short-axis frames of 24 hearts that are set in motion, undersampled 5 to 10 times in columns
and time. Coils are simulated, and phase, which is rough and follows the anatomy in part; maps are estimated from the
scan's own centre. Both are strictly monotone networks with 3D kernels. The packaged 2D+time model had
`--first mol-guided-2d --monotonicity 0.1 --learning-rate 2e-3`, the 3D one another, earlier training.

DATA/mri holds the T1 volume that data_scripts/prepare_brains.py lays out, the perfusion series (79, 256, 256) of
https://github.com/mattiabestiaccia/bioimmagini_II as cardiac_perfusion_79x256x256_u16.npy, and the short-axis frames of
https://github.com/mshunshin/SegNetCMR as cardiac_shortaxis_526x256x256_u8.npz: arrays x and name, sorted by name.

The run resumes from its checkpoint; with the same seed and steps it is the same run. At the end OUT holds
NAME.safetensors and its card, with the scores on held-out problems of the model, of zero-filled and CG-SENSE images,
and of the packaged 2D model on every slice or frame by itself.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # to run from a checkout that is not installed

from examples._volumes import (
    PERFUSION_TRAIN,
    PERFUSION_VALIDATION,
    Slabs,
    Windows,
    cardiac_frames,
    colin27_volume,
    perfusion_series,
    t1_training_volume,
    t1_validation_slab,
)
from molrecon.networks import ResidualNetwork
from molrecon.reconstructors.classical import CGSense, ZeroFilled
from molrecon.reconstructors.defaults import DEFAULT_MODEL
from molrecon.reconstructors.guiding import GUIDE_CHANNELS
from molrecon.reconstructors.learned import LearnedReconstructor
from molrecon.reconstructors.mol import MOL
from molrecon.reconstructors.planes import PlaneByPlane
from molrecon.simulation.strips import Problem, magnitude_psnr
from molrecon.solvers.solver_settings import IMAGE_TOL
from molrecon.training.checkpoints import log_to
from molrecon.training.fingerprint import identifying_arguments
from molrecon.training.log import finish
from molrecon.training.loop import train
from molrecon.training.reconstruction_task import ReconstructionSettings, ReconstructionTask, mean_psnr
from molrecon.training.train_settings import TrainSettings
from molrecon.weights import load, save, weights_hash

NAMES = {"3d": "mol-brain-3d", "dynamic": "mol-perfusion-2dt"}
CG_WEIGHTS = (0.0003, 0.001, 0.003, 0.01, 0.03)
TOL = 1e-2  # of the error bound, while validating
SHAPES = {"3d": (5, 79, 79), "dynamic": (12, 24, 96)}  # readout and two axes; frames, rows and columns
CARDS = {
    "3d": {
        "model": "MOL, strictly monotone residual network, 3D multi-coil Cartesian MRI, two axes undersampled",
        "data": "two T1 volumes, simulated rough phase and coils, estimated maps, noise 0.001-0.03, Poisson disc and"
        " random 4-8x",
        "split": "train: Colin27, T1 axial 0-119; validation: T1 axial 120-139, 6x",
        "licence": "data: T1 volume, CC BY-NC 4.0; Colin27, free with its notice",
    },
    "dynamic": {
        "model": "MOL, strictly monotone residual network, 2D+time multi-coil Cartesian MRI, k-t undersampled",
        "data": "one perfusion series, short-axis frames with simulated motion; simulated rough phase and coils,"
        " estimated maps, noise 0.001-0.03, k-t masks 5-10x",
        "split": "train: perfusion frames 0-59, 24 hearts; validation: 6 other hearts with simulated motion, perfusion"
        " frames 64-78 (of the same patient), 8x",
        "licence": "data: perfusion series, educational and research use; short-axis frames (Sunnybrook), CC0",
    },
}


def sources(arguments: argparse.Namespace) -> Slabs | Windows:
    """Return training and validation problems."""
    data, shape = arguments.data, tuple(arguments.shape or SHAPES[arguments.kind])
    if arguments.kind == "3d":
        training_volumes = [t1_training_volume(data), colin27_volume(data)]
        return Slabs(
            training_volumes, t1_validation_slab(data), shape=shape, seed=arguments.seed, device=arguments.device
        )
    held_out = perfusion_series(data, PERFUSION_VALIDATION), cardiac_frames(data, held_out=True)
    training = perfusion_series(data, PERFUSION_TRAIN), cardiac_frames(data, held_out=False)
    return Windows(*training, held_out, shape=shape, seed=arguments.seed, device=arguments.device)


@torch.no_grad()
def scores(model: MOL, training: list[Problem], problems: list[Problem]) -> dict[str, float]:
    """Return mean PSNRs on the problems; the weight of CG-SENSE is the best on the training problems."""

    def mean(method: Callable[[Problem], Tensor], on: list[Problem]) -> float:
        return float(np.mean([magnitude_psnr(method(p), p.reference) for p in on]))

    def cg_sense(weight: float) -> Callable[[Problem], Tensor]:
        return lambda p: CGSense(weight)(p.kspace, p.operator).value

    weight = max(CG_WEIGHTS, key=lambda w: mean(cg_sense(w), training))
    default = load(DEFAULT_MODEL, MOL)
    default.solver = replace(default.solver, tol=TOL)
    planes = PlaneByPlane(default).eval().to(next(model.parameters()).device)
    scores = {
        "validation_psnr_db": mean_psnr(model, problems),
        "zero_filled_psnr_db": mean(lambda p: ZeroFilled()(p.kspace, p.operator).value, problems),
        "cg_sense_psnr_db": mean(cg_sense(weight), problems),
        "cg_sense_weight": weight,
        "default_2d_psnr_db": mean_psnr(planes, problems),
    }
    return {name: round(value, 4 if name.endswith("weight") else 2) for name, value in scores.items()}


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--kind", choices=tuple(NAMES), required=True)
    goal = parser.add_mutually_exclusive_group(required=True)
    goal.add_argument("--out", type=Path, help="folder of the training")
    goal.add_argument("--score", metavar="NAME_OR_FILE", help="weights to score on the held-out problems")
    parser.add_argument("--first", metavar="NAME_OR_FILE", help="a model of planes whose image guides")
    parser.add_argument("--monotonicity", type=float, default=0.01, help="m (default: %(default)s)")
    parser.add_argument("--name", help="of the weights; default: that of the packaged model")
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    parser.add_argument("--features", type=int, default=16, help="of each layer")
    parser.add_argument("--shape", type=int, nargs=3, help="of a training problem; default: as trained")
    parser.add_argument("--problems", type=int, default=8, help="validation problems")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.backends.cudnn.allow_tf32 = False
    source = sources(arguments)
    problems = source.problems(arguments.problems)
    training = [source.draw(np.random.default_rng([arguments.seed, 3 * 10**9, i]), 12 * i) for i in range(6)]
    if arguments.score is not None:
        scored = load(arguments.score, MOL).to(arguments.device)
        scored.solver = replace(scored.solver, tol=TOL)
        print(json.dumps(scores(scored, training, problems), indent=2))
        return
    log_to(arguments.out)
    # Frames are few: the pyramid of the dynamic network leaves time alone.
    axes = None if arguments.kind == "3d" else (1, 2)
    network = ResidualNetwork(
        ndim=3,
        features=arguments.features,
        levels=3,
        pyramid_axes=axes,
        guide_channels=GUIDE_CHANNELS if arguments.first else 0,
        monotonicity=arguments.monotonicity,
        seed=arguments.seed,
    )
    first = PlaneByPlane(load(arguments.first, LearnedReconstructor)) if arguments.first else None
    model = MOL(network, first=first).to(arguments.device)
    if model.first is not None:
        model.first.requires_grad_(False)
    model.solver = replace(model.solver, tol=TOL)
    settings = TrainSettings(
        steps=arguments.steps,
        learning_rate=arguments.learning_rate,
        warmup=40,
        seed=arguments.seed,
        ema=0.99,
        checkpoint_every=125,
    )
    reconstruction = ReconstructionSettings(pool=12, visits=5, early_share=0.5, forward_tol=1e-3, backward_tol=0.1)
    task = ReconstructionTask(model, source.draw, reconstruction)
    fingerprint = {**identifying_arguments(arguments, "data"), **source.fingerprint()}
    steps = train(task, settings, arguments.out, lambda m: mean_psnr(m, problems), fingerprint=fingerprint)
    finish(steps, arguments.steps)
    name = arguments.name or NAMES[arguments.kind]
    card = {
        "name": name,
        **CARDS[arguments.kind],
        **({} if first is None else {"first": f"{Path(arguments.first).stem}, sha256 {weights_hash(arguments.first)}"}),
        "monotonicity": arguments.monotonicity,
        "steps": arguments.steps,
        "batch": source.batch,
        "seed": arguments.seed,
        "learning_rate": arguments.learning_rate,
        "parameters": sum(p.numel() for p in model.parameters()),
        "scores": scores(model, training, problems),
        "intended_use": "research use",
    }
    model.solver = replace(model.solver, tol=IMAGE_TOL)  # of those who use it
    save(model, arguments.out / f"{name}.safetensors", card)


if __name__ == "__main__":
    main()

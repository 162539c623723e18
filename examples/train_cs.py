"""Train an unrolled network for compressed sensing of photographs, with GDM or GIN:

    python examples/train_cs.py --data DATA --host ista-net-plus --data-step gin --ratio 25 --out runs/gin25

DATA is the folder that data_scripts/prepare_cs.py lays out. Both data steps get the same blocks in the same order and
the same initial weights for the same seed. The run resumes from OUT/checkpoint.pt; with the same arguments it is the
same run. At the end OUT holds HOST-STEP-RATIO.safetensors and its card. Scores are of validation images, never of test
images: `examples/cs_benchmark.py --model OUT/HOST-STEP-RATIO.safetensors` gives those.

--random-sensing trains one model for all ratios, as COAST was: every step has one of 25 matrices and one of five
ratios. OUT then holds a file for every ratio, with the same weights and the matrix to score them with.
--repeats K runs the stages K times with shared weights; --equilibrium solves a single stage to its fixed point.

The published protocol is --steps 277800 --batch 64 --learning-rate 1e-4 --final-rate 1 (200 epochs); the defaults are
for a small budget.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # to run from a checkout that is not installed

from examples._gradient_arguments import add_gradient_arguments
from molrecon.command.shared.argument_types import fraction, positive
from molrecon.sensing.assembly import DATA_STEPS, HOSTS, assemble
from molrecon.sensing.block_batches import BlockBatches
from molrecon.sensing.equilibrium_stage import EquilibriumStage
from molrecon.sensing.gradient import GRADIENT_SCALE
from molrecon.sensing.imager import BlockImager
from molrecon.sensing.published_ista import load_published_ista
from molrecon.sensing.random_sensing import RATIOS, RandomSensingTask
from molrecon.sensing.ratios import MEASUREMENTS
from molrecon.sensing.stage import Unrolled
from molrecon.sensing.training import (
    IMAGING_SETTINGS,
    ImagingTask,
    initialisation_matrix,
    mean_score,
    second_moment,
    sensing_matrix,
    training_blocks,
    validation_images,
)
from molrecon.training.checkpoints import log_to
from molrecon.training.fingerprint import array_fingerprint, identifying_arguments
from molrecon.training.log import finish
from molrecon.training.loop import train
from molrecon.weights import save

PUBLISHED_RATIOS = (10, 25, 30, 40)
MICRO_BATCH = 16  # blocks at a time on a processor: they stay in its cache
QUICK_VALIDATION = 10  # images at checkpoints; all forty at the end


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--host", choices=HOSTS, default="ista-net-plus")
    parser.add_argument("--data-step", choices=DATA_STEPS, default="gin")
    parser.add_argument(
        "--gradient-scale",
        type=positive,
        help=f"of GIN (default: {GRADIENT_SCALE:g}, or 1 with --start-published)",
    )
    parser.add_argument("--ratio", type=int, choices=MEASUREMENTS, default=25)
    parser.add_argument("--stages", type=int, help="default: the published number")
    parser.add_argument("--repeats", type=int, default=1, help="how often the stages are run, with shared weights")
    parser.add_argument("--equilibrium", action="store_true", help="solve one stage to its fixed point")
    parser.add_argument("--random-sensing", action="store_true", help="one model for all matrices and ratios")
    parser.add_argument("--half", action="store_true", help="store weights and matrices in half precision")
    parser.add_argument("--steps", type=int, default=IMAGING_SETTINGS.steps)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=IMAGING_SETTINGS.learning_rate)
    parser.add_argument("--final-rate", type=float, default=IMAGING_SETTINGS.final_rate)
    parser.add_argument(
        "--ema",
        type=fraction,
        default=IMAGING_SETTINGS.ema,
        help="decay of the averaged weights, which are validated and stored (default: none)",
    )
    add_gradient_arguments(parser)
    parser.add_argument("--checkpoint-every", type=int, default=IMAGING_SETTINGS.checkpoint_every)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--start-published",
        action="store_true",
        help="start from the published ISTA-Net+ weights, with either data step; at a ratio without any, from the next",
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args(argv)
    if arguments.start_published and (arguments.host != "ista-net-plus" or arguments.stages or arguments.repeats > 1):
        parser.error("--start-published goes with ISTA-Net+ of the published number of stages only")
    alone = arguments.stages == 1 and arguments.repeats == 1 and not arguments.random_sensing
    if arguments.equilibrium and not (alone and arguments.host == "ista-net-plus"):
        # The other hosts start as gradient descent, which has no unique fixed point.
        parser.error("--equilibrium goes with ISTA-Net+ and --stages 1 only")
    if arguments.equilibrium and arguments.precision == "mixed":
        parser.error("--precision mixed does not go with --equilibrium, whose residual the rounding would hide")
    if arguments.gradient_scale is None:
        arguments.gradient_scale = 1.0 if arguments.start_published else GRADIENT_SCALE
    return arguments


def build(arguments: argparse.Namespace) -> Unrolled:
    """Return the stages before training."""
    if arguments.start_published:
        published = arguments.data / "published" / "ista_net_plus" / f"cs_ratio_{published_ratio(arguments.ratio)}.pkl"
        return load_published_ista(published, arguments.data_step, arguments.gradient_scale)
    return assemble(
        arguments.host,
        arguments.data_step,
        n_stages=arguments.stages,
        repeats=arguments.repeats,
        gradient_scale=arguments.gradient_scale,
        seed=arguments.seed,
    )


def published_ratio(ratio: int) -> int:
    """Return the nearest ratio in percent of published weights: none has a matrix in it, so that any can be a start."""
    return min(PUBLISHED_RATIOS, key=lambda published: abs(published - ratio))


def run(arguments: argparse.Namespace) -> None:
    """Train, and write models and cards."""
    torch.set_num_threads(arguments.threads)
    blocks = training_blocks(arguments.data)
    images = validation_images(arguments.data)
    stages = build(arguments).to(arguments.device)
    model = EquilibriumStage(stages) if arguments.equilibrium else stages
    settings = replace(
        IMAGING_SETTINGS,
        steps=arguments.steps,
        learning_rate=arguments.learning_rate,
        final_rate=arguments.final_rate,
        ema=arguments.ema,
        clip=arguments.clip,
        checkpoint_every=arguments.checkpoint_every,
        seed=arguments.seed,
    )
    micro_batch = MICRO_BATCH if arguments.device == "cpu" else arguments.batch
    batch, seed, mixed = arguments.batch, arguments.seed, arguments.precision == "mixed"
    some = images[:QUICK_VALIDATION]
    fingerprint = {
        **identifying_arguments(arguments, "data", "half", "steps", "checkpoint_every"),
        "training_data": array_fingerprint([blocks]),
        "validation_data": array_fingerprint(some),
    }
    batches = BlockBatches(blocks, batch, micro_batch, seed)
    if arguments.random_sensing:
        imagers = {ratio: imager_for(model, arguments, ratio) for ratio in RATIOS}
        coast = RandomSensingTask(stages, batches, mixed=mixed)
        asked = imagers[arguments.ratio]
        steps = train(coast, settings, arguments.out, lambda _: mean_score(asked, some)[0], fingerprint=fingerprint)
    else:
        initialisation = torch.from_numpy(initialisation_matrix(matrix(arguments), second_moment(blocks))).float()
        imagers = {arguments.ratio: imager_for(model, arguments, arguments.ratio, initialisation)}
        asked = imagers[arguments.ratio]
        task = ImagingTask(asked, batches, mixed=mixed)
        steps = train(
            task, settings, arguments.out, lambda imager: mean_score(imager, some)[0], fingerprint=fingerprint
        )
    finish(steps, arguments.steps)
    for ratio, imager in imagers.items():
        store(imager, arguments, ratio, images)


def matrix(arguments: argparse.Namespace, ratio: int | None = None) -> np.ndarray:
    """Return Phi of a ratio, by default the one asked for."""
    return sensing_matrix(arguments.data, ratio or arguments.ratio)


def imager_for(
    model: Unrolled | EquilibriumStage, arguments: argparse.Namespace, ratio: int, initialisation: Tensor | None = None
) -> BlockImager:
    """Return the imager of a ratio on the device."""
    return BlockImager(model, torch.from_numpy(matrix(arguments, ratio)).float(), initialisation).to(arguments.device)


def store(imager: BlockImager, arguments: argparse.Namespace, ratio: int, images: list[np.ndarray]) -> None:
    """Score on the validation images, and write model and card."""
    psnr, ssim = mean_score(imager, images)
    name = f"{arguments.host}-{arguments.data_step}-{ratio}"
    rows, columns = imager.phi.shape
    kind = "its fixed point" if arguments.equilibrium else f"{imager.model.host.n_stages} stages"
    if arguments.repeats > 1:
        kind += f", {arguments.repeats} times with shared weights"
    method = f"{arguments.host} with {arguments.data_step.upper()}, {kind}"
    card = {
        "name": name,
        "model": f"{method}, block compressed sensing of photographs",
        "measurements": f"{rows} of {columns} numbers a 33 x 33 block ({ratio} %), orthonormal rows",
        "trained_for": "25 other matrices, 10-50 %" if arguments.random_sensing else "this matrix",
        "parameters": sum(parameter.numel() for parameter in imager.model.parameters()),
        "data": "88,912 blocks of the 91 images",
        "split": "validation: the last 40 images of train400",
        "start": f"published ISTA-Net+ weights, {published_ratio(arguments.ratio)} %"
        if arguments.start_published
        else "random",
        "steps": arguments.steps,
        "batch": arguments.batch,
        "learning_rate": arguments.learning_rate,
        "final_rate": arguments.final_rate,
        "ema": arguments.ema or "none",
        "clip": arguments.clip or "none",
        "precision": arguments.precision,
        "seed": arguments.seed,
        **({"gradient_scale": arguments.gradient_scale} if arguments.data_step == "gin" else {}),
        "scores": {"validation_psnr_db": round(psnr, 3), "validation_ssim": round(ssim, 4)},
        "stored": "half precision" if arguments.half else "single precision",
        "licence": "data: none stated with the images",
        "intended_use": "research use",
    }
    save(imager, arguments.out / f"{name}.safetensors", card, half=arguments.half)
    logging.info("validation PSNR %.3f SSIM %.4f, %s", psnr, ssim, arguments.out / f"{name}.safetensors")


def main() -> None:
    """Run the command, with a log in OUT."""
    arguments = parse()
    log_to(arguments.out)
    run(arguments)


if __name__ == "__main__":
    main()

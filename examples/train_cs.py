"""Train an unrolled network for compressed sensing of photographs, with GDM or GIN:

    python examples/train_cs.py --data DATA --host ista-net-plus --data-step gin --ratio 25 --out runs/gin25

DATA is the folder that data_scripts/prepare_cs.py lays out. Both data steps get the same blocks in the same order and
the same initial weights for the same seed. The run resumes from OUT/checkpoint.pt; with the same arguments it is the
same run. At the end OUT holds HOST-STEP-RATIO.safetensors and its card. Scores are of validation images, never of test
images: `examples/cs_benchmark.py --model OUT/HOST-STEP-RATIO.safetensors` gives those.

The published protocol is --steps 277800 --batch 64 --learning-rate 1e-4 --final-rate 1 (200 epochs); the defaults are
for a small budget.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from tqdm import tqdm

from molrecon.training.cs import (
    initialisation_matrix,
    mean_score,
    second_moment,
    sensing_matrix,
    train,
    training_blocks,
    validation_images,
)
from molrecon.training.files import log_to
from molrecon.training.optimise import Schedule
from molrecon.unrolled.assembly import DATA_STEPS, HOSTS, assemble
from molrecon.unrolled.imager import MEASUREMENTS, BlockImager
from molrecon.weights.imaging import save_imager
from molrecon.weights.published_ista import load_published_ista

PART = 16  # blocks at a time on a processor: they stay in its cache
QUICK_VALIDATION = 10  # images at checkpoints; all forty at the end


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--host", choices=HOSTS, default="ista-net-plus")
    parser.add_argument("--data-step", choices=DATA_STEPS, default="gin")
    parser.add_argument("--ratio", type=int, choices=MEASUREMENTS, default=25)
    parser.add_argument("--stages", type=int, help="default: the published number")
    parser.add_argument("--steps", type=int, default=Schedule.steps)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=Schedule.learning_rate)
    parser.add_argument("--final-rate", type=float, default=Schedule.final_rate)
    parser.add_argument("--checkpoint-every", type=int, default=Schedule.checkpoint_every)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--start-published",
        action="store_true",
        help="start from the published ISTA-Net+ weights, with either data step",
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args(argv)
    if arguments.start_published and (arguments.host != "ista-net-plus" or arguments.stages):
        parser.error("--start-published goes with ISTA-Net+ of the published number of stages only")
    return arguments


def run(arguments: argparse.Namespace) -> None:
    """Train, and write model and card."""
    torch.set_num_threads(arguments.threads)
    arguments.out.mkdir(parents=True, exist_ok=True)
    blocks = training_blocks(arguments.data)
    phi = sensing_matrix(arguments.data, arguments.ratio)
    initialisation = torch.from_numpy(initialisation_matrix(phi, second_moment(blocks))).float()
    if arguments.start_published:
        published = arguments.data / "published" / "ista_net_plus" / f"cs_ratio_{arguments.ratio}.pkl"
        model = load_published_ista(published, arguments.data_step)
    else:
        model = assemble(arguments.host, arguments.data_step, n_stages=arguments.stages, seed=arguments.seed)
    imager = BlockImager(model, torch.from_numpy(phi).float(), initialisation).to(arguments.device)
    images = validation_images(arguments.data)
    schedule = Schedule(
        steps=arguments.steps,
        learning_rate=arguments.learning_rate,
        final_rate=arguments.final_rate,
        checkpoint_every=arguments.checkpoint_every,
    )
    steps = train(
        imager,
        blocks,
        schedule,
        arguments.out / "checkpoint.pt",
        batch=arguments.batch,
        part=PART if arguments.device == "cpu" else arguments.batch,
        seed=arguments.seed,
        validate=lambda trained: mean_score(trained, images[:QUICK_VALIDATION])[0],
    )
    for _ in tqdm(steps, total=arguments.steps, desc="training", disable=None):
        pass
    psnr, ssim = mean_score(imager, images)
    name = f"{arguments.host}-{arguments.data_step}-{arguments.ratio}"
    card = {
        "name": name,
        "model": f"{arguments.host} with {arguments.data_step.upper()}, block compressed sensing of photographs",
        "measurements": f"{len(phi)} of {phi.shape[1]} numbers a 33 x 33 block ({arguments.ratio} %), orthonormal rows",
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "data": "88,912 blocks of the 91 images",
        "split": "validation: the last 40 images of train400",
        "start": "published ISTA-Net+ weights" if arguments.start_published else "random",
        "steps": arguments.steps,
        "batch": arguments.batch,
        "learning_rate": arguments.learning_rate,
        "final_rate": arguments.final_rate,
        "seed": arguments.seed,
        "scores": {"validation_psnr_db": round(psnr, 3), "validation_ssim": round(ssim, 4)},
        "licence": "data: none stated with the images",
        "intended_use": "research use",
    }
    save_imager(imager, arguments.out / f"{name}.safetensors", card)
    logging.info("validation PSNR %.3f SSIM %.4f, %s", psnr, ssim, arguments.out / f"{name}.safetensors")


def main() -> None:
    """Run the command, with a log in OUT."""
    arguments = parse()
    log_to(arguments.out)
    run(arguments)


if __name__ == "__main__":
    main()

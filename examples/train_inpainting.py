"""Train GLOW-Prox for inpainting, with or without the constraint that every layer descends:

    python examples/train_inpainting.py --out runs/free0
    python examples/train_inpainting.py --out runs/constrained0 --constrained
    python examples/train_inpainting.py --out runs/celeba --images CelebA-HQ --colour --masks both --levels 4 --blocks 4

Without `--images` it trains on 70 of the 100 faces that ship with scikit-image, 25 x 25 pixels; nothing is downloaded.
A folder's images are scaled to `--size` and split by a seed of their own. Arms are compared at equal steps, rates and
seeds, which then have equal initial weights, images and masks. The run resumes from OUT/checkpoint.pt and ends with the
best of its validations (of feasible networks, where it is constrained): OUT/glow-prox.safetensors and its card, for
`examples/inpainting.py --model OUT/glow-prox.safetensors`.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from dataclasses import astuple, replace
from pathlib import Path

import numpy as np
import torch

from molrecon.descent.constraints import Descent
from molrecon.descent.descent_checks import LayerNoise
from molrecon.descent.glow_prox import GlowProx
from molrecon.descent.inpainting import inpainting_score
from molrecon.descent.inpainting_problems import (
    FACE_SIZE,
    InpaintingBatch,
    Masks,
    evaluation_batches,
    folder_images,
    shipped_faces,
)
from molrecon.descent.inpainting_training import INPAINTING_SETTINGS, InpaintingProblem
from molrecon.descent.training import DescentTask
from molrecon.training.checkpoints import log_to
from molrecon.training.fingerprint import array_fingerprint, identifying_arguments
from molrecon.training.log import finish
from molrecon.training.loop import train
from molrecon.weights import save

EPSILON = 0.15  # the 0.05 of the source is fulfilled without being asked for, 0.2 is hardly attainable on new faces
DUAL_RATE = 1e-2
NOISE_DECAY = 0.5  # of layer noise, from layer to layer


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--images", type=Path, help="folder of images; default: scikit-image's faces")
    parser.add_argument("--size", type=int, default=64, help="rows and columns of the images of a folder")
    parser.add_argument("--colour", action="store_true", help="of the images of a folder; default: grey")
    parser.add_argument("--masks", choices=("centre", "random", "both"), default="centre")
    parser.add_argument("--constrained", action="store_true", help="ask every layer to descend")
    parser.add_argument("--epsilon", type=float, default=EPSILON, help="by which share")
    parser.add_argument("--dual-rate", type=float, default=DUAL_RATE)
    parser.add_argument(
        "--layer-noise", type=float, default=0.0, help="of the first layer's output; halved every layer"
    )
    parser.add_argument("--levels", type=int, default=3)
    parser.add_argument("--blocks", type=int, default=2)
    parser.add_argument("--features", type=int, default=32)
    parser.add_argument("--steps", type=int, default=INPAINTING_SETTINGS.steps)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=INPAINTING_SETTINGS.learning_rate)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    return parser.parse_args(argv)


def run(arguments: argparse.Namespace) -> Path:
    """Train, write model and card, and return the model's path."""
    torch.set_num_threads(arguments.threads)
    shipped = arguments.images is None
    size = FACE_SIZE if shipped else arguments.size
    images = shipped_faces() if shipped else folder_images(arguments.images, size, colour=arguments.colour)
    model = GlowProx(
        channels=3 if arguments.colour and not shipped else 1,
        levels=arguments.levels,
        blocks=arguments.blocks,
        features=arguments.features,
        seed=arguments.seed,
    ).to(arguments.device)
    problem = InpaintingProblem(
        model, images.train, size, batch=arguments.batch, masks=arguments.masks, seed=arguments.seed
    )
    noise = LayerNoise(arguments.layer_noise, decay=NOISE_DECAY) if arguments.layer_noise else None
    descent = Descent(arguments.epsilon, dual_rate=arguments.dual_rate)
    task = DescentTask(problem, descent, noise, constrained=arguments.constrained)
    kinds: tuple[Masks, ...] = ("centre", "random") if arguments.masks == "both" else (arguments.masks,)
    validation = [batch.to(arguments.device) for batch in evaluation_batches(images.validation, size, kinds)]
    settings = replace(
        INPAINTING_SETTINGS,
        steps=arguments.steps,
        learning_rate=arguments.learning_rate,
        seed=arguments.seed,
        patience=arguments.steps,  # never stops early, and ends with the best all the same
    )
    fingerprint = {
        **identifying_arguments(arguments, "images", "steps"),
        "training_data": array_fingerprint([images.train]),
        "validation_data": array_fingerprint([images.validation]),
    }
    finish(train(task, settings, arguments.out, task.validator(validation), fingerprint=fingerprint), settings.steps)
    path: Path = arguments.out / "glow-prox.safetensors"
    save(model, path, card(arguments, model, validation))
    return path


@torch.no_grad()
def card(arguments: argparse.Namespace, model: GlowProx, validation: Sequence[InpaintingBatch]) -> dict[str, object]:
    """Return the card of a trained model."""
    scores = [
        astuple(inpainting_score(batch.images, model(batch.measurements, batch.operator), batch.operator.known))
        for batch in validation
    ]
    psnr, ssim, hole_psnr, _ = np.mean(scores, axis=0)
    shipped = arguments.images is None
    arm = "constrained" if arguments.constrained else "unconstrained"
    return {
        "name": f"GLOW-Prox {arm}{' + noise' if arguments.layer_noise else ''}",
        "model": "GLOW-Prox, inpainting",
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "data": "100 faces of scikit-image (lfw_subset)" if shipped else f"images of a folder, {arguments.size} rows",
        "split": "70 % training, 10 % validation, 20 % test, seed 0",
        "masks": arguments.masks,
        "epsilon": arguments.epsilon if arguments.constrained else None,
        "dual_rate": arguments.dual_rate if arguments.constrained else None,
        "layer_noise": arguments.layer_noise,
        "steps": arguments.steps,
        "batch": arguments.batch,
        "learning_rate": arguments.learning_rate,
        "seed": arguments.seed,
        "scores": {
            "validation_psnr_db": round(float(psnr), 3),
            "validation_ssim": round(float(ssim), 4),
            "validation_hole_psnr_db": round(float(hole_psnr), 3),
        },
        "licence": "data: Labeled Faces in the Wild, photographs of the press" if shipped else "data: not known",
        "intended_use": "research use",
    }


def main() -> None:
    """Run the command, with a log in OUT."""
    arguments = parse()
    log_to(arguments.out)
    logging.info("%s", run(arguments))


if __name__ == "__main__":
    main()

"""`molrecon train`: a reconstructor of one's own."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from molrecon.command.shared.argument_types import count, file_stem, fraction, not_negative, positive, seed
from molrecon.command.shared.arguments import add_device
from molrecon.command.shared.exit_codes import EXIT_FAILED, EXIT_OK
from molrecon.command.shared.messages import usage
from molrecon.training.defaults import (
    CHECKPOINT_EVERY,
    CLIP,
    DEFAULT_LOSS,
    DESCRIPTIONS,
    EMA,
    LEARNING_RATE,
    LOSS_NAMES,
    SEED,
    STEPS,
)

HELP = "a reconstructor of your own, on fastMRI files or image stacks"
DESCRIPTION = (
    "Train a reconstructor on fastMRI files (undersampled anew for every problem), or on image stacks with simulated"
    " coils. The folder receives NAME.safetensors and its card NAME.json, log.csv, train.log and checkpoint.pt, from"
    " which the same command goes on where it was stopped; another command, with other data or settings, is refused."
    " Several GPUs or processes: torchrun --nproc-per-node N -m molrecon train ... Exit code 4: trained, but some of"
    " the files could not be used; they are listed."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument(
        "data",
        nargs="+",
        type=Path,
        metavar="DATA",
        help="a folder of fully sampled multi-coil fastMRI files (.h5), or image stacks: .npy, .npz, .nii, .nii.gz,"
        " folders of .png",
    )
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder for everything that is written")
    parser.add_argument("--model", choices=tuple(DESCRIPTIONS), default="mol", help="default: %(default)s")
    parser.add_argument("--name", type=file_stem, help="of the weights (default: the model's)")
    parser.add_argument(
        "--validation",
        nargs="+",
        type=Path,
        metavar="DATA",
        help="as DATA (default: the last tenth of the files, or of each stack's slices, is not trained on)",
    )
    parser.add_argument("--self-supervised", action="store_true", help="learn from withheld samples: no references")
    for option, kind, letter, default, text in (
        ("--steps", count, "N", STEPS, "optimiser steps"),
        ("--learning-rate", positive, "R", LEARNING_RATE, "peak of Adam's rate"),
        ("--seed", seed, "S", SEED, "of weights and draws"),
        ("--ema", fraction, "D", EMA, "decay of the averaged weights, 0 for none"),
        ("--clip", not_negative, "C", CLIP, "largest norm of the gradient, 0 for any"),
        ("--checkpoint-every", count, "N", CHECKPOINT_EVERY, "steps between checkpoints, each with a validation"),
    ):
        help_text = f"{text} (default: %(default)s)"
        parser.add_argument(option, type=kind, default=default, metavar=letter, help=help_text)
    parser.add_argument(
        "--patience", type=count, metavar="N", help="stop after N validations without a new best (default: never)"
    )
    parser.add_argument("--batch", type=count, default=2, metavar="N", help="problems a step (default: %(default)s)")
    parser.add_argument(
        "--rows", type=count, default=48, metavar="N", help="readout rows of a training problem (default: %(default)s)"
    )
    parser.add_argument(
        "--size",
        type=count,
        default=224,
        metavar="N",
        help="rows and columns of simulated scans (default: %(default)s)",
    )
    parser.add_argument("--loss", choices=LOSS_NAMES, help=f"default: {DEFAULT_LOSS}")
    parser.add_argument(
        "--precision",
        choices=("single", "mixed"),
        default="single",
        help="mixed: the network in bfloat16, of models that are not equilibria (default: %(default)s)",
    )
    parser.add_argument("--threads", type=count, metavar="N", help="of the processor (default: torch's)")
    parser.add_argument("--tensorboard", action="store_true", help="write the log for TensorBoard too")
    add_device(parser)


def run(args: argparse.Namespace) -> int:
    """Train, or go on with a training, and write weights and card."""
    from molrecon.command._train_plan import plan_training
    from molrecon.command.shared.inputs import chosen_device
    from molrecon.training.log import file_log
    from molrecon.training.processes import process_group, rank

    chosen = chosen_device(args)
    with usage():
        args.out.mkdir(parents=True, exist_ok=True)
    with process_group(chosen) as device, file_log(args.out):
        with usage():
            plan = plan_training(args, device)
            steps = plan.start()
        message = plan.finish(steps)
        if rank() > 0:
            return EXIT_OK
    unusable = plan.unusable()
    for line in unusable:
        print(f"molrecon: unusable: {line}", file=sys.stderr)
    print(message)
    return EXIT_FAILED if unusable else EXIT_OK

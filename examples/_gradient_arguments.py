"""The arguments of trainings for compressed sensing that say how gradients are computed."""

from __future__ import annotations

import argparse

from molrecon.command.shared.argument_types import not_negative


def add_gradient_arguments(parser: argparse.ArgumentParser) -> None:
    """Add --clip and --precision."""
    parser.add_argument("--clip", type=not_negative, default=0, help="largest norm of the gradient (default: 0, any)")
    parser.add_argument(
        "--precision",
        choices=("single", "mixed"),
        default="single",
        help="mixed: the networks in bfloat16 while they are trained (default: %(default)s)",
    )

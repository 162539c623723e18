"""What is written beside the image: the arguments for it, and what they choose."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from molrecon.command.shared.argument_types import count, methods

if TYPE_CHECKING:
    from molrecon.reconstructors.base import Reconstructor
    from molrecon.scans.parts import Parts

NOISE_PROBES = 16


def add_parts(parser: argparse.ArgumentParser) -> None:
    """Add what is written beside the image."""
    parser.add_argument(
        "--output",
        type=methods,
        default=["magnitude"],
        metavar="LIST",
        help="of magnitude, phase, complex, comma-separated: NAME.nii.gz is the magnitude in any case; with more than"
        " it, each has files of its own (NAME_part-mag, NAME_part-phase, NAME_part-real, NAME_part-imag)",
    )
    parser.add_argument(
        "--keep",
        type=methods,
        default=[],
        metavar="LIST",
        help="write as well, comma-separated: maps, the coil maps as --maps reads them (NAME_maps.npy); noise, the"
        " noise covariance that was used (NAME_noise.npy)",
    )
    parser.add_argument(
        "--noise-map",
        nargs="?",
        type=count,
        const=NOISE_PROBES,
        metavar="N",
        help="write the standard deviation of each pixel (NAME_desc-noise.nii.gz) and the g-factor"
        f" (NAME_desc-gfactor.nii.gz), from N linear solves a slice, exact to some 1 / sqrt(2 N) (default:"
        f" {NOISE_PROBES}); of equilibrium models, unrolled networks, cg-sense and zero-filled",
    )


def chosen_parts(args: argparse.Namespace, model: Reconstructor) -> Parts:
    """Return what is written beside the image. Raises UsageError for other words, and a model without a derivative."""
    from molrecon.command.shared.messages import UsageError, usage
    from molrecon.reconstructors.base import Reconstructor
    from molrecon.scans.parts import Parts

    if args.noise_map is not None and type(model).response is Reconstructor.response:
        raise UsageError(
            f"reconstruct: --noise-map with {args.model}, expected an equilibrium model, an unrolled network, cg-sense"
            " or zero-filled, whose derivative is known"
        )
    if "maps" in args.keep and args.compress is not None:
        raise UsageError(
            "reconstruct: --keep maps with --virtual-coils, expected one of them: the maps would be of virtual coils,"
            " which --maps does not take"
        )
    with usage():
        return Parts(tuple(args.output), tuple(args.keep), args.noise_map)

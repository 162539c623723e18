"""`molrecon info`: what is in a file."""

from __future__ import annotations

import argparse

from molrecon.command.shared.arguments import add_json
from molrecon.command.shared.exit_codes import EXIT_OK
from molrecon.command.shared.messages import tell
from molrecon.command.shared.reading import add_conjugate, conjugation

HELP = "what is in a file: sizes, sampling, noise, geometry, and what would become of it"
DESCRIPTION = (
    "Say what a file of scan data holds, what `molrecon reconstruct` would make of it, and what is odd about it. Names,"
    " numbers, dates and comments of the header are not shown."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("input", metavar="FILE", help="fastMRI or ISMRMRD HDF5, .npy, or BART .cfl")
    add_conjugate(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Print the description of the file."""
    from molrecon.command.shared.inputs import protect
    from molrecon.scans.info import describe_scan, scan_text
    from molrecon.scans.scan import Reading

    protect([args.json], [args.input])
    description = describe_scan(args.input, Reading(conjugation(args)))
    tell(args, description, scan_text(description))
    return EXIT_OK

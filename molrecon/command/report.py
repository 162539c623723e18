"""`molrecon report`: one page of all volumes of a folder."""

from __future__ import annotations

import argparse
from pathlib import Path

from molrecon.command.shared.exit_codes import EXIT_OK
from molrecon.command.shared.messages import usage

HELP = "one page of all volumes of a folder"
DESCRIPTION = (
    "Write DIR/index.html, one page of all volumes that were ever reconstructed into DIR, from their records: how many"
    " are certified, how their figures are spread, which stand out, and a table that leads to the page of each."
    " `molrecon reconstruct` does so at its end; before that, or for the parts of a larger run, this command does."
    " It merges the records into DIR/manifest.json first, as `molrecon status` does."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("folder", metavar="DIR", help="the folder of the outputs")


def run(args: argparse.Namespace) -> int:
    """Write the page, and print its first line."""
    from molrecon.scans.manifest import check_has_outputs, write_manifest
    from molrecon.scans.page.cohort import INDEX, write_index

    folder = Path(args.folder)
    with usage():
        check_has_outputs(folder)
        verdict = write_index(folder, write_manifest(folder))
    print(f"{folder / INDEX}: {verdict.headline}")
    return EXIT_OK

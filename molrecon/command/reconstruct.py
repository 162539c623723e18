"""`molrecon reconstruct`: scans to images."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from molrecon.command.exit_codes import EXIT_FAILED, EXIT_NOT_CONVERGED, EXIT_OK, EXIT_UNREADABLE
from molrecon.command.messages import usage, warn
from molrecon.command.shared_arguments import add_data, add_model

if TYPE_CHECKING:
    from molrecon.scans.manifest import Entry

HELP = "scans (files or folders of files) to images with a report each"
DESCRIPTION = (
    "Reconstruct scans. For every input NAME the folder receives NAME.nii.gz, NAME.h5 (fastMRI submission), NAME.png"
    " (quality page) and NAME.json (sidecar), records/NAME.json what became of it, and manifest.json lists all that"
    " was ever reconstructed there. Existing files are replaced. Inputs of the same name get their parent folder's"
    " name in front."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument(
        "inputs",
        nargs="+",
        metavar="INPUT",
        help="fastMRI or ISMRMRD HDF5, .npy (coil, rows, cols) or (slice, coil, rows, cols), BART .cfl, or a folder",
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for the outputs")
    parser.add_argument(
        "--resume",
        "--skip-existing",
        action="store_true",
        help="keep complete outputs of an earlier run with the same input, weights and settings, by their hashes",
    )
    parser.add_argument(
        "--strict",
        action="store_true",
        help="exit with code 5 when there are warnings about the data, which are printed in any case",
    )
    add_data(parser)
    add_model(parser)


def run(args: argparse.Namespace) -> int:
    """Reconstruct every input, go on after those that fail, and print what became of each."""
    from molrecon.command._shared_inputs import (
        chosen_device,
        load_chosen_model,
        maps_files,
        read_chosen_maps,
        weights_files,
    )
    from molrecon.io import expand_inputs
    from molrecon.scans.cohort import Settings, check_outputs, reconstruct_cohort
    from molrecon.scans.manifest import FAILED, INCOMPLETE, MANIFEST, NOT_CONVERGED, OK, UNREADABLE

    device = chosen_device(args)
    inputs = expand_inputs(args.inputs)
    model, source, solver = load_chosen_model(args)
    settings = Settings(
        solver=solver,
        maps=read_chosen_maps(args),
        noise_level=args.noise_level,
        device=device,
        batch_size=args.batch_size,
        progress=True,
    )
    out = Path(args.out)
    with usage():
        check_outputs(inputs, out, [*map(Path, args.inputs), *maps_files(args), *weights_files(args.model)])
        out.mkdir(parents=True, exist_ok=True)
    entries = reconstruct_cohort(inputs, out, model, source, settings, resume=args.resume, report=_report)
    statuses = [entry.status for entry in entries]
    print(f"{len(entries)} volumes, {statuses.count(OK)} ok; see {out / MANIFEST}")
    if all(status == UNREADABLE for status in statuses):
        return EXIT_UNREADABLE
    if UNREADABLE in statuses or FAILED in statuses:
        return EXIT_FAILED
    warned = args.strict and any(entry.warnings for entry in entries)
    return EXIT_NOT_CONVERGED if warned or NOT_CONVERGED in statuses or INCOMPLETE in statuses else EXIT_OK


def _report(entry: Entry) -> None:
    from molrecon.scans.manifest import OK, UNREADABLE

    warn(entry.input, entry.warnings)
    line = f"{entry.input}: {entry.status}: {entry.message}"
    if entry.status == UNREADABLE:
        line = f"{entry.status}: {entry.message}"  # which names the file
    if entry.status == OK:
        print(line, flush=True)
    else:
        print(f"molrecon: {line}", file=sys.stderr, flush=True)

"""`molrecon reconstruct`: scans to images."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from molrecon.command.shared.arguments import (
    add_adaptation,
    add_compression,
    add_data,
    add_map_sets,
    add_memory,
    add_model,
)
from molrecon.command.shared.cohort import add_cohort, add_inputs, chosen_shard, chosen_workers, list_file
from molrecon.command.shared.exit_codes import cohort_exit_code
from molrecon.command.shared.export_arguments import add_exports
from molrecon.command.shared.messages import hide_folders, usage, warn
from molrecon.command.shared.parts import add_parts, chosen_parts
from molrecon.command.shared.reading import add_geometry, chosen_reading, geometry_files

if TYPE_CHECKING:
    from molrecon.scans.manifest import Entry

HELP = "scans (files or folders of files) to images with a report each"
DESCRIPTION = (
    "Reconstruct scans. For every input NAME the folder receives NAME.nii.gz, NAME.h5 (fastMRI submission), NAME.png"
    " (quality page), NAME.html (a page to look at) and NAME.json (sidecar), records/NAME.json what became of it, and"
    " manifest.json lists all that was ever reconstructed there, and index.html shows it. Existing files are replaced."
    " Inputs of the same name get their parent folder's name in front."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    add_inputs(parser)
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
    add_parts(parser)
    add_geometry(parser)
    add_exports(parser)
    add_cohort(parser)
    add_data(parser)
    add_map_sets(parser)
    add_compression(parser)
    add_adaptation(parser)
    add_memory(parser)
    add_model(parser, by_scan=True)


def run(args: argparse.Namespace) -> int:
    """Reconstruct every input, go on after those that fail, and print what became of each."""
    from molrecon.command.shared.exports import chosen_exports, named_inputs, template_files
    from molrecon.command.shared.inputs import (
        chosen_device,
        load_chosen_model,
        maps_files,
        read_chosen_maps,
        weights_files,
    )
    from molrecon.io import expand_inputs
    from molrecon.io.bids import DESCRIPTION_FILE
    from molrecon.scans.cohort import check_outputs, reconstruct_cohort
    from molrecon.scans.cohort.without_folders import WithoutFolders
    from molrecon.scans.manifest import MANIFEST, OK
    from molrecon.scans.memory import parse_size
    from molrecon.scans.outputs import check_replacement
    from molrecon.scans.settings import Settings

    with usage():
        shard = chosen_shard(args)
        execute = chosen_workers(args)
        memory = None if args.memory is None else parse_size(args.memory)
    device = chosen_device(args)
    named, table = named_inputs(args)
    inputs = expand_inputs(named)
    out = Path(args.out)
    others = [*named, *list_file(args), *maps_files(args), *weights_files(args.model), *template_files(args)]
    others += geometry_files(args)
    described = [] if args.bids is None else [Path(args.bids) / DESCRIPTION_FILE]
    without = WithoutFolders.around(*inputs, *others, *described, folder=out) if args.no_paths else str
    if args.no_paths:
        hide_folders(without)
    model, source, solver = load_chosen_model(args)
    settings = Settings(
        solver=solver,
        maps=read_chosen_maps(args),
        map_sets=args.map_sets,
        compress=args.compress,
        noise_level=args.noise_level,
        adapt=args.adapt,
        device=device,
        batch_size=args.batch_size,
        progress=True,
        memory=memory,
        reading=chosen_reading(args),
        parts=chosen_parts(args, model),
    )
    with usage():
        names = check_outputs(inputs, out, others, folders=not args.no_paths)
        exports = chosen_exports(args, dict(zip(inputs, names, strict=True)), table)
        check_replacement((path for name in names for path in exports.paths(out, name)), [*inputs, *others])
        part_paths = (out / f"{name}{suffix}" for name in names for suffix in settings.parts.files())
        check_replacement(part_paths, [*inputs, *others])
        out.mkdir(parents=True, exist_ok=True)
    entries = reconstruct_cohort(
        inputs,
        out,
        model,
        source,
        settings,
        resume=args.resume,
        folders=not args.no_paths,
        shard=shard,
        execute=execute,
        exports=exports,
        report=_report,
    )
    statuses = [entry.status for entry in entries]
    where = f"see {out / MANIFEST}" if shard.count == 1 else f"`molrecon status {out}` lists those of all parts"
    print(without(f"{len(entries)} volumes, {statuses.count(OK)} ok; {where}"))
    return cohort_exit_code(statuses, warned=args.strict and any(entry.warnings for entry in entries))


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

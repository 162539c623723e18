"""`molrecon reconstruct`: scans to images."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from molrecon.command.argument_types import count
from molrecon.command.exit_codes import EXIT_FAILED, EXIT_NOT_CONVERGED, EXIT_OK, EXIT_UNREADABLE
from molrecon.command.export_arguments import add_exports
from molrecon.command.messages import hide_folders, usage, warn
from molrecon.command.shared_arguments import add_data, add_map_sets, add_model

if TYPE_CHECKING:
    from molrecon.scans.cohort.one_volume import Execute
    from molrecon.scans.cohort.worklist import Shard
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
        nargs="*",
        metavar="INPUT",
        help="fastMRI or ISMRMRD HDF5, .npy (coil, rows, cols) or (slice, coil, rows, cols), BART .cfl, or a folder",
    )
    parser.add_argument(
        "--inputs-from",
        metavar="FILE|-",
        help="more inputs: one a line, or each ended by NUL as `find -print0` writes them; - reads stdin",
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
    add_exports(parser)
    _add_cohort(parser)
    add_data(parser)
    add_map_sets(parser)
    add_model(parser)


def _add_cohort(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--shard",
        metavar="K/N|slurm",
        help="do only part K of N of the inputs, which are to be listed alike in all parts; slurm: the part of this"
        " task of a job array (sbatch --array=1-N). `molrecon status DIR` says what is missing",
    )
    parser.add_argument(
        "--workers",
        type=count,
        metavar="W",
        help="processes; one that is killed is started again, and its volume tried twice more before it fails alone"
        " (default: this process)",
    )
    parser.add_argument(
        "--devices", metavar="LIST", help="of the workers in turn, comma-separated: cuda:0,cuda:1 (default: --device)"
    )
    parser.add_argument(
        "--no-paths",
        action="store_true",
        help="name inputs by file name and hash alone in all that is written and logged, no folder (folders may be"
        " named after patients; so may files, and those names stay)",
    )


def run(args: argparse.Namespace) -> int:
    """Reconstruct every input, go on after those that fail, and print what became of each."""
    from molrecon.command._exports import chosen_exports, named_inputs, template_files
    from molrecon.command._shared_inputs import (
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
    from molrecon.scans.outputs import check_replacement
    from molrecon.scans.settings import Settings

    with usage():
        shard = _chosen_shard(args)
        execute = _chosen_workers(args)
    device = chosen_device(args)
    named, table = named_inputs(args)
    inputs = expand_inputs(named)
    out = Path(args.out)
    others = [*named, *_list_file(args), *maps_files(args), *weights_files(args.model), *template_files(args)]
    described = [] if args.bids is None else [Path(args.bids) / DESCRIPTION_FILE]
    without = WithoutFolders.around(*inputs, *others, *described, folder=out) if args.no_paths else str
    if args.no_paths:
        hide_folders(without)
    model, source, solver = load_chosen_model(args)
    settings = Settings(
        solver=solver,
        maps=read_chosen_maps(args),
        map_sets=args.map_sets,
        noise_level=args.noise_level,
        device=device,
        batch_size=args.batch_size,
        progress=True,
    )
    with usage():
        names = check_outputs(inputs, out, others, folders=not args.no_paths)
        exports = chosen_exports(args, dict(zip(inputs, names, strict=True)), table)
        check_replacement((path for name in names for path in exports.paths(out, name)), [*inputs, *others])
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
    return exit_code(statuses, warned=args.strict and any(entry.warnings for entry in entries))


def exit_code(statuses: Sequence[str], *, warned: bool = False) -> int:
    """Return the exit code of volumes that ended so; none at all are fine."""
    from molrecon.scans.manifest import FAILED, INCOMPLETE, NOT_CONVERGED, UNREADABLE

    if statuses and all(status == UNREADABLE for status in statuses):
        return EXIT_UNREADABLE
    if UNREADABLE in statuses or FAILED in statuses:
        return EXIT_FAILED
    return EXIT_NOT_CONVERGED if warned or NOT_CONVERGED in statuses or INCOMPLETE in statuses else EXIT_OK


def _list_file(args: argparse.Namespace) -> list[Path]:
    return [] if args.inputs_from in (None, "-") else [Path(args.inputs_from)]


def _chosen_shard(args: argparse.Namespace) -> Shard:
    """Return the part of `--shard`. Raises ValueError for what is none."""
    from molrecon.scans.cohort.worklist import WHOLE, parse_shard, slurm_shard

    if args.shard is None:
        return WHOLE
    return slurm_shard() if args.shard == "slurm" else parse_shard(args.shard)


def _chosen_workers(args: argparse.Namespace) -> Execute:
    """Return who does the work. Raises ValueError for devices without workers."""
    from molrecon.scans.cohort.one_volume import in_this_process
    from molrecon.scans.cohort.parallel import InWorkers

    devices = [part.strip() for part in (args.devices or "").split(",") if part.strip()]
    if args.workers is None:
        if devices:
            raise ValueError("reconstruct: --devices without --workers, expected both, or --device")
        return in_this_process
    return InWorkers(args.workers, devices)


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

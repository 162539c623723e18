"""How a cohort is shared out: the arguments of `molrecon reconstruct` for it, and what they choose."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from molrecon.command.shared.argument_types import count, devices

if TYPE_CHECKING:
    from molrecon.scans.cohort.recipe import Execute
    from molrecon.scans.cohort.worklist import Shard


def add_inputs(parser: argparse.ArgumentParser) -> None:
    """Add the scans: by name, or from a list."""
    parser.add_argument(
        "inputs",
        nargs="*",
        metavar="INPUT",
        help="fastMRI or ISMRMRD HDF5 (Cartesian, radial or spiral), .npy ([slice,] coil, rows, cols), BART .cfl, or a"
        " folder",
    )
    parser.add_argument(
        "--inputs-from",
        metavar="FILE|-",
        help="more inputs: one a line, or each ended by NUL as `find -print0` writes them; - reads stdin",
    )


def list_file(args: argparse.Namespace) -> list[Path]:
    """Return the file of `--inputs-from`, where it is one."""
    return [] if args.inputs_from in (None, "-") else [Path(args.inputs_from)]


def add_cohort(parser: argparse.ArgumentParser) -> None:
    """Add how many volumes are shared out: shards, workers and their devices, and what is named."""
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
        "--dask",
        metavar="local|ADDRESS",
        help="on a Dask cluster: local, in --workers processes of this machine (default: one a core), or the address of"
        " a scheduler that is running, whose workers need the same molrecon and file system; a volume whose worker dies"
        " is tried again. Needs distributed: pip install 'molrecon[dask]'",
    )
    parser.add_argument(
        "--devices",
        type=devices,
        metavar="LIST",
        help="of the workers in turn, comma-separated: cuda:0,cuda:1 (default: --device)",
    )
    parser.add_argument(
        "--no-paths",
        action="store_true",
        help="name inputs by file name and hash alone in all that is written and logged, no folder (folders may be"
        " named after patients; so may files, and those names stay)",
    )


def chosen_shard(args: argparse.Namespace) -> Shard:
    """Return the part of `--shard`. Raises ValueError for what is none."""
    from molrecon.scans.cohort.worklist import WHOLE, parse_shard, slurm_shard

    if args.shard is None:
        return WHOLE
    return slurm_shard() if args.shard == "slurm" else parse_shard(args.shard)


def chosen_workers(args: argparse.Namespace) -> Execute:
    """Return how volumes are carried out. Raises ValueError for devices without workers, and what InDask refuses."""
    from molrecon.scans.cohort.one_volume import in_this_process
    from molrecon.scans.cohort.parallel import InWorkers

    chosen = args.devices or []
    if args.dask is not None:
        return _dask(args.dask, args.workers, chosen)
    if args.workers is None:
        if chosen:
            raise ValueError("reconstruct: --devices without --workers, expected both, or --device")
        return in_this_process
    return InWorkers(args.workers, chosen)


def _dask(address: str, workers: int | None, devices: list[str]) -> Execute:
    try:
        from molrecon.scans.cohort.dask_cluster import InDask
    except ModuleNotFoundError as error:
        if error.name not in ("dask", "distributed"):
            raise
        raise ValueError("reconstruct: --dask needs distributed, expected it: pip install 'molrecon[dask]'") from None
    return InDask(address, workers, devices)

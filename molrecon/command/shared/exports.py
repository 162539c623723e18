"""What the arguments of `reconstruct` name: inputs from the command line, a list or a table; DICOM and BIDS outputs.

Imports what the outputs need: the command imports it when it runs.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from molrecon.command.shared.messages import UsageError, usage
from molrecon.io import UnreadableInput
from molrecon.io.bids import SUFFIXES, BidsName
from molrecon.io.dicom import read_template
from molrecon.scans.cohort.worklist import parse_inputs
from molrecon.scans.exports import BidsExport, DicomExport, Exports
from molrecon.scans.exports.bids_names import Line, names_for, read_table
from molrecon.scans.exports.bids_suffix import read_suffix

Table = Mapping[Path, Line]


def named_inputs(args: argparse.Namespace) -> tuple[list[Path], Table | None]:
    """Return the inputs of the command line and of the list, and their names in BIDS where the list is a table.

    Raises UsageError for no inputs, UnreadableInput for a list that cannot be used.
    """
    named, table = [Path(path) for path in args.inputs], None
    if args.inputs_from is not None:
        source = "stdin" if args.inputs_from == "-" else args.inputs_from
        with usage():
            content = sys.stdin.buffer.read() if source == "stdin" else Path(source).read_bytes()
        if args.bids is not None and args.subject is None:
            if named:
                raise UsageError("reconstruct: INPUT beside a table of inputs, expected all of them in the table")
            table = read_table(os.fsdecode(content), source)
            named = list(table)
        else:
            named += parse_inputs(content, source)
    if not named:
        raise UsageError("reconstruct: no INPUT, expected some, or --inputs-from")
    return named, table


def template_files(args: argparse.Namespace) -> list[Path]:
    """Return the file of `--dicom-template`, if it names one."""
    return [] if args.dicom_template is None else [Path(args.dicom_template)]


def chosen_exports(args: argparse.Namespace, outputs: Mapping[Path, str], table: Table | None) -> Exports:
    """Return the outputs that the arguments ask for beside the ordinary ones.

    Args:
        args: of the command.
        outputs: the name of the outputs of each input.
        table: the names of inputs in BIDS, from the list of inputs.

    Raises:
        UsageError: arguments that belong together and are not. ValueError: labels that BIDS does not take.
        UnreadableInput: a template that cannot be used.
    """
    if args.dicom is None and args.dicom_template is not None:
        raise UsageError("reconstruct: --dicom-template without --dicom, expected both")
    if args.bids is None and (args.subject is not None or args.session or args.suffix):
        raise UsageError("reconstruct: --subject, --session or --suffix without --bids, expected it as well")
    if args.bids is not None and args.subject is None and table is None:
        raise UsageError("reconstruct: --bids without --subject, expected one, or a table as --inputs-from")
    dicom = bids = None
    if args.dicom is not None:
        _need_pydicom()
        dicom = DicomExport(args.dicom, None if args.dicom_template is None else read_template(args.dicom_template))
    if args.bids is not None:
        bids = BidsExport(Path(args.bids), _bids_names(args, outputs, table))
    return Exports(dicom, bids)


def _bids_names(args: argparse.Namespace, outputs: Mapping[Path, str], table: Table | None) -> dict[str, BidsName]:
    """Return the names in BIDS by those of the outputs, with suffixes from the headers where none is given."""
    lines = {} if table is None else {path: _in_table(path, table) for path in outputs}
    given = {path: args.suffix or (lines[path].suffix if path in lines else None) for path in outputs}
    if args.shard is not None and None in given.values():
        raise UsageError("reconstruct: --bids with --shard, without suffixes, expected --suffix or a table with them")
    suffixes = {path: suffix or _suffix_of_header(path) for path, suffix in given.items()}
    undecided = [path for path, suffix in suffixes.items() if suffix is None]
    if undecided:
        more = f" and {len(undecided) - 1} others do" if len(undecided) > 1 else " does"
        raise UsageError(
            f"reconstruct: {undecided[0].name}{more} not tell by a sequence in the header what is weighted, expected"
            " --suffix, such as T1w, or a table with a column suffix"
        )
    if table is None:
        named = {outputs[path]: str(suffix) for path, suffix in suffixes.items()}
        return names_for(named, args.subject, args.session)
    return {outputs[path]: lines[path].name(str(suffix)) for path, suffix in suffixes.items()}


def _suffix_of_header(path: Path) -> str | None:
    try:
        return read_suffix(path)
    except UnreadableInput:
        return SUFFIXES[0]  # nothing is written of it, and its record says why


def _in_table(path: Path, table: Table) -> Line:
    if path not in table:
        raise UsageError(f"reconstruct: {path} comes from a folder in the table, expected a line for each scan")
    return table[path]


def _need_pydicom() -> None:
    try:
        import pydicom  # noqa: F401
    except ModuleNotFoundError:
        raise UsageError("reconstruct: --dicom needs pydicom, expected it: pip install 'molrecon[dicom]'") from None

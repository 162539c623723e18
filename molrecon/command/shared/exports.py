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
from molrecon.io.bids import BidsName
from molrecon.io.dicom import read_template
from molrecon.scans.cohort.worklist import parse_inputs
from molrecon.scans.exports import BidsExport, DicomExport, Exports
from molrecon.scans.exports.bids_export import names_for, read_table

Table = Mapping[Path, BidsName]


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
    if args.bids is None and (args.subject is not None or args.session):
        raise UsageError("reconstruct: --subject or --session without --bids, expected all of them or none")
    if args.bids is not None and args.subject is None and table is None:
        raise UsageError("reconstruct: --bids without --subject, expected one, or a table as --inputs-from")
    dicom = bids = None
    if args.dicom is not None:
        _need_pydicom()
        dicom = DicomExport(args.dicom, None if args.dicom_template is None else read_template(args.dicom_template))
    if args.bids is not None:
        if table is None:
            names = names_for(list(outputs.values()), args.subject, args.session, args.suffix)
        else:
            names = {name: _in_table(path, table) for path, name in outputs.items()}
        bids = BidsExport(Path(args.bids), names)
    return Exports(dicom, bids)


def _in_table(path: Path, table: Table) -> BidsName:
    if path not in table:
        raise UsageError(f"reconstruct: {path} comes from a folder in the table, expected a line for each scan")
    return table[path]


def _need_pydicom() -> None:
    try:
        import pydicom  # noqa: F401
    except ModuleNotFoundError:
        raise UsageError("reconstruct: --dicom needs pydicom, expected it: pip install 'molrecon[dicom]'") from None

"""`molrecon status`: what became of the volumes of a folder, from the records of all runs into it."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from molrecon.command.shared.arguments import add_json
from molrecon.command.shared.exit_codes import EXIT_FAILED, cohort_exit_code
from molrecon.command.shared.messages import UsageError, tell, usage

HELP = "what became of the volumes of a folder, and which are missing"
DESCRIPTION = (
    "Merge the records of all runs of `molrecon reconstruct --out DIR`, its shards among them, into DIR/manifest.json,"
    " and say what became of the volumes. Missing are those that a run was to do and of which there is no record: it"
    " was ended before, or is not done yet; the same command with --resume does them. Exit code 4 if volumes failed or"
    " are missing."
)
LISTED = 20  # names of a kind that are printed; the manifest holds all of them


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("folder", metavar="DIR", help="the folder of the outputs")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Write the manifest, and print what it says."""
    from molrecon.scans.manifest import OK, check_has_outputs, write_manifest

    folder = Path(args.folder)
    with usage():
        check_has_outputs(folder)
    if args.json not in (None, "-") and _is_an_output(Path(args.json).resolve(), folder.resolve()):
        raise UsageError(f"status: --json {args.json} is among the outputs in {folder}, expected another folder")
    content = write_manifest(folder)
    volumes, missing = content["volumes"], content["missing"]
    counted = {**content["counts"], "missing": len(missing)}
    lines = [
        f"{content['inputs']} volumes: " + ", ".join(f"{count} {kind}" for kind, count in counted.items() if count)
    ]
    for kind in content["counts"]:
        if kind != OK:
            lines += _listed(kind, [_line(one) for one in volumes if one.get("status") == kind])
    lines += _listed("missing", missing)
    tell(args, content, "\n".join(lines))
    return EXIT_FAILED if missing else cohort_exit_code([str(volume.get("status")) for volume in volumes])


def _is_an_output(path: Path, folder: Path) -> bool:
    """Tell whether a file is among the outputs in a folder: in one of its folders, or there and no earlier status."""
    from molrecon.scans.manifest import MANIFEST

    if path.parent != folder or path.name == MANIFEST:
        return path.is_relative_to(folder)
    try:
        return "counts" not in json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        return False
    except ValueError:
        return True


def _line(volume: dict[str, Any]) -> str:
    return f"{volume.get('name', volume.get('input'))}: {volume.get('message')}"


def _listed(kind: str, names: list[str]) -> list[str]:
    more = [f"{kind}: and {len(names) - LISTED} more"] if len(names) > LISTED else []
    return [f"{kind}: {name}" for name in names[:LISTED]] + more

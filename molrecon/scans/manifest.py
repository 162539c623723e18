"""What became of every input of a folder: a record a volume, and manifest.json, which is all of them together.

A record is written once its volume is done, in a file of its own, so that the cost of a volume does not grow with the
number of the others, and processes that share a folder do not meet. The manifest is made from the records at the end of
a run. Records and entries of other runs stay. Before a run starts, it leaves a list of the volumes that it is to do,
called by its own hash: what is listed and has no record is missing.

A record does not wait for the disk, which would take longer than all else that a volume costs beside its
reconstruction. It is whole whichever process is killed, and the manifest, which does wait, makes the records of a run
durable in one go. A power failure before that may leave an empty record, which counts as none: the outputs are safe,
and a resumed run finds them and writes the record again.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, final

from molrecon.io.volume import image_data_left_out
from molrecon.scans.data_warnings import DataWarning
from molrecon.scans.sidecar import versions, write_json

MANIFEST = "manifest.json"
RECORDS = "records"
LISTS = "lists"
OK, NOT_CONVERGED, INCOMPLETE, UNREADABLE, FAILED = "ok", "not converged", "incomplete", "unreadable", "failed"
STATUSES = (OK, NOT_CONVERGED, INCOMPLETE, UNREADABLE, FAILED)
PASSES = 5  # over the records, when others keep writing them; who writes the last ones makes the manifest again

log = logging.getLogger(__name__)


@final
@dataclass(frozen=True)
class Entry:
    """What became of one input.

    Attributes:
        input: the path as given.
        status: "ok", "not converged", "incomplete" (converged, but image data of the file were left out; in these three
            cases outputs are written), "unreadable" (the input) or "failed" (anything else).
        message: what went wrong, or how well it went.
        outputs: the paths of the written files.
        skipped: True when complete outputs of an earlier run were kept.
        left_out: what the input holds and the outputs do not, as in `RawVolume`.
        warnings: as in `Reconstruction`.
        model_choice: the model of each series of the scan and the reason for it, as `Choice.describe` says.
        figures: of the reconstruction, for comparison with the other volumes, see `page.figures`.
    """

    input: str
    status: str
    message: str
    outputs: list[str]
    skipped: bool = False
    left_out: dict[str, int] = field(default_factory=dict)
    warnings: list[DataWarning] = field(default_factory=list)
    model_choice: list[dict[str, Any]] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)


def status_of(converged: bool, left_out: Mapping[str, int]) -> str:
    """Return the status of a volume of which outputs are written."""
    if not converged:
        return NOT_CONVERGED
    return INCOMPLETE if image_data_left_out(left_out) else OK


def now() -> str:
    """Return the time in ISO 8601, to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def check_has_outputs(folder: Path) -> None:
    """Raise ValueError for a folder into which nothing was ever reconstructed."""
    if not any((folder / name).exists() for name in (RECORDS, LISTS, MANIFEST)):
        raise ValueError(f"{folder}: holds neither {RECORDS} nor {MANIFEST}, expected a folder of outputs")


def write_record(folder: Path, record: dict[str, Any]) -> None:
    """Write FOLDER/records/NAME.json, where NAME is what the record has under "name". Raises OSError."""
    (folder / RECORDS).mkdir(exist_ok=True)
    write_json(folder / RECORDS / f"{record['name']}.json", record, durable=False)


def write_list(folder: Path, inputs: Mapping[str, str]) -> None:
    """Write the names of the outputs that a run is to make, with their inputs, to FOLDER/lists/HASH.json.

    All shards of a run have one list; another run's is another file. Raises OSError.
    """
    content = {"volumes": dict(sorted(inputs.items()))}
    path = folder / LISTS / f"{hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]}.json"
    path.parent.mkdir(exist_ok=True)
    if _read(path) != content:
        write_json(path, content)


def read_lists(folder: Path) -> dict[str, str]:
    """Return the inputs of all runs into the folder, by the names of their outputs. Raises OSError."""
    volumes: dict[str, str] = {}
    for path in _visible(folder / LISTS):
        volumes |= (_read(path) or {}).get("volumes", {})
    return volumes


def missing(folder: Path, names: Iterable[str]) -> list[str]:
    """Return those of the names of which there is no whole record."""
    recorded = {path.stem for path in _visible(folder / RECORDS) if _read(path) is not None}
    return [name for name in names if name not in recorded]


def write_manifest(folder: Path, unwritten: Sequence[dict[str, Any]] = ()) -> dict[str, Any]:
    """Write FOLDER/manifest.json from all records, and from entries of an older manifest that have none; return it.

    Processes that do so at the same time lose nothing: each looks at the records again once its manifest is in place,
    and writes another one if there were new ones, so that the last manifest has them all. No lock is needed, which
    network file systems may not have.

    Args:
        folder: of the outputs.
        unwritten: records that could not be written, to be listed all the same.

    Raises:
        OSError: a record cannot be read, or the manifest not written.
    """
    content: dict[str, Any] = {}
    for _ in range(PASSES):
        state = _state(folder)
        volumes = _manifest_entries(folder)
        records = {path.stem: _read(path) for path in sorted(state)}
        volumes = {name: entry for name, entry in volumes.items() if records.get(name, entry) is not None}
        volumes |= {name: record for name, record in records.items() if record is not None}
        volumes |= {record["name"]: record for record in unwritten}
        counts = Counter(volume.get("status") for volume in volumes.values())
        content = {
            "inputs": len(volumes),
            "counts": {status: counts[status] for status in STATUSES},
            "missing": sorted(read_lists(folder).keys() - volumes.keys()),
            "volumes": [volumes[name] for name in sorted(volumes)],
            "versions": versions(),
            "written": now(),
        }
        write_json(folder / MANIFEST, content)
        if _state(folder) == state:
            return content
    log.info("%s: records keep coming; `molrecon status` lists all of them once they are done", folder / MANIFEST)
    return content


def _state(folder: Path) -> dict[Path, tuple[int, int]]:
    """Return every record's path with what changes when it is replaced."""
    return {path: (status.st_ino, status.st_mtime_ns) for path in _visible(folder / RECORDS) if (status := path.stat())}


def _visible(folder: Path) -> list[Path]:
    """Return the JSON files of a folder that are complete: those that are being written are hidden."""
    return sorted(path for path in folder.glob("*.json") if not path.name.startswith("."))


def _manifest_entries(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the entries of the manifest that is there, by the name of their outputs, or of their input."""
    content = _read(folder / MANIFEST) or {}
    entries = [entry for entry in content.get("volumes", []) if isinstance(entry, dict)]
    return {name_of(entry): entry for entry in entries}


def name_of(entry: Mapping[str, Any]) -> str:
    """Return the name in a record; version 0.1 did not write it, but where the outputs are, the sidecar last."""
    outputs = entry.get("outputs")
    return str(entry.get("name") or (Path(outputs[-1]).stem if outputs else Path(str(entry.get("input"))).stem))


def _read(path: Path) -> dict[str, Any] | None:
    """Return the object in a JSON file, None where there is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return content if isinstance(content, dict) else None

"""The volumes of a cohort as rows of a table, from their records."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any, final
from urllib.parse import quote

from molrecon.scans.manifest import FAILED, INCOMPLETE, NOT_CONVERGED, OK, RECORDS, UNREADABLE, name_of
from molrecon.scans.page.figures import QUANTITIES, figures, positive, robust_z, stands_out
from molrecon.scans.page.pictures import webp_uri
from molrecon.scans.page.verdict import Level

NOT_DONE = "not done"
STATES = {"certified": "certified", "estimated": "estimated bound", "none": "no bound"}  # of volumes that are ok
LEVELS: dict[str, Level] = {OK: "good", NOT_DONE: "caution"}  # of a status; bad otherwise
WRITTEN = (OK, NOT_CONVERGED, INCOMPLETE)  # statuses of volumes that have outputs
REASONS = {UNREADABLE: "the input cannot be read", FAILED: "it could not be reconstructed"}
LONGEST = 300  # characters of a message
THUMBNAIL = ".webp"


@final
@dataclass(frozen=True)
class Row:
    """What became of a volume.

    Attributes:
        name: of the outputs.
        status: of the record, or NOT_DONE. state: the same for people. level: how bad that is.
        certified: outputs are there, converged, and with a proven bound.
        pages: texts and relative addresses of the pages of its images, as far as they are there.
        thumbnail: a data URI, or nothing.
        values: positive figures by the key of their quantity. slices: how many, or None.
        warned: the number of warnings. remarks: sentences on the volume.
        z: robust z by the key of its quantity, where the volume is an outlier.
    """

    name: str
    status: str
    state: str
    level: Level
    certified: bool = False
    pages: list[tuple[str, str]] = field(default_factory=list)
    thumbnail: str = ""
    values: Mapping[str, float | None] = field(default_factory=dict)
    slices: int | None = None
    warned: int = 0
    remarks: list[str] = field(default_factory=list)
    z: dict[str, float] = field(default_factory=dict)

    @property
    def shown_for(self) -> str:
        """The words by which the buttons above the table choose this row."""
        words = {"bad": self.level == "bad", "warned": self.warned > 0, "outlier": bool(self.z)}
        words |= {"certified": self.certified, "waiting": self.status == NOT_DONE}
        return " ".join(word for word, chosen in words.items() if chosen)


def make_rows(folder: Path, content: Mapping[str, Any], *, thumbnails: bool) -> list[Row]:
    """Return a row for every volume of a manifest, and for those that are missing, in the order of their names.

    Args:
        folder: of the outputs; thumbnails lie beside the records.
        content: from `manifest.write_manifest`.
        thumbnails: whether the rows have them.
    """
    files = {path.name for path in folder.iterdir()}
    rows = [_row(folder, record, files, thumbnails) for record in content["volumes"]]
    for quantity in QUANTITIES:
        scores = robust_z([row.values.get(quantity.key) for row in rows])
        for row, z in zip(rows, scores, strict=True):
            if stands_out(z, quantity):
                row.z[quantity.key] = z
                row.remarks.append(f"{'high' if z > 0 else 'low'} {quantity.title} (z {z:.1f})")
    rows += [Row(str(name), NOT_DONE, NOT_DONE, LEVELS[NOT_DONE]) for name in content["missing"]]
    return sorted(rows, key=lambda row: _natural(row.name))


def thumbnail_path(folder: Path, name: str) -> Path:
    """Return where the thumbnail of a volume lies."""
    return folder / RECORDS / f"{name}{THUMBNAIL}"


def _row(folder: Path, record: Mapping[str, Any], files: set[str], thumbnails: bool) -> Row:
    name, status = name_of(record), str(record.get("status"))
    volume_figures = (record.get("figures") or _sidecar_figures(folder, name)) if status in WRITTEN else {}
    kind, warnings = str(volume_figures.get("kind")), [w for w in _list(record, "warnings") if isinstance(w, dict)]
    certified = status == OK and kind == "certified"
    slices = volume_figures.get("slices")
    return Row(
        name=name,
        status=status,
        state=STATES.get(kind, OK) if status == OK else status,
        level="caution" if status == OK and (warnings or not certified) else LEVELS.get(status, "bad"),
        certified=certified,
        pages=_pages(name, record, files),
        thumbnail=_thumbnail(folder, name) if thumbnails and status in WRITTEN else "",
        values={quantity.key: positive(volume_figures.get(quantity.key)) for quantity in QUANTITIES},
        slices=slices if isinstance(slices, int) else None,
        warned=len(warnings),
        remarks=[*_reason(name, record, status), *_checks(warnings)],
    )


def _list(record: Mapping[str, Any], key: str) -> list[Any]:
    items = record.get(key)
    return items if isinstance(items, list) else []


def _sidecar_figures(folder: Path, name: str) -> dict[str, Any]:
    """Return the figures of a volume whose record does not hold them: version 0.2 did not write them."""
    try:
        content = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return figures(content) if isinstance(content, dict) else {}


def _pages(name: str, record: Mapping[str, Any], files: set[str]) -> list[tuple[str, str]]:
    """Return the pages of a volume, one a series: the first by the volume's name, others by what tells them apart."""
    outputs = [PurePath(str(output).replace("\\", "/")).name for output in _list(record, "outputs")]
    pages = [file for file in outputs if file.endswith(".html") and file in files]
    texts = [name, *(file.removesuffix(".html").removeprefix(f"{name}_") for file in pages[1:])]
    return [(text, f"./{quote(file)}") for text, file in zip(texts, pages, strict=False)]


def _thumbnail(folder: Path, name: str) -> str:
    try:
        return webp_uri(thumbnail_path(folder, name).read_bytes())
    except OSError:
        return ""


def _reason(name: str, record: Mapping[str, Any], status: str) -> list[str]:
    """Return why there is no image. Free text of the record is repeated only where paths might be named."""
    if status in WRITTEN:
        return []
    general = REASONS.get(status, "nothing is known about it")
    if record.get("no_paths") is not False or not record.get("message"):
        return [f"{general}; records/{name}.json says more"]
    source = str(record.get("input", ""))
    message = str(record["message"]).replace(source, PurePath(source).name) if source else str(record["message"])
    return [message if len(message) <= LONGEST else f"{message[:LONGEST]}..."]


def _checks(warnings: list[dict[str, Any]]) -> list[str]:
    counts = Counter(str(warning.get("check")) for warning in warnings)
    return [check if count == 1 else f"{check} ({count})" for check, count in counts.items()]


def _natural(name: str) -> tuple[list[tuple[int, str]], str]:
    """Return the key of an order in which scan 2 comes before scan 10."""
    pieces = re.split(r"(\d+)", name.casefold())
    return [(int(piece), "") if piece.isdecimal() else (-1, piece) for piece in pieces], name

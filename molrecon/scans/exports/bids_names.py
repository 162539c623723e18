"""Which BIDS name each input gets: from one subject and session, or from a table of inputs."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import final

from molrecon.io import UnreadableInput
from molrecon.io.bids import SUFFIXES, BidsName

COLUMNS = ("input", "subject", "session", "suffix", "run")


def names_for(
    suffixes: Mapping[str, str], subject: str, session: str = "", run: int | None = None
) -> dict[str, BidsName]:
    """Return the names of inputs of one subject and session: the only one of its suffix has no run but a given one,
    several count from 1, or from `run`.

    Args:
        suffixes: of BIDS, by the names of the outputs.
        subject, session, run: as in `BidsName`.

    Raises:
        ValueError: see `BidsName`.
    """
    counts, names = Counter(suffixes.values()), {}
    numbers = dict.fromkeys(counts, run or 1)
    for output, suffix in suffixes.items():
        names[output] = BidsName(subject, session, suffix, run if counts[suffix] == 1 else numbers[suffix])
        numbers[suffix] += 1
    return names


@final
@dataclass(frozen=True)
class Line:
    """A line of a table: whose scan an input is. No suffix: what the header tells."""

    subject: str
    session: str = ""
    suffix: str | None = None
    run: int | None = None

    def name(self, suffix: str) -> BidsName:
        """Return the name of the image with a suffix."""
        return BidsName(self.subject, self.session, suffix, self.run)


def read_table(text: str, source: str) -> dict[Path, Line]:
    """Read a table with tabs between columns: input and subject, and if need be session, suffix and run.

    Args:
        text: the first line names the columns. Cells may be empty or n/a.
        source: named in errors.

    Raises:
        UnreadableInput: other columns, a line without an input or a subject, a label that BIDS does not take, an input
            twice.
    """
    reader = csv.DictReader(io.StringIO(text.removeprefix("\ufeff")), delimiter="\t", quoting=csv.QUOTE_NONE)
    columns, expected = reader.fieldnames or (), "a table with the columns input and subject"
    if not {"input", "subject"} <= set(columns) or not set(columns) <= set(COLUMNS):
        raise UnreadableInput(source, f"columns {list(columns)}", f"{expected}, and of {', '.join(COLUMNS[2:])}")
    lines: dict[Path, Line] = {}
    for number, row in enumerate(reader, start=2):
        cells = {key: "" if value in (None, "n/a") else str(value).strip() for key, value in row.items() if key}
        path = Path(cells["input"])
        if not (cells["input"] and cells["subject"]) or path in lines:
            raise UnreadableInput(source, f"line {number}: {json.dumps(cells)}", "an input, once, and a subject")
        try:
            run = int(cells["run"]) if cells.get("run") else None
            subject, session = cells["subject"].removeprefix("sub-"), cells.get("session", "").removeprefix("ses-")
            lines[path] = line = Line(subject, session, cells.get("suffix") or None, run)
            line.name(line.suffix or SUFFIXES[0])  # which checks the labels
        except ValueError as error:
            raise UnreadableInput(source, f"line {number}: {error}", expected) from error
    return lines

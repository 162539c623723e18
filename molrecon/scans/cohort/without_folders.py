"""Texts without the folders in which files lie: these may be named after patients, projects and people."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import final

from molrecon.scans.manifest import Entry

FOLDER = "(folder)"


@final
@dataclass(frozen=True)
class WithoutFolders:
    """Takes folders out of texts: `/data/DOE/day1/scan.h5` becomes `scan.h5`, `/data/DOE` becomes `(folder)`.

    Only folders that it was made with, and those around them, are taken out: a text does not show where a path ends.
    """

    pattern: re.Pattern[str]

    @classmethod
    def of(cls, folders: Iterable[str | Path]) -> WithoutFolders:
        """Return what takes out these folders, under the names given, absolute and without links, and their parents."""
        named = {str(folder) for folder in folders}
        absolute = {form for folder in named for form in (os.path.abspath(folder), os.path.realpath(folder))}
        around = {str(parent) for folder in absolute for parent in Path(folder).parents} | absolute
        around -= {Path(folder).anchor for folder in around}
        relative = {folder for folder in named if not os.path.isabs(folder)} - {os.curdir, ""}
        inside, alone = _any_of(around | relative), _any_of(around)
        return cls(re.compile(rf"(?<![\w./-])(?:{inside}(/+)|{alone}(?![\w.-]))"))

    @classmethod
    def around(cls, *files: str | Path, folder: Path | None = None) -> WithoutFolders:
        """Return what takes out the folders in which these files lie, and one more."""
        paths = [Path(file) for file in files]
        inside = [path for path in paths if path.is_dir()]
        return cls.of([*inside, *(path.parent for path in paths), *([] if folder is None else [folder])])

    def __call__(self, text: str) -> str:
        """Return the text without them."""
        return self.pattern.sub(lambda match: "" if match.group(1) else FOLDER, text)

    def entry(self, entry: Entry) -> Entry:
        """Return the entry without them: its files are file names."""
        return replace(
            entry,
            input=Path(entry.input).name,
            message=self(entry.message),
            outputs=[Path(output).name for output in entry.outputs],
        )


@final
class FormatterWithoutFolders(logging.Formatter):
    """Formats log records as another formatter does, tracebacks included, without the folders."""

    def __init__(self, formatter: logging.Formatter, without: Callable[[str], str]) -> None:
        super().__init__()
        self._formatter, self._without = formatter, without

    def format(self, record: logging.LogRecord) -> str:
        """Return the text of the record."""
        return self._without(self._formatter.format(record))


def _any_of(folders: set[str]) -> str:
    longest_first = sorted(map(re.escape, folders), key=len, reverse=True)
    return f"(?:{'|'.join(longest_first)})" if folders else "(?!)"

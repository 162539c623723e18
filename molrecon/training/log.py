"""What a training tells while it runs: FOLDER/log.csv, a line of the log, TensorBoard, a progress bar."""

from __future__ import annotations

import csv
import importlib.util
import io
import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, final

from tqdm import tqdm

from molrecon.io import write_atomically

if TYPE_CHECKING:
    from torch.utils.tensorboard.writer import SummaryWriter

logger = logging.getLogger(__name__)

LOG_FILE = "log.csv"
TENSORBOARD_FOLDER = "tensorboard"


@contextmanager
def file_log(folder: Path) -> Iterator[None]:
    """Write what molrecon logs to FOLDER/train.log too; the folder is made where it is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(folder / "train.log", encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    package = logging.getLogger("molrecon")
    level = package.level
    package.setLevel(logging.INFO)
    package.addHandler(handler)
    try:
        yield
    finally:
        package.removeHandler(handler)
        package.setLevel(level)
        handler.close()


def finish(steps: Iterable[int], total: int) -> None:
    """Run a training to its end, with a progress bar on a terminal."""
    with tqdm(total=total, desc="training", unit="step", disable=None) as bar:
        for done in steps:
            bar.update(done - bar.n)


@final
class TrainingLog:
    """Rows of numbers: in FOLDER/log.csv, in the log, and for TensorBoard in FOLDER/tensorboard where it is asked for.

    A run that resumes drops the rows after its checkpoint, so that the file is that of a run that was never stopped.

    Args:
        folder: exists.
        resumed_at: finished steps of the checkpoint, 0 for a new run.
        tensorboard: write for it as well.

    Raises:
        ImportError: TensorBoard is asked for and not installed.
    """

    def __init__(self, folder: Path, resumed_at: int, tensorboard: bool) -> None:
        self._path = folder / LOG_FILE
        self._writer = _summary_writer(folder / TENSORBOARD_FOLDER, resumed_at) if tensorboard else None
        rows = [row for row in read_log(folder) if int(row["step"]) <= resumed_at]
        if rows:
            write_atomically(self._path, _table(list(rows[0]), rows, header=True))
        else:
            self._path.unlink(missing_ok=True)

    def write(self, step: int, numbers: dict[str, float | None]) -> None:
        """Add the row of a step; the names are the same in every row, and None is an empty cell.

        Raises:
            OSError: the row cannot be written; the file is as it was.
        """
        row = {"step": str(step), **{name: "" if x is None else f"{x:.7g}" for name, x in numbers.items()}}
        size = self._path.stat().st_size if self._path.exists() else 0
        try:
            with self._path.open("ab") as file:
                file.write(_table(list(row), [row], header=not size))
        except OSError:  # a part of a row would be read as one
            if self._path.exists():
                os.truncate(self._path, size)
            raise
        filled = {name: x for name, x in numbers.items() if x is not None}
        logger.info("step %d  %s", step, "  ".join(f"{name} {x:.4g}" for name, x in filled.items()))
        if self._writer is not None:
            for name, x in filled.items():
                self._writer.add_scalar(name, x, step)
            self._writer.flush()

    def close(self) -> None:
        """Close TensorBoard's file."""
        if self._writer is not None:
            self._writer.close()


def read_log(folder: Path) -> list[dict[str, str]]:
    """Return the rows of FOLDER/log.csv as text by column; none where there is no such file."""
    path = folder / LOG_FILE
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _table(columns: list[str], rows: list[dict[str, str]], *, header: bool) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    if header:
        writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def require_tensorboard() -> None:
    """Raise ImportError where TensorBoard is not installed."""
    if importlib.util.find_spec("tensorboard") is None:
        raise ImportError(
            "train: TensorBoard is not installed, expected the package tensorboard, as pip install 'molrecon[train]'"
            " brings it"
        )


def _summary_writer(folder: Path, resumed_at: int) -> SummaryWriter:
    require_tensorboard()
    from torch.utils.tensorboard.writer import SummaryWriter

    return SummaryWriter(str(folder), purge_step=resumed_at + 1 if resumed_at else None)

"""Which volumes a run is about: a list of inputs from a file, the share of it that one of several runs takes."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar, final

from molrecon.io import UnreadableInput

T = TypeVar("T")


def parse_inputs(content: bytes, source: str = "list of inputs") -> list[Path]:
    """Return the inputs that a list names: one a line, or each ended by NUL as `find -print0` writes them.

    Empty lines are left out, and lines that start with # and name no file; relative paths are relative to the current
    folder.

    Args:
        content: UTF-8; other bytes are kept as file names have them.
        source: named in errors.

    Raises:
        UnreadableInput: a list without any input.
    """
    text = os.fsdecode(content.removeprefix(b"\xef\xbb\xbf"))
    if "\0" in text:
        named = [name for name in text.split("\0") if name]
    else:
        lines = (line.strip() for line in text.splitlines())
        named = [line for line in lines if line and (not line.startswith("#") or os.path.exists(line))]
    if not named:
        raise UnreadableInput(source, "no input in it", "one a line, or each ended by NUL")
    return [Path(name) for name in named]


@final
@dataclass(frozen=True)
class Shard:
    """Part number `index` of `count`, counted from 1: every volume belongs to exactly one of them.

    Raises ValueError unless 1 <= index <= count.
    """

    index: int
    count: int

    def __post_init__(self) -> None:
        """Check the numbers."""
        if not 1 <= self.index <= self.count:
            raise ValueError(f"shard {self.index}/{self.count}: expected K/N with K from 1 to N")

    def take(self, items: Sequence[T]) -> list[T]:
        """Return every `count`-th item: neighbours, which often have one size, go to different parts."""
        return list(items[self.index - 1 :: self.count])


WHOLE = Shard(1, 1)


def parse_shard(text: str) -> Shard:
    """Return the shard written as K/N. Raises ValueError."""
    index, slash, count = text.partition("/")
    if not (slash and index.isdecimal() and count.isdecimal()):
        raise ValueError(f"shard {text!r}: expected K/N, such as 1/4")
    return Shard(int(index), int(count))


def slurm_shard(environment: Mapping[str, str] = os.environ) -> Shard:
    """Return this task's part of a SLURM job array, from SLURM_ARRAY_TASK_ID, _MIN, _MAX, _STEP and _COUNT.

    The parts of any array without gaps make up the whole, so that a smaller array can finish what a larger one left.

    Raises:
        ValueError: no task of an array, or of one with gaps (`--array=2,5`), whose tasks do not know their places.
    """
    try:
        number, first, last, count = (
            int(environment[f"SLURM_ARRAY_TASK_{name}"]) for name in ("ID", "MIN", "MAX", "COUNT")
        )
        step = int(environment.get("SLURM_ARRAY_TASK_STEP", "1"))
    except (KeyError, ValueError) as error:
        raise ValueError(f"slurm_shard: {error}, expected a task of a SLURM job array (sbatch --array=1-N)") from None
    place, remainder = divmod(number - first, step)
    if remainder or (last - first) // step + 1 != count:
        raise ValueError(
            f"slurm_shard: task {number} of {count} from {first} to {last}, expected an array without gaps"
            " (sbatch --array=1-N)"
        )
    return Shard(place + 1, count)

"""Lists of inputs, and shards of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from molrecon.io import UnreadableInput
from molrecon.scans.cohort.worklist import Shard, parse_inputs, slurm_shard


def test_lists() -> None:
    lines = b"\xef\xbb\xbf# of Monday\n a/b c.h5 \r\n\n/d.npy\n\xff.h5"
    assert parse_inputs(lines) == [Path("a/b c.h5"), Path("/d.npy"), Path("\udcff.h5")]
    assert parse_inputs(b"a\nb.h5\0# c.h5\0") == [Path("a\nb.h5"), Path("# c.h5")]
    for empty in (b"", b"\n#\n", b"\0"):
        with pytest.raises(UnreadableInput, match=r"mine\.txt: found no input in it"):
            parse_inputs(empty, "mine.txt")


def test_a_file_whose_name_begins_as_a_comment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "#1.npy").touch()
    assert parse_inputs(b"# of Monday\n#1.npy\n") == [Path("#1.npy")]


@given(st.integers(0, 50), st.integers(1, 12))
def test_every_item_is_in_one_shard(items: int, count: int) -> None:
    shards = [Shard(k, count).take(range(items)) for k in range(1, count + 1)]
    assert sorted(item for shard in shards for item in shard) == list(range(items))
    assert max(map(len, shards)) - min(map(len, shards)) <= 1


@pytest.mark.parametrize(("index", "count"), [(0, 4), (5, 4), (1, 0), (-1, 3)])
def test_shards_that_are_none(index: int, count: int) -> None:
    with pytest.raises(ValueError, match="expected K/N with K from 1 to N"):
        Shard(index, count)


def array(number: int, first: int, last: int, count: int, step: int = 1) -> dict[str, str]:
    values = {"ID": number, "MIN": first, "MAX": last, "COUNT": count, "STEP": step}
    return {f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in values.items()}


def test_the_task_of_an_array() -> None:
    assert slurm_shard(array(0, 0, 3, 4)) == Shard(1, 4)
    assert slurm_shard(array(4, 1, 4, 4)) == Shard(4, 4)
    assert slurm_shard(array(10, 0, 15, 4, 5)) == Shard(3, 4)
    assert slurm_shard(array(2, 2, 2, 1)) == Shard(1, 1)  # one task of an earlier array, started again: it does all
    for gaps in (array(5, 2, 5, 2), array(2, 2, 5, 2), array(7, 0, 15, 4, 5)):
        with pytest.raises(ValueError, match="expected an array without gaps"):
            slurm_shard(gaps)
    for none in ({}, {"SLURM_ARRAY_TASK_ID": "1"}, array(1, 1, 1, 1) | {"SLURM_ARRAY_TASK_ID": "x"}):
        with pytest.raises(ValueError, match="expected a task of a SLURM job array"):
            slurm_shard(none)

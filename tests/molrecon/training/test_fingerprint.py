"""Fingerprints of trainings: where two differ, what tells data apart, and that every training gives one."""

from __future__ import annotations

import ast
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest

from molrecon.io import UnreadableInput
from molrecon.training import fingerprint
from molrecon.training.fingerprint import (
    array_fingerprint,
    as_json_values,
    differences,
    file_fingerprint,
    identifying_arguments,
)

ROOT = Path(__file__).parents[3]


def test_what_differs() -> None:
    assert as_json_values({"a": (1, 2), "b": {"c": None}}) == {"a": [1, 2], "b": {"c": None}}
    assert differences({"a": 1, "b": {"c": [1]}}, {"b": {"c": [1]}, "a": 1}) == []
    found = differences({"a": 1, "b": {"c": "x", "d": 2}, "e": 3}, {"a": 1.5, "b": {"c": "y", "d": 2}, "f": True})
    assert found == [
        *("a 1 (expected 1.5)", 'b.c "x" (expected "y")'),
        *("f not given (expected true)", "e 3 (expected not given)"),
    ]
    arguments = Namespace(out=Path("x"), device="cpu", threads=1, name=None, data=Path("y"), seed=3, host="a")
    assert identifying_arguments(arguments, "data") == {"seed": 3, "host": "a"}


def test_data_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = np.arange(12.0).reshape(3, 4)
    lines = [
        array_fingerprint(arrays) for arrays in ([image], [image, image], [image.T], [image.reshape(4, 3)], [image + 1])
    ]
    lines += [array_fingerprint([image.astype(np.float32)]), array_fingerprint([])]
    assert len(set(lines)) == len(lines)
    assert lines[0].startswith("1 arrays, sha256 ") and lines[2] == array_fingerprint([image.T.copy()])
    monkeypatch.setattr(fingerprint, "BLOCK", 8)
    for whole in (2**20, 100):  # as a whole, and in pieces
        monkeypatch.setattr(fingerprint, "WHOLE", whole)
        for name in "abcd":
            (tmp_path / name).write_bytes(bytes(1000))
        paths = [tmp_path / name for name in "abcd"]
        before = file_fingerprint(paths)
        assert before.startswith("4 files (a, b, c, ...), sha256 ") and before == file_fingerprint(paths)
        assert file_fingerprint(paths[:3]) != before != file_fingerprint(paths[::-1])
        for place in (0, 999):
            content = bytearray(1000)
            content[place] = 1
            paths[3].write_bytes(content)
            assert file_fingerprint(paths) != before
        paths[3].write_bytes(bytes(1001))
        assert file_fingerprint(paths) != before
    with pytest.raises(UnreadableInput, match="absent"):
        file_fingerprint([tmp_path / "absent"])


@pytest.mark.parametrize("path", [*ROOT.glob("examples/*.py"), *ROOT.glob("molrecon/**/*.py")], ids=lambda p: p.stem)
def test_every_training_gives_its_fingerprint(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imported = any(
        isinstance(node, ast.ImportFrom)
        and node.module == "molrecon.training.loop"
        and any(alias.name == "train" for alias in node.names)
        for node in ast.walk(tree)
    )
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) == "train"]
    for call in calls if imported else []:
        assert "fingerprint" in [keyword.arg for keyword in call.keywords], (
            f"{path}:{call.lineno} trains without a fingerprint"
        )

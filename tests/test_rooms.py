"""Each room's docstring is a table of contents: every module of the room has its line, and nothing else has one."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "molrecon"
ROOMS = (
    "descent",
    "guarantees",
    "networks",
    "reconstructors",
    "scans",
    "sensing",
    "simulation",
    "solvers",
    "training",
)


@pytest.mark.parametrize("room", ROOMS)
def test_the_table_names_every_module(room: str) -> None:
    text = ast.get_docstring(ast.parse((PACKAGE / room / "__init__.py").read_text(encoding="utf-8"))) or ""
    sentence, _, table = text.partition("\n\n")
    assert "\n" not in sentence and sentence.endswith(".")
    lines = [re.match(r"((?:\w+, )*\w+) {2,}\S", line) for line in table.splitlines()]
    named = [name for line in lines if line for name in line.group(1).split(", ")]
    modules = {path.stem for path in (PACKAGE / room).iterdir() if path.stem != "__init__" and path.suffix == ".py"}
    folders = {path.parent.name for path in (PACKAGE / room).glob("*/__init__.py")}
    assert all(lines) and sorted(named) == sorted(modules | folders)


def test_the_table_of_operators_names_every_module() -> None:
    folder = PACKAGE.parent / "operators"
    text = ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8"))) or ""
    lines = [re.match(r"((?:\w+, )*\w+) {2,}\S", line) for line in text.splitlines()]
    named = [name for line in lines if line for name in line.group(1).split(", ")]
    assert sorted(named) == sorted(path.stem for path in folder.glob("*.py") if path.stem != "__init__")

"""The validation on whole slices: its search of a weight, its table."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def validate() -> ModuleType:
    path = Path(__file__).resolve().parents[2] / "examples" / "validate.py"
    spec = importlib.util.spec_from_file_location("validate", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["validate"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("top", [0, 3, 9, 15, 18])
def test_best_weight(validate: ModuleType, top: int) -> None:
    tried = []

    def score(weight: float) -> float:
        tried.append(weight)
        return -abs(weight - top) / 3

    assert validate.best_of(score, range(19)) == (0, top)
    assert len(tried) == len(set(tried)) < 15


def test_table_names_the_worst_family(validate: ModuleType) -> None:
    def case(bart: float, ours: float) -> dict[str, dict[str, float]]:
        return {"baselines": {"zero-filled": 20, "CG-SENSE": 25, "BART": bart}, "ours": {"psnr": ours}}

    results = {"heads": {"a": case(30, 31.5), "b": case(30, 30.5)}, "knees": {"c": case(30, 29.0)}}
    lines = validate.table(results, {"knees"}, ["ours"]).splitlines()
    assert lines[1].split() == ["heads", "(2)", "20.00", "25.00", "30.00", "31.00", "(+1.00)"]
    assert lines[2].startswith("knees* (1)")
    ends = {line.rsplit(maxsplit=1)[0].strip(): line.split()[-1] for line in lines[3:7]}
    assert ends == {
        "mean lead": "+0.00",
        "worst family": "-1.00",
        "worst that chooses": "+1.00",
        "worst slice": "-1.00",
    }

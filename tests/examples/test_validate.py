"""The validation on whole slices: its search of a weight, its table."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from examples._bart import bart_l1
from operators import Sense


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


@pytest.mark.skipif(shutil.which("bart") is None, reason="bart is not installed")
@pytest.mark.parametrize("shape", [(32, 28), (33, 28), (32, 27), (33, 27)])
def test_bart_finds_the_image_on_grids_of_even_and_odd_size(shape: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    image = torch.zeros(1, *shape, dtype=torch.complex64)
    image[:, 8:24, 6:20] = 1
    image[:, 12:18, 9:13] = 2
    maps = torch.randn(1, 4, 1, 1, generator=generator, dtype=torch.complex64).expand(-1, -1, *shape)
    operator = Sense(maps / torch.linalg.vector_norm(maps, dim=1, keepdim=True), torch.ones(1, 1, 1, dtype=torch.bool))
    found = bart_l1(operator(image), operator, 1e-5).abs()  # up to a phase where a size is odd
    assert torch.linalg.vector_norm(found - image.abs()) < 0.02 * torch.linalg.vector_norm(image)

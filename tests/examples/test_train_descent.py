"""The four arms of examples/train_descent.py, on few patches and for two steps; the other problems where data is."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from examples._arms import ARMS, run_arms
from examples.train_descent import parse, patches, scans, show


@pytest.mark.parametrize("start", ["ista", "random"])
def test_patches(start: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = parse(["patches", "--out", str(tmp_path), "--start", start, "--count", "32", "--steps", "2"])
    summary = run_arms(patches(arguments), tmp_path, seeds=(0,))
    show(summary)
    printed = capsys.readouterr().out
    assert all(f"{arm}\n" in printed for arm in ARMS)
    assert "textures" in printed
    found = json.loads((tmp_path / "constrained" / "0" / "result.json").read_text())
    assert len(found["validation"]["ratios"]) == 10
    # Before training it is ISTA, which descends.
    assert (found["conditions"]["unseen"]["layers_descending"] == 1) == (start == "ista")


@pytest.mark.skipif("MOLRECON_DATA" not in os.environ, reason="MOLRECON_DATA is not set")
def test_scans(tmp_path: Path) -> None:
    data = os.environ["MOLRECON_DATA"]
    made = scans(parse(["scans", "--out", str(tmp_path), "--data", data, "--count", "8"]))
    problem = made.build(0)
    (batch, *_) = made.conditions["unseen"]
    start, outputs = problem.layers(batch, None)
    assert len(outputs) == 5
    assert start.shape == batch.reference.shape == (1, 16, 128)


def test_data_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        parse(["blocks", "--out", str(tmp_path)])

"""The comparison of solvers runs on a strip of the brain, and ours is the first to arrive."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

DATA = os.environ.get("MOLRECON_DATA")
SCRIPT = Path(__file__).parents[2] / "examples" / "compare_solvers.py"


@pytest.mark.skipif(DATA is None, reason="MOLRECON_DATA is not set: the 8-coil brain is not here")
def test_compare_solvers_prints_a_table_and_writes_json_and_figure(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), "--data", str(DATA), "--rows", "8", "--most", "60", "--only", "default"]
    command += ["--json", str(tmp_path / "solvers.json"), "--out", str(tmp_path / "solvers.png")]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert ">60" in done.stdout  # the authors' loop takes more
    report = json.loads((tmp_path / "solvers.json").read_text(encoding="utf-8"))["mol-guided-2d"]
    assert set(report) == {"ours", "plain", "Anderson", "Broyden", "authors"}
    ours = report["ours"]["until"]["distance 0.001"]
    assert ours["evaluations"] < 60 and ours["normals"] > 0
    assert report["authors"]["until"]["distance 0.001"] is None
    for method in report.values():
        assert method["distance"][0] == pytest.approx(report["ours"]["distance"][0])
    assert (tmp_path / "solvers.png").stat().st_size > 10_000

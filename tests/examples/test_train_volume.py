"""The training of volumes runs, resumes, and writes a model that loads, with the scores of others beside its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from molrecon.reconstructors.mol import MOL
from molrecon.reconstructors.planes import PlaneByPlane
from molrecon.weights import load, load_card

DATA = os.environ.get("MOLRECON_DATA")
SCRIPT = Path(__file__).parents[2] / "examples" / "train_volume.py"


@pytest.mark.skipif(DATA is None, reason="MOLRECON_DATA is not set: the perfusion series and the frames are not here")
def test_train_volume_writes_a_certified_model_and_resumes(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), "--data", str(DATA), "--kind", "dynamic", "--out", str(tmp_path)]
    command += ["--shape", "5", "16", "32", "--features", "3", "--problems", "1", "--threads", "1"]
    for _ in range(2):
        subprocess.run([*command, "--steps", "1", "--name", "tiny"], check=True, capture_output=True, text=True)
    assert "resumed at step 1" in (tmp_path / "train.log").read_text(encoding="utf-8")
    model = load(tmp_path / "tiny.safetensors", MOL)
    assert model.network.ndim == 3
    assert model.certificate().kind == "certified"
    guided = [*command, "--steps", "1", "--name", "guided", "--first", "mol-guided-2d", "--monotonicity", "0.1"]
    guided[guided.index(str(tmp_path))] = str(tmp_path / "guided")
    subprocess.run(guided, check=True, capture_output=True, text=True)
    second = load(tmp_path / "guided" / "guided.safetensors", MOL)
    assert isinstance(second.first, PlaneByPlane) and second.certificate().kind == "certified"
    assert second.certificate().monotonicity == pytest.approx(0.1)
    scores = load_card(tmp_path / "tiny.safetensors")["scores"]
    assert scores["zero_filled_psnr_db"] < scores["cg_sense_psnr_db"]
    assert {"validation_psnr_db", "default_2d_psnr_db", "cg_sense_weight"} < set(scores)

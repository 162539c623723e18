"""The training example runs, resumes, and writes a model that loads."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from molrecon.mol import MOL
from molrecon.weights import load, load_card

DATA = os.environ.get("MOLRECON_DATA")
SCRIPT = Path(__file__).parents[2] / "examples" / "train_prior.py"


@pytest.mark.skipif(DATA is None, reason="MOLRECON_DATA is not set: the real images are not here")
def test_train_prior_writes_a_certified_model_and_resumes(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), "--data", str(DATA), "--out", str(tmp_path), "--name", "tiny"]
    command += ["--rows", "32", "--channels", "2", "--features", "4", "--levels", "2", "--threads", "1"]
    command += ["--validation-problems", "1"]
    for steps in ("2", "3"):
        subprocess.run([*command, "--steps", steps], check=True, capture_output=True, text=True)
    assert "resumed at step 2" in (tmp_path / "train.log").read_text(encoding="utf-8")
    model = load(tmp_path / "tiny.safetensors", MOL)
    assert model.certificate().kind == "certified"
    card = load_card(tmp_path / "tiny.safetensors")
    assert card["steps"] == 3
    assert "research use" in card["intended_use"]

"""The training example runs, resumes, and writes a model that loads."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from molrecon.reconstructors.admm_net import ADMMNet
from molrecon.reconstructors.modl import MoDL
from molrecon.reconstructors.mol import MOL
from molrecon.weights import load, load_card

DATA = os.environ.get("MOLRECON_DATA")
SCRIPT = Path(__file__).parents[2] / "examples" / "train_prior.py"


@pytest.mark.skipif(DATA is None, reason="MOLRECON_DATA is not set: the real images are not here")
def test_train_prior_writes_a_certified_model_and_resumes(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), "--data", str(DATA), "--out", str(tmp_path), "--name", "tiny"]
    command += ["--rows", "32", "--channels", "2", "--features", "4", "--levels", "2", "--threads", "1"]
    command += ["--validation-problems", "1", "--largest", "128"]
    for _ in range(2):
        subprocess.run([*command, "--steps", "2"], check=True, capture_output=True, text=True)
    longer = subprocess.run([*command, "--steps", "3"], check=False, capture_output=True, text=True)
    assert longer.returncode != 0 and "found steps 2 (expected 3)" in longer.stderr
    assert "resumed at step 2" in (tmp_path / "train.log").read_text(encoding="utf-8")
    second = [*command, "--first", str(tmp_path / "tiny.safetensors"), "--steps", "1"]
    second[second.index(str(tmp_path))] = str(tmp_path / "guided")
    subprocess.run(second, check=True, capture_output=True, text=True)
    guided = load(tmp_path / "guided" / "tiny.safetensors", MOL)
    assert guided.first is not None and guided.certificate().kind == "certified"
    third = [*command, "--start", str(tmp_path / "guided" / "tiny.safetensors"), "--steps", "1"]
    third += ["--first", "admm-net-2d", "--monotonicity", "0.04"]
    third[third.index(str(tmp_path))] = str(tmp_path / "longer")
    subprocess.run(third, check=True, capture_output=True, text=True)
    longer_model = load(tmp_path / "longer" / "tiny.safetensors", MOL)
    assert isinstance(longer_model.first, ADMMNet)
    assert longer_model.certificate().monotonicity == pytest.approx(0.04)
    for key, value in load("admm-net-2d", ADMMNet).state_dict().items():
        torch.testing.assert_close(longer_model.first.state_dict()[key], value)
    unrolled = [*command, "--model", "modl", "--plain-features", "4", "--steps", "1"]
    unrolled += ["--unrolls", "2", "--precision", "mixed"]
    unrolled[unrolled.index(str(tmp_path))] = str(tmp_path / "unrolled")
    subprocess.run(unrolled, check=True, capture_output=True, text=True)
    assert load_card(tmp_path / "unrolled" / "tiny.safetensors")["precision"] == "mixed"
    assert load(tmp_path / "unrolled" / "tiny.safetensors", MoDL).n_unrolls == 2
    model = load(tmp_path / "tiny.safetensors", MOL)
    assert model.certificate().kind == "certified"
    card = load_card(tmp_path / "tiny.safetensors")
    assert card["steps"] == 2
    assert "research use" in card["intended_use"]

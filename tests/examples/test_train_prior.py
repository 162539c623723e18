"""The training example runs, resumes, and writes models that load."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
import torch

from examples import _subjects, train_prior
from molrecon.reconstructors.admm_net import ADMMNet
from molrecon.reconstructors.modl import MoDL
from molrecon.reconstructors.mol import MOL
from molrecon.training.models import build
from molrecon.weights import load, load_card, save

DATA = os.environ.get("MOLRECON_DATA")
SCRIPT = Path(__file__).parents[2] / "examples" / "train_prior.py"


needs_data = pytest.mark.skipif(DATA is None, reason="MOLRECON_DATA is not set: the real images are not here")
TINY = ["--name", "tiny", "--rows", "32", "--channels", "2", "--features", "4", "--levels", "2", "--threads", "1"]
TINY += ["--validation-problems", "1", "--largest", "128"]

training_sets, validation_sets = cache(_subjects.training_sets), cache(_subjects.validation_sets)


@pytest.fixture
def train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Path]]:
    """Return `train(folder, *arguments)`, a training in this process; the images are read once."""
    monkeypatch.setattr(train_prior, "training_sets", training_sets)
    monkeypatch.setattr(train_prior, "validation_sets", validation_sets)
    monkeypatch.setattr(train_prior, "log_to", lambda folder: folder.mkdir(exist_ok=True))  # pytest has the messages
    threads = torch.get_num_threads()

    def run(folder: str, *arguments: str) -> Path:
        command = ["train_prior.py", "--data", str(DATA), "--out", str(tmp_path / folder), *TINY, *arguments]
        monkeypatch.setattr(sys, "argv", command)
        train_prior.main()
        return tmp_path / folder / "tiny.safetensors"

    yield run
    torch.set_num_threads(threads)


@needs_data
def test_a_strict_model_is_trained_resumed_and_certified(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), "--data", str(DATA), "--out", str(tmp_path), *TINY, "--steps", "2"]
    for _ in range(2):
        subprocess.run(command, check=True, capture_output=True, text=True)
    assert "resumed at step 2" in (tmp_path / "train.log").read_text(encoding="utf-8")
    model = load(tmp_path / "tiny.safetensors", MOL)
    assert model.certificate().kind == "certified"
    card = load_card(tmp_path / "tiny.safetensors")
    assert card["steps"] == 2
    assert "research use" in card["intended_use"]


@needs_data
def test_an_equilibrium_guides_and_then_another_model(train, tmp_path: Path) -> None:
    start = tmp_path / "start.safetensors"
    save(build("mol", seed=0, channels=2, features=4, levels=2), start, load_card("mol-guided-2d"))
    guided_weights = train("guided", "--first", str(start), "--steps", "1")
    guided = load(guided_weights, MOL)
    assert guided.first is not None and guided.certificate().kind == "certified"
    further = ["--start", str(guided_weights), "--first", "admm-net-2d", "--monotonicity", "0.04", "--steps", "1"]
    longer = load(train("longer", *further), MOL)
    assert isinstance(longer.first, ADMMNet)
    assert longer.certificate().monotonicity == pytest.approx(0.04)
    for key, value in load("admm-net-2d", ADMMNet).state_dict().items():
        torch.testing.assert_close(longer.first.state_dict()[key], value)


@needs_data
def test_an_unrolled_model_in_mixed_precision_goes_on_with_its_own_steps_alone(train) -> None:
    command = ["--model", "modl", "--plain-features", "4", "--unrolls", "2", "--precision", "mixed"]
    weights = train("unrolled", *command, "--steps", "1")
    assert load_card(weights)["precision"] == "mixed"
    assert load(weights, MoDL).n_unrolls == 2
    with pytest.raises(ValueError, match=r"found steps 1 \(expected 2\)"):
        train("unrolled", *command, "--steps", "2")

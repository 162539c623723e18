"""`molrecon train` from files to a model that loads, and what it says of what it cannot use."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from molrecon.command import _train_plan
from molrecon.command.parser import main
from molrecon.reconstructors.base import Reconstructor
from molrecon.reconstructors.post_processing import PostProcessing
from molrecon.reconstructors.varnet import VarNet
from molrecon.simulation.phantom import write_phantom
from molrecon.training.log import read_log
from molrecon.weights import load, load_card

FEW_STEPS = ["--steps", "2", "--batch", "1", "--rows", "8", "--device", "cpu"]


@pytest.fixture(autouse=True)
def few_validation_problems(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_train_plan, "VALIDATION_PROBLEMS", 2)


@pytest.fixture
def stack(tmp_path: Path) -> str:
    y, x = np.mgrid[-1:1:40j, -1:1:36j]
    slices = [(np.hypot(x, y) < 0.9 - 0.02 * i) + 0.5 * (np.hypot(x - 0.2, y) < 0.3) for i in range(8)]
    np.save(tmp_path / "head.npy", np.array(slices, np.float32))
    return str(tmp_path / "head.npy")


def test_stack_to_model_and_on(stack: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    command = ["train", stack, "--out", str(out), "--model", "varnet", "--size", "32", "--loss", "l1", *FEW_STEPS]
    assert main([*command, "--precision", "mixed", "--patience", "1", "--tensorboard"]) == 0
    output = capsys.readouterr()
    assert "2 steps, validation psnr db" in output.out and str(out / "varnet.safetensors") in output.out
    assert isinstance(load(out / "varnet.safetensors", Reconstructor), VarNet)
    card = load_card(out / "varnet.safetensors")
    assert card["steps"] == 2 and card["loss"] == "l1" and card["precision"] == "mixed" and card["processes"] == 1
    assert "head.npy" in card["data"] and set(card["scores"]) == {"validation_psnr_db"}
    assert {path.name for path in out.iterdir()} == {
        *("varnet.safetensors", "varnet.json", "checkpoint.pt", "log.csv", "train.log", "tensorboard")
    }
    command += ["--precision", "mixed", "--patience", "1"]
    weights = (out / "varnet.safetensors").read_bytes()
    assert main([*command, "--name", "mine"]) == 0
    assert "mine.safetensors" in capsys.readouterr().out
    assert (out / "mine.safetensors").read_bytes() == weights
    assert load_card(out / "mine.safetensors") == {**card, "name": "mine"}
    assert "resumed at step 2" in (out / "train.log").read_text(encoding="utf-8")
    assert [row["step"] for row in read_log(out)] == ["2"]


def test_a_finished_folder_takes_no_other_training(
    stack: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, other = tmp_path / "run", tmp_path / "other.npy"
    np.save(other, np.load(stack)[:, :, ::-1])
    command = ["train", stack, "--out", str(out), "--model", "varnet", "--size", "32", "--loss", "l1", *FEW_STEPS]
    assert main(command) == 0
    before = {path.name: path.read_bytes() for path in out.iterdir() if path.name != "train.log"}
    capsys.readouterr()
    for more, message in (
        (["--loss", "ssim"], 'found loss "l1" (expected "ssim_loss")'),
        (["--self-supervised"], "found self_supervised false (expected true)"),
        (
            ["--model", "modl"],
            'model.class "molrecon.reconstructors.varnet:VarNet" (expected "molrecon.reconstructors.modl:MoDL")',
        ),
        (["--seed", "1"], "found seed 0 (expected 1)"),
        (["--learning-rate", "1e-3"], "found learning_rate 0.002 (expected 0.001)"),
        (["--steps", "3"], "found steps 2 (expected 3)"),
        (["--batch", "2"], "found scans.batch 1 (expected 2)"),
        (["--rows", "9"], "found scans.rows 8 (expected 9)"),
        (["--size", "40"], "found scans.size 32 (expected 40)"),
        (["--precision", "mixed"], 'found precision "single" (expected "mixed")'),
        (["--validation", str(other)], 'found training_data "6 arrays, sha256'),
    ):
        arguments = [*command, *more]
        if more[0] == "--self-supervised":
            arguments = [word for word in arguments if word not in ("--loss", "l1")]
        assert main(arguments) == 2, more
        error = capsys.readouterr().err
        assert "checkpoint.pt: not a checkpoint of this training" in error and message in error
        assert "expected one, or another folder" in error
    # Other data of the same name, size and shape.
    np.save(stack, np.load(other))
    assert main(command) == 2
    assert 'found training_data "6 arrays' in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in out.iterdir() if path.name != "train.log"} == before


def test_fastmri_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sample = write_phantom(tmp_path / "data" / "a.h5", slices=1, coils=4, shape=(32, 56))
    (tmp_path / "data" / "b.h5").write_bytes(sample.read_bytes())
    (tmp_path / "data" / "broken.h5").write_bytes(sample.read_bytes()[:1000])
    command = ["train", str(tmp_path / "data"), "--model", "unet", *FEW_STEPS]
    assert main([*command, "--out", str(tmp_path / "full")]) == 4
    output = capsys.readouterr()
    assert "2 steps, validation psnr" in output.out and "broken.h5" in output.err
    assert isinstance(load(tmp_path / "full" / "unet.safetensors", Reconstructor), PostProcessing)
    assert "1 files or slices unusable" in load_card(tmp_path / "full" / "unet.safetensors")["data"]
    (tmp_path / "data" / "broken.h5").unlink()  # was not trained on
    assert main([*command, "--out", str(tmp_path / "full")]) == 0
    capsys.readouterr()
    write_phantom(tmp_path / "data" / "a.h5", slices=1, coils=4, shape=(32, 56), seed=1)
    assert main([*command, "--out", str(tmp_path / "full")]) == 2
    assert 'found training_data "1 files (a.h5), sha256 ' in capsys.readouterr().err
    for name in ("a.h5", "b.h5"):
        with h5py.File(tmp_path / "data" / name, "r+") as file:
            columns = np.arange(56)
            file["kspace"][...] = np.where((columns % 3 == 0) | (abs(columns - 28) < 7), file["kspace"][()], 0)
    assert main([*command, "--self-supervised", "--out", str(tmp_path / "blind")]) == 0
    assert "2 steps, withheld loss" in capsys.readouterr().out
    card = load_card(tmp_path / "blind" / "unet.safetensors")
    assert card["loss"] == "withheld samples (SSDU)" and set(card["scores"]) == {"withheld_loss"}


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--model", "de-grad", "--precision", "mixed"], 2, "bfloat16 rounds by 2^-8"),
        (["--self-supervised", "--loss", "ssim"], 2, "--loss ssim with --self-supervised"),
        (["--size", "32", "--rows", "20"], 2, "size of at least 32 and twice the rows"),
        (["--validation", "nowhere"], 3, "nowhere: found no such file"),
    ],
)
def test_what_makes_no_sense(
    stack: str, tmp_path: Path, arguments: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", stack, "--out", str(tmp_path / "run"), *arguments]) == code
    assert message in capsys.readouterr().err


def test_other_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["--out", str(tmp_path / "run")]
    assert main(["train", str(tmp_path / "nowhere"), *out]) == 3
    assert "nowhere: found no such file or folder" in capsys.readouterr().err
    (tmp_path / "a.h5").write_bytes(b"x")
    assert main(["train", str(tmp_path / "a.h5"), *out]) == 2
    assert "expected one folder of them" in capsys.readouterr().err
    assert main(["train", str(tmp_path), *out]) == 3
    assert "none of them usable (a.h5" in capsys.readouterr().err
    assert not torch.distributed.is_initialized()

from __future__ import annotations

import json
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pytest
import torch
from PIL import Image

from molrecon.command.compare import METHODS
from molrecon.command.parser import main
from molrecon.networks import ResidualNetwork
from molrecon.reconstructors.base import Reconstructor
from molrecon.reconstructors.mol import MOL
from molrecon.simulation.phantom import write_phantom
from molrecon.weights import available_models, save, weights_hash

SHAPE = (36, 32)
KEYS = {"psnr", "ssim", "nmse", "psnr_rss", "ssim_rss", "seconds", "iterations", "error_bound", "kind", "converged"}
KEYS |= {"worse_than_zero_filled", "regularisation", "model", "weights_sha256"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("model") / "untrained.safetensors"
    network = ResidualNetwork(monotonicity=0.2, channels=2, features=4, levels=1, cycles=1)
    save(MOL(network), path, {"data": "none"})
    return str(path)


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_phantom(tmp_path_factory.mktemp("sample") / "head.h5", slices=2, coils=4, shape=SHAPE)


def small_demo(path: Path) -> Path:
    return write_phantom(path, slices=2, coils=4, shape=(48, 100))


def test_demo(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr("molrecon.simulation.sample.write_sample", small_demo)
    assert main(["demo", "--out", str(tmp_path / "demo"), "--model", model, "--device", "cpu"]) == 0
    output = capsys.readouterr().out
    for word in ("zero-filled", "cg-sense", "mol", "PSNR", "SSIM", "certified", "sample.nii.gz", "sample.png"):
        assert word in output
    names = sorted(path.name for path in (tmp_path / "demo").iterdir())
    assert names == ["input", "sample.h5", "sample.html", "sample.json", "sample.nii.gz", "sample.png"]
    sidecar = json.loads((tmp_path / "demo" / "sample.json").read_text())
    assert 2.5 < sidecar["sampling"]["acceleration"] < 6


def test_reconstruct(model: str, sample: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "deep" / "out"
    assert main(["reconstruct", str(sample), "--out", str(out), "--model", model]) == 0
    assert "1 volumes, 1 ok" in capsys.readouterr().out
    with h5py.File(out / "head.h5") as file:
        submission = file["reconstruction"][()]
    assert submission.shape == (2, *SHAPE)
    image = nibabel.Nifti1Image.from_filename(out / "head.nii.gz")
    assert np.array_equal(np.asarray(image.dataobj).T, submission)
    assert (out / "manifest.json").is_file()


def test_settings_reach_the_solver_and_non_convergence_has_its_exit_code(
    model: str, sample: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    command = ["reconstruct", str(sample), "--out", str(tmp_path), "--model", model]
    options = ["--tol", "1e-9", "--max-steps", "2", "--noise-level", "0.02"]
    assert main([*command, *options]) == 5
    assert "not converged" in capsys.readouterr().err
    sidecar = json.loads((tmp_path / "head.json").read_text())
    assert sidecar["solver"] == {"tol": 1e-9, "max_steps": 2}
    assert sidecar["noise"]["noise_level"] == 0.02 and not sidecar["noise"]["estimated"]
    assert not sidecar["summary"]["converged"]
    for word in ("--resume", "--skip-existing"):
        assert main([*command, *options, word]) == 5
        assert "outputs of an earlier run kept" in capsys.readouterr().err
    assert main([*command, "--resume"]) == 0
    assert json.loads((tmp_path / "head.json").read_text())["summary"]["converged"]


def test_a_bad_volume_is_listed_and_the_others_are_done(
    model: str, sample: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "bad.h5").write_bytes(b"not HDF5")
    (folder / "head.h5").write_bytes(sample.read_bytes())
    out = tmp_path / "out"
    assert main(["reconstruct", str(folder), "--out", str(out), "--model", model]) == 4
    captured = capsys.readouterr()
    assert "bad.h5" in captured.err and "Traceback" not in captured.err
    assert "2 volumes, 1 ok" in captured.out
    statuses = [item["status"] for item in json.loads((out / "manifest.json").read_text())["volumes"]]
    assert statuses == ["unreadable", "ok"]


def not_hdf5(path: Path, sample: Path) -> None:
    path.write_bytes(b"this is a text")


def missing_key(path: Path, sample: Path) -> None:
    with h5py.File(path, "w") as file:
        file["something"] = 1


def truncated(path: Path, sample: Path) -> None:
    path.write_bytes(sample.read_bytes()[:-20000])


def not_a_number(path: Path, sample: Path) -> None:
    path.write_bytes(sample.read_bytes())
    with h5py.File(path, "r+") as file:
        file["kspace"][0, 0, 0, 0] = np.nan


def wrong_rank(path: Path, sample: Path) -> None:
    with h5py.File(path, "w") as file:
        file["kspace"] = np.ones((4, 4), np.complex64)


def no_coils(path: Path, sample: Path) -> None:
    with h5py.File(path, "w") as file:
        file["kspace"] = np.ones((2, 0, 8, 8), np.complex64)


def wrong_mask(path: Path, sample: Path) -> None:
    path.write_bytes(sample.read_bytes())
    with h5py.File(path, "r+") as file:
        file["mask"] = np.ones(7)


def absent(path: Path, sample: Path) -> None:
    pass


@pytest.mark.parametrize(
    "damage", [not_hdf5, missing_key, truncated, not_a_number, wrong_rank, no_coils, wrong_mask, absent]
)
def test_an_unreadable_input(damage, model: str, sample: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / "scan.h5"
    damage(path, sample)
    out = tmp_path / "out"
    assert main(["reconstruct", str(path), "--out", str(out), "--model", model]) == 3
    error = capsys.readouterr().err
    assert "scan.h5" in error and "expected" in error and "Traceback" not in error
    assert sorted(item.name for item in out.iterdir()) == ["index.html", "lists", "manifest.json", "records"]
    assert main(["compare", str(path), "--methods", "zero-filled"]) == 3
    assert "scan.h5" in capsys.readouterr().err


def test_too_few_central_lines_fail_with_advice(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    kspace = np.random.default_rng(0).standard_normal((4, 24, 24)).astype(np.complex64)
    kspace[..., ::2] = 0
    np.save(tmp_path / "scan.npy", kspace)
    command = ["reconstruct", str(tmp_path / "scan.npy"), "--out", str(tmp_path / "out"), "--model", model]
    assert main(command) == 4
    assert "central lines" in capsys.readouterr().err


def test_compare_prints_json_alone(model: str, sample: Path, capsys: pytest.CaptureFixture[str]):
    command = ["compare", str(sample), "--accel", "2", "--mask", "equispaced", "--center-fraction", "0.25"]
    command += ["--noise", "0.005", "--seed", "3", "--model", model, "--json", "-"]
    assert main(command) in (0, 5)
    content = json.loads(capsys.readouterr().out)
    assert set(content) == {"input", "sha256", "sampling", "noise", "sensitivity_maps", "reference", "methods"}
    assert content["sampling"]["seed"] == [3] and content["sampling"]["mask"] == "equispaced"
    assert content["sampling"]["measured"] == len(content["sampling"]["columns"])
    assert content["methods"]["mol"]["weights_sha256"] == weights_hash(model)
    assert content["input"] == str(sample)
    assert list(content["methods"]) == list(METHODS)
    assert all(set(score) == KEYS for score in content["methods"].values())
    assert content["methods"]["zero-filled"]["iterations"] == 0
    assert content["methods"]["zero-filled"]["error_bound"] is None
    assert content["methods"]["zero-filled"]["converged"] is None
    assert content["methods"]["mol"]["converged"] is True
    assert content["methods"]["mol"]["error_bound"] <= 1e-4
    assert content["methods"]["cg-sense"]["psnr"] > content["methods"]["zero-filled"]["psnr"]


def test_compare_writes_a_table_and_a_file(sample: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    command = ["compare", str(sample), "--accel", "2", "--center-fraction", "0.25", "--methods", "cg-sense,zero-filled"]
    assert main([*command, "--cg-regularisation", "best", "--json", str(tmp_path / "numbers.json")]) in (0, 5)
    table = capsys.readouterr().out
    assert "cg-sense" in table and "PSNR" in table
    first = json.loads((tmp_path / "numbers.json").read_text())
    assert list(first["methods"]) == ["cg-sense", "zero-filled"]
    assert main([*command, "--cg-regularisation", "best", "--json", "-"]) in (0, 5)
    again = json.loads(capsys.readouterr().out)
    assert again["methods"]["cg-sense"]["psnr"] == first["methods"]["cg-sense"]["psnr"]


def test_compare_takes_npy_of_one_slice(sample: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with h5py.File(sample) as file:
        np.save(tmp_path / "scan.npy", file["kspace"][0].astype(np.complex128))
    command = ["compare", str(tmp_path / "scan.npy"), "--accel", "2", "--center-fraction", "0.4", "--json", "-"]
    assert main([*command, "--methods", "zero-filled"]) == 0
    assert json.loads(capsys.readouterr().out)["methods"]["zero-filled"]["psnr"] > 0


def test_compare_takes_any_packaged_model_and_any_file(
    model: str, sample: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["compare", str(sample), "--accel", "2", "--center-fraction", "0.25", "--json", "-"]
    methods = [*available_models(Reconstructor), model]
    flat = [name for name in methods if "3d" not in name and "2dt" not in name]
    assert main([*command, "--methods", ",".join(["cg-sense", *flat])]) in (0, 5)
    scores = json.loads(capsys.readouterr().out)["methods"]
    assert list(scores) == ["cg-sense", *flat]
    assert scores["modl-brain-2d"]["kind"] == "none" and scores["modl-brain-2d"]["error_bound"] is None
    assert main([*command, "--methods", "magic"]) == 2
    assert "magic is neither a file nor a packaged model" in capsys.readouterr().err
    assert main([*command, "--methods", "alista-16"]) == 2
    assert "holds a ALISTA, expected a Reconstructor" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["modl-brain-2d", "unet-brain-2d", "de-grad-brain-2d", "cg-sense", "l1-wavelet"])
def test_reconstruct_takes_every_method(
    name: str, sample: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["reconstruct", str(sample), "--out", str(tmp_path), "--model", name]
    assert main(command) in (0, 5)
    sidecar = json.loads((tmp_path / f"{sample.stem}.json").read_text())
    kind = "certified" if name == "cg-sense" else "none"
    assert sidecar["summary"]["kind"] == sidecar["certificate"]["kind"] == kind
    assert (sidecar["slices"][0]["error_bound"] is None) == (kind == "none")
    if name == "modl-brain-2d":
        assert sidecar["solver"] is None
        assert main([*command, "--tol", "1e-3"]) == 2
        assert "--tol, expected neither" in capsys.readouterr().err


def test_compare_wants_a_fully_sampled_scan(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    kspace = np.ones((3, 24, 20), np.complex64)
    kspace[..., 1::2] = 0
    np.save(tmp_path / "scan.npy", kspace)
    assert main(["compare", str(tmp_path / "scan.npy"), "--methods", "zero-filled"]) == 2
    assert "fully sampled" in capsys.readouterr().err


def test_compare_says_that_a_scan_was_zero_padded(sample: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with h5py.File(sample) as file:
        kspace = file["kspace"][0]
    np.save(tmp_path / "scan.npy", np.pad(kspace, ((0, 0), (0, 0), (4, 4))))
    assert main(["compare", str(tmp_path / "scan.npy"), "--methods", "zero-filled"]) == 2
    message = capsys.readouterr().err
    assert "columns 0 to 3 and 36 to 39 of 40 are zero, as if k-space had been zero-padded" in message
    assert "kspace[..., 4:36]" in message


def test_maps_with_coils_last(model: str, sample: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    np.save(tmp_path / "maps.npy", np.ones((*SHAPE, 4), np.complex64))
    command = ["reconstruct", str(sample), "--out", str(tmp_path / "out"), "--model", model]
    assert main([*command, "--maps", str(tmp_path / "maps.npy")]) == 3
    assert "coils last" in (message := capsys.readouterr().err) and "numpy.moveaxis(array, -1, 0)" in message


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nonsense"],
        ["reconstruct", "x.h5"],
        ["compare", "x.h5", "--methods", "cg-sense,,mol"],
        ["compare", "x.h5", "--accel", "0.5"],
        ["compare", "x.h5", "--noise", "-1"],
        ["compare", "x.h5", "--seed", "1.5"],
        ["compare", "x.h5", "--center-fraction", "nan"],
        ["reconstruct", "x.h5", "--out", "y", "--device", "abacus"],
        ["train", "x", "--out", "y", "--name", "../z"],
        ["reconstruct", "x.h5", "--out", "y", "--max-steps", "0"],
        ["reconstruct", "x.h5", "--out", "y", "--tol", "nought"],
    ],
)
def test_arguments_that_make_no_sense(arguments: list[str], capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 2
    assert "usage: molrecon" in capsys.readouterr().err


def test_more_usage_errors(model: str, sample: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = str(tmp_path / "out")
    occupied = tmp_path / "file"
    occupied.write_text("a file")
    for arguments, message in (
        (["reconstruct", str(sample), "--out", out, "--model", "nothing"], "nothing"),
        (["reconstruct", str(sample), "--out", out, "--model", str(sample)], "not a molrecon model"),
        (["reconstruct", str(sample), "--out", str(sample.parent), "--model", model], "would replace an input"),
        (["reconstruct", str(sample), "--out", str(occupied), "--model", model], "file"),
        (["compare", str(sample), "--accel", "4", "--center-fraction", "0.9", "--model", model], "central columns"),
        (
            ["compare", str(sample), "--accel", "4", "--methods", "cg-sense,mol-brain-3d"],
            "mol-brain-3d has 3 spatial axes",
        ),
        (["info", str(sample), "--json", str(tmp_path / "no" / "x.json")], "there is no folder"),
    ):
        assert main(arguments) == 2
        error = capsys.readouterr().err
        assert message in error and "Traceback" not in error
    assert not (tmp_path / "out").exists()


def test_no_command_replaces_what_it_reads(
    model: str, sample: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    scan, image, card = tmp_path / "scan.h5", tmp_path / "p.png", tmp_path / "own.json"
    scan.write_bytes(sample.read_bytes())
    Image.fromarray(np.arange(33 * 33 * 3, dtype=np.uint8).reshape(33, 33, 3)).save(image)
    (tmp_path / "own.safetensors").write_bytes(Path(model).read_bytes())
    card.write_text("{}")
    (tmp_path / "link.png").symlink_to(image)
    (tmp_path / "hard.png").hardlink_to(image)
    (tmp_path / "p-25.png").symlink_to(image)  # where `cs` writes to unless it is told otherwise
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    monkey = pytest.MonkeyPatch()
    monkey.chdir(tmp_path)
    weights = ["--model", "own.safetensors"]
    for command in (
        ["cs", "--image", "p.png", "--out", "p.png"],
        ["cs", "--image", "p.png", "--out", "link.png"],
        ["cs", "--image", "link.png", "--out", "p.png"],
        ["cs", "--image", "p.png", "--out", "hard.png"],
        ["cs", "--image", "p.png"],
        ["cs", "--image", "p.png", "--out", "new.png", "--json", "p.png"],
        ["compare", "scan.h5", "--json", "scan.h5"],
        ["compare", "scan.h5", *weights, "--json", "own.json"],
        ["compare", "scan.h5", "--maps", "p.png", "--json", "p.png"],
        ["certify", "own.safetensors", "--json", "own.safetensors"],
        ["certify", "own.safetensors", "--data", "scan.h5", "--json", "scan.h5"],
        ["robustness", "scan.h5", "--figure", "scan.h5"],
        ["robustness", "scan.h5", "--models", "own.safetensors", "--json", "own.safetensors"],
        ["reconstruct", "scan.h5", "--out", "."],
    ):
        assert main(command) == 2, command
        assert "would replace an input" in capsys.readouterr().err
    monkey.undo()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_the_demo_replaces_no_scan_but_its_own(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr("molrecon.simulation.sample.write_sample", small_demo)
    command = ["demo", "--out", str(tmp_path), "--model", model, "--device", "cpu"]
    own = tmp_path / "input" / "sample.h5"
    own.parent.mkdir()
    own.write_bytes(b"a scan of mine")
    assert main(command) == 2
    assert "is not the scan that this command makes, expected another --out" in capsys.readouterr().err
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [own]
    assert own.read_bytes() == b"a scan of mine"
    own.unlink()
    for _ in range(2):
        assert main(command) == 0
    assert [path.name for path in own.parent.iterdir()] == ["sample.h5"]


def test_unreadable_maps(model: str, sample: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    command = ["reconstruct", str(sample), "--out", str(tmp_path / "out"), "--model", model]
    assert main([*command, "--maps", str(tmp_path / "maps.npy")]) == 3
    assert "maps.npy" in capsys.readouterr().err


def test_an_empty_folder(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["reconstruct", str(tmp_path), "--out", str(tmp_path / "out"), "--model", model]) == 3
    assert "without volumes" in capsys.readouterr().err


def test_models_and_cards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr("molrecon.weights.available_models", lambda: ["one"])
    monkeypatch.setattr("molrecon.weights.load_card", lambda name: {"data": "none", "steps": 3})
    assert main(["models"]) == 0
    assert capsys.readouterr().out.split() == ["one", "data:", "none", "steps:", "3"]
    assert main(["models", "two"]) == 0
    assert capsys.readouterr().out.split()[0] == "two"
    monkeypatch.undo()
    assert main(["models", "nothing"]) == 2
    assert "neither a file nor a packaged model" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argument", "expected"), [("--help", "5  everything is written"), ("--version", f"(torch {torch.__version__})")]
)
def test_help_and_version(argument: str, expected: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as exit_:
        main([argument])
    assert exit_.value.code == 0
    assert expected in capsys.readouterr().out

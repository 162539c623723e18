"""The examples of compressed sensing run from training to scores, on a few random images."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from examples import cs_alignment, cs_benchmark, cs_gain, cs_images, train_cs, train_gin_mri
from molrecon.io.images import read_image, write_image
from molrecon.sensing.assembly import assemble
from molrecon.sensing.published_ista import load_published_ista
from molrecon.weights import load_card

ONE_THREAD = ("--threads", "1")


@pytest.fixture
def data(tmp_path: Path) -> str:
    rng = np.random.default_rng(0)
    for name, shape in (("t91/t1.bmp", (60, 70, 3)), ("train400/test_001.png", (33, 40)), ("set11/a.tif", (40, 33))):
        path = tmp_path / "data" / "cs" / name
        path.parent.mkdir(parents=True)
        write_image(path, rng.integers(0, 256, shape, np.uint8))
    return str(tmp_path / "data")


def test_training_resumes_and_its_models_are_scored(
    data: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    models = []
    for data_step, all_steps in (("gdm", (2,)), ("gin", (1, 2))):
        out = tmp_path / data_step
        train = ["--data", data, "--out", str(out), "--data-step", data_step, "--ratio", "50", "--stages", "1"]
        train += ["--final-rate", "1"]  # else a longer training is another one
        for steps in all_steps:
            with caplog.at_level(logging.INFO):
                options = [*train, "--steps", str(steps), "--batch", "4", "--device", "cpu", *ONE_THREAD]
                train_cs.run(train_cs.parse(options))
        models.append(out / f"ista-net-plus-{data_step}-50.safetensors")
    assert "resumed at step 1" in caplog.text
    with pytest.raises(ValueError, match=r'data_step "gin" \(expected "gdm"\)'):
        train_cs.run(train_cs.parse([*options, "--data-step", "gdm"]))
    gdm, gin = (load_card(model) for model in models)
    assert gin["steps"] == 2 and gin["parameters"] == gdm["parameters"] + 288
    common = ["--data", data, "--model", str(models[0]), "--model", str(models[1]), "--set", "set11", *ONE_THREAD]
    scores, figure, gain = tmp_path / "scores.json", tmp_path / "figure.png", tmp_path / "gain.png"
    cs_benchmark.main([*common, "--json", str(scores)])
    first, second = json.loads(scores.read_text())["results"]
    assert (first["data_step"], second["data_step"]) == ("gdm", "gin") and first["ratio"] == 50
    assert f"{first['psnr']:.3f}" in capsys.readouterr().out
    curve, table = tmp_path / "curve.png", tmp_path / "table.json"
    cs_gain.main([str(scores), "--figure", str(gain), "--curve", str(curve), "--json", str(table)])
    assert f"{second['psnr'] - first['psnr']:+.3f} ± 0.000" in capsys.readouterr().out
    assert gain.is_file() and curve.is_file()
    stored = json.loads(table.read_text())
    ((host, images, ratio, steps, seeds, *numbers),) = stored["rows"]
    assert (host, images, ratio, steps, seeds) == ("ista-net-plus", "Set11", "50 %", 2, 1)
    held_out = gin["scores"]["validation_psnr_db"] - gdm["scores"]["validation_psnr_db"]
    assert numbers[1] == pytest.approx(held_out, abs=1e-3)
    assert numbers[2:4] == pytest.approx([first["psnr"], second["psnr"] - first["psnr"]], abs=1e-3)
    assert len(stored["columns"]) == len(stored["rows"][0])
    cs_alignment.main([*common, "--figure", str(figure), "--json", str(scores)])
    assert "(gin)" in capsys.readouterr().out and figure.is_file()
    assert all(len(curves["after"]) == 1 for curves in json.loads(scores.read_text()).values())


def test_shared_weights_and_equilibria_are_trained_and_scored(
    data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train = ["--data", data, "--ratio", "50", "--stages", "1", "--steps", "1", "--batch", "2", "--device", "cpu"]
    models = []
    for name, options in (("shared", ["--repeats", "2"]), ("equilibrium", ["--equilibrium", "--half"])):
        train_cs.run(train_cs.parse([*train, "--out", str(tmp_path / name), *options, *ONE_THREAD]))
        models += ["--model", str(tmp_path / name / "ista-net-plus-gin-50.safetensors")]
    assert "fixed point" in load_card(models[3])["model"] and load_card(models[3])["stored"] == "half precision"
    cs_benchmark.main(["--data", data, *models, "--set", "set11", *ONE_THREAD])
    assert capsys.readouterr().out.count("set11") == 2
    with pytest.raises(SystemExit):
        train_cs.parse([*train[:4], "--out", str(tmp_path), "--equilibrium"])
    with pytest.raises(SystemExit):
        train_cs.parse([*train, "--out", str(tmp_path), "--equilibrium", "--precision", "mixed"])


def test_gradients_are_clipped_and_weights_averaged(data: str, tmp_path: Path) -> None:
    train = ["--data", data, "--ratio", "50", "--stages", "1", "--steps", "2", "--batch", "2", "--device", "cpu"]
    cards = []
    for name, options in (("free", []), ("clipped", ["--clip", "1e-12"]), ("averaged", ["--ema", "0.9"])):
        options = [*options, "--precision", "mixed", *ONE_THREAD]
        train_cs.run(train_cs.parse([*train, "--out", str(tmp_path / name), *options]))
        cards.append(load_card(tmp_path / name / "ista-net-plus-gin-50.safetensors"))
    assert [card["clip"] for card in cards] == ["none", 1e-12, "none"]
    assert [card["ema"] for card in cards] == ["none", "none", 0.9]
    assert all(card["precision"] == "mixed" for card in cards)
    free, clipped, averaged = (
        load_file(tmp_path / name / "ista-net-plus-gin-50.safetensors") for name in ("free", "clipped", "averaged")
    )
    start = assemble("ista-net-plus", "gin", n_stages=1).state_dict()
    key = "host.networks.0.forward_1"

    def moved(state: dict[str, torch.Tensor]) -> float:
        return float((state[f"model.{key}"] - start[key]).norm())

    # Adam divides by the gradient's own size, but for its epsilon of 1e-8.
    assert moved(clipped) < 1e-2 * moved(free) and moved(averaged) < moved(free)


@pytest.mark.skipif("MOLRECON_DATA" not in os.environ, reason="MOLRECON_DATA is not set: no published weights here")
def test_published_weights(tmp_path: Path, data: str) -> None:
    (Path(data) / "published").symlink_to(Path(os.environ["MOLRECON_DATA"]) / "published")
    scores = tmp_path / "scores.json"
    ask = ["--published", "--set", "set11", "--ratio", "25", "--json", str(scores), *ONE_THREAD]
    cs_benchmark.main(["--data", data, *ask])
    assert set(json.loads(scores.read_text())) == {"model", "set", "ratio", "psnr", "ssim"}


@pytest.mark.skipif("MOLRECON_DATA" not in os.environ, reason="MOLRECON_DATA is not set: no published weights here")
@pytest.mark.parametrize(("ratio", "published"), [("20", 25), ("25", 25), ("50", 40)])
def test_a_ratio_without_published_weights_starts_from_the_next(tmp_path: Path, ratio: str, published: int) -> None:
    command = ["--data", os.environ["MOLRECON_DATA"], "--out", str(tmp_path), "--ratio", ratio, "--start-published"]
    started = train_cs.build(train_cs.parse(command)).state_dict()
    weights = Path(os.environ["MOLRECON_DATA"]) / "published" / "ista_net_plus" / f"cs_ratio_{published}.pkl"
    expected = load_published_ista(weights, "gin", 1.0).state_dict()
    assert started.keys() == expected.keys() and all(torch.equal(started[key], expected[key]) for key in expected)


@pytest.mark.skipif("MOLRECON_DATA" not in os.environ, reason="MOLRECON_DATA is not set: the real images are not here")
def test_training_on_multi_coil_mri(tmp_path: Path) -> None:
    command = ["--out", str(tmp_path), "--stages", "1", "--steps", "2", "--rows", "24", "--validation-problems", "2"]
    command += ["--clip", "1", "--precision", "mixed", *ONE_THREAD]
    result = train_gin_mri.run(train_gin_mri.parse(command))
    assert result == json.loads((tmp_path / "result.json").read_text())
    assert result["data_step"] == "gin" and result["clip"] == 1.0
    assert set(result["psnr_by_set"]) == {"SIAT T2 brain", "MS brain"}  # problem i is of set i
    assert result["psnr"] == pytest.approx(np.mean(list(result["psnr_by_set"].values()))) and result["psnr"] > 10
    with pytest.raises(SystemExit):
        train_gin_mri.parse([*command, "--rows", "16"])


def test_a_photograph_at_two_ratios(tmp_path: Path) -> None:
    write_image(tmp_path / "photo.png", np.random.default_rng(0).integers(0, 256, (40, 36), np.uint8))
    command = ["--image", str(tmp_path / "photo.png"), "--figure", str(tmp_path / "figure.png")]
    cs_images.main([*command, "--ratios", "10", "50", "--part", "4", "4", "16"])
    assert read_image(tmp_path / "figure.png").shape[1] > 500

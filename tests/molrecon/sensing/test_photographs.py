"""`molrecon cs`, and what it is made of, on small images with an imager that measures everything."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from molrecon.command.parser import main
from molrecon.io.images import read_image, write_image
from molrecon.sensing.assembly import assemble
from molrecon.sensing.find_imager import find_imager
from molrecon.sensing.imager import BlockImager
from molrecon.sensing.photographs import sense_photograph
from molrecon.weights import save
from operators import orthonormal_matrix

IMAGE = np.random.default_rng(0).integers(0, 256, (20, 40, 3), np.uint8)


def imager(measurements: int) -> BlockImager:
    """Return one whose networks say nothing: the image is the start, Phi^T y."""
    model = assemble("ista-net-plus", "gin", n_stages=1)
    with torch.no_grad():
        dict(model.named_parameters())["host.networks.0.conv_g"].zero_()
    return BlockImager(model, orthonormal_matrix(measurements, 1089, seed=0).float()).eval()


@pytest.fixture
def model(tmp_path: Path) -> str:
    path = tmp_path / "imager.safetensors"
    save(imager(272), path, {})
    return str(path)


@pytest.mark.parametrize("image", [IMAGE, IMAGE[..., 0]], ids=["colour", "grey"])
def test_an_image_that_is_measured_completely_comes_back(image: np.ndarray) -> None:
    result = sense_photograph(image, imager(1089))
    np.testing.assert_array_equal(result.image, image)
    assert result.psnr > 80 and result.ssim == pytest.approx(1)
    assert result.measurements == (image.size // (20 * 40)) * 2 * 1089


def test_errors() -> None:
    with pytest.raises(TypeError, match="float64, expected uint8"):
        sense_photograph(IMAGE / 255, imager(7))
    for shape in ((20, 40, 4), (20,), (6, 40)):
        with pytest.raises(ValueError, match=r"expected \(rows, cols\)"):
            sense_photograph(np.zeros(shape, np.uint8), imager(7))


def test_command(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_image(tmp_path / "in.png", IMAGE)
    command = ["cs", "--image", str(tmp_path / "in.png"), "--ratio", "25", "--model", model, "--device", "cpu"]
    assert main([*command, "--json", "numbers.json"]) == 0
    printed = capsys.readouterr().out
    numbers = json.loads((tmp_path / "numbers.json").read_text())
    assert f"PSNR {numbers['psnr']:.2f} dB" in printed and "1632 numbers measured of 2400" in printed
    restored = read_image(tmp_path / "in-25.png")
    assert restored.shape == IMAGE.shape
    error = float(np.square(restored.astype(float) - IMAGE).mean())
    assert 10 * np.log10(255**2 / error) == pytest.approx(numbers["psnr"], abs=0.05)
    assert main([*command, "--json", "-", "--out", str(tmp_path / "out.bmp")]) == 0
    assert json.loads(capsys.readouterr().out)["psnr"] == numbers["psnr"]


def test_command_refuses(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = str(tmp_path / "in.png")
    assert main(["cs", "--image", image, "--model", model]) == 3
    write_image(image, IMAGE)
    assert main(["cs", "--image", image, "--model", model, "--ratio", "10"]) == 2
    assert "expected 109" in capsys.readouterr().err
    assert main(["cs", "--image", image, "--model", model, "--out", str(tmp_path / "x.xyz")]) == 2
    assert main(["cs", "--image", image, "--model", str(tmp_path / "none")]) == 2
    with pytest.raises(ValueError, match=r"expected .*cs_ratio_10\.pkl"):
        find_imager("folder/cs_ratio_25.pkl", 10)
    with pytest.raises(FileNotFoundError, match=r"imager for 40 %, expected one of ista-net-plus-gdm-10, .*gin-50$"):
        find_imager("ista-net-plus-gin", 40)

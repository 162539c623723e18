"""The comparison of equally trained methods: what it measures of one small slice, its tables and its picture."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from examples import compare_methods
from examples._families import Case, Family, volume
from molrecon.simulation.phantom import phantom_volume
from molrecon.weights import weights_path
from operators import random_mask

CASE = "phantom, random 4x"


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """Return packaged weights under names of this comparison, in a world of one slice."""
    image = phantom_volume(1, (48, 48))[0]
    coil_images = np.stack([image, 0.5j * image[::-1]]) * 100

    def cases() -> Iterator[Case]:
        yield Case(CASE, volume(coil_images), random_mask(48, 4, 0.25, 0), 0.5, 0)

    monkeypatch.setattr(compare_methods, "families", lambda data: [Family("phantom", True, cases)])
    monkeypatch.setattr(compare_methods, "SHOWN", {"phantom": 0})
    baselines = tmp_path / "baselines.json"
    baselines.write_text(json.dumps({f"{CASE} [0123456789abcdef]": {"BART": 20.0}}))
    monkeypatch.setattr(compare_methods, "BASELINES", baselines)
    files = {}
    for name, packaged in {"unet-1": "unet-brain-2d", "mol-1": "mol-brain-2d", "mol-2": "mol-brief-brain-2d"}.items():
        source = weights_path(packaged)
        files[name] = tmp_path / f"{name}.safetensors"
        shutil.copy(source, files[name])
        shutil.copy(source.with_suffix(".json"), files[name].with_suffix(".json"))
    return files


def test_methods_are_measured_one_after_the_other(weights: dict[str, Path], tmp_path: Path) -> None:
    scores, figure = tmp_path / "scores.json", tmp_path / "figure.png"
    common = ["--data", str(tmp_path), "--json", str(scores), "--figure", str(figure)]
    compare_methods.main([*common, "--weights", str(weights["unet-1"])])
    compare_methods.main([*common, "--weights", str(weights["mol-1"]), str(weights["mol-2"])])
    results, slices = json.loads(scores.read_text()), json.loads((tmp_path / "scores_slices.json").read_text())
    titles = [column["title"] for column in results["scores"]["columns"]]
    unet, mol = (dict(zip(titles, row, strict=True)) for row in results["scores"]["rows"])
    assert (unet["method"], unet["seeds"], mol["method"], mol["seeds"]) == ("U-Net", "1", "MOL strict", "2")
    lead = "lead over BART l1, mean of families, dB"
    of_seeds = [slices[name]["scores"]["phantom"][CASE]["psnr"] - 20 for name in ("mol-1", "mol-2")]
    assert mol[lead]["mean"] == pytest.approx(np.mean(of_seeds), abs=1e-3)
    assert mol[lead]["spread"] == pytest.approx(np.std(of_seeds), abs=1e-3)
    assert isinstance(unet[lead], float)
    assert unet["parameters"] > 40_000 and unet["training, MB"] > 0
    assert results["families"]["rows"][1][0] == "MOL strict"
    assert figure.stat().st_size > 0


def test_the_worst_case_is_measured_where_it_is_asked_for(weights: dict[str, Path], tmp_path: Path) -> None:
    scores = tmp_path / "scores.json"
    compare_methods.main(
        ["--data", str(tmp_path), "--json", str(scores), "--weights", str(weights["unet-1"]), "--worst-case"]
    )
    ((before, after),) = json.loads((tmp_path / "scores_slices.json").read_text())["unet-1"]["worst_case"].values()
    assert after < before


def test_other_names_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        compare_methods.parse(["--data", "x", "--weights", "resnet-1.safetensors"])
    assert "resnet-1.safetensors: expected METHOD-SEED.safetensors" in capsys.readouterr().err

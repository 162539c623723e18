"""A model's folder for a hub: the hub's own library reads the page, `load` the weights, and nothing is overwritten."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from molrecon.command.parser import main
from molrecon.networks import ResidualNetwork
from molrecon.reconstructors.mol import MOL
from molrecon.weights import available_models, load, load_card, save
from molrecon.weights.export import CONFIG_FILE, PAGE_FILE, WEIGHTS_FILE, export_models
from molrecon.weights.model_page import model_page

NAMES = ("mol-guided-2d", "modl-brain-2d", "alista-16", "ista-net-plus-gin-25")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export") / "models"
    assert main(["models", "--export", str(folder), *NAMES]) == 0
    return folder


@pytest.mark.parametrize("name", NAMES)
def test_the_weights_load(name: str, exported: Path) -> None:
    folder = exported / name
    assert sorted(path.name for path in folder.iterdir()) == sorted((WEIGHTS_FILE, CONFIG_FILE, PAGE_FILE))
    model, packaged = load(folder / WEIGHTS_FILE), load(name)
    assert type(model) is type(packaged)
    weights, expected = model.state_dict(), packaged.state_dict()
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[key], expected[key]) for key in weights)
    config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    assert config["architectures"] == [type(model).__name__] and config["card"] == load_card(name)


def read_page(text: str):
    hub = pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")
    return hub.ModelCard(text).data


@pytest.mark.parametrize("name", available_models())
def test_the_hub_reads_every_page(name: str, exported: Path) -> None:
    card = load_card(name)
    mri = "MRI" in card.get("model", "")
    text = model_page(name, card, tags=["mri"] if mri else ["a: tag"], properties={"class": "x"})
    data = read_page(text)
    assert data.library_name == "molrecon" and data.license in ("mit", "other")
    assert (data.license == "mit") == (card["licence"] == "data: none needed")
    assert data.pipeline_tag == ("image-to-image" if "model" in card else None)
    assert data.eval_results and {result.metric_type for result in data.eval_results} <= {"psnr", "ssim", "nmse"}
    assert data.model_name == name
    for value in card["scores"].values():
        last = value[-1] if isinstance(value, list) else value
        assert isinstance(last, dict) or str(last) in text


def test_the_hub_loads_the_file(exported: Path) -> None:
    hub = pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")
    card = hub.ModelCard.load(exported / "mol-guided-2d" / PAGE_FILE)
    assert card.data.tags == ["inverse-problems", "mri", "medical-imaging", "image-reconstruction", "mol"]
    for result, key in zip(card.data.eval_results, ("validation_psnr_db", "validation_wrapped_psnr_db"), strict=True):
        assert result.task_type == "image-to-image" and result.metric_type == "psnr"
        assert result.metric_value == load_card("mol-guided-2d")["scores"][key]
    assert "| certificate | certified |" in card.content and "molrecon reconstruct" in card.content
    # The hub writes the same YAML back, so nothing of it was misread.
    assert hub.ModelCardData(**{k: v for k, v in card.data.to_dict().items() if k != "model-index"}).license == "other"


def test_what_yaml_would_misread() -> None:
    card = {"model": 'a: "b" # c | d\ne', "licence": "Grüße: {x}", "scores": {"validation_psnr_db": 1e-7}}
    text = model_page("no", card, tags=["yes", "1.5", "é: # [x]"], properties={})
    data = read_page(text)
    assert data.tags == ["yes", "1.5", "é: # [x]"] and data.model_name == "no"
    assert data.eval_results is not None and data.eval_results[0].metric_value == 1e-7
    assert '| model | a: "b" # c \\| d e |' in text
    assert read_page(model_page("n", {}, tags=["x"], properties={})).eval_results is None


def test_nothing_is_overwritten(exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network = ResidualNetwork(monotonicity=0.2, channels=2, features=4, levels=1, cycles=1)
    save(MOL(network), tmp_path / "own.safetensors", {"data": "none"})
    own, out = str(tmp_path / "own.safetensors"), tmp_path / "out"
    page = out / "own" / PAGE_FILE
    page.parent.mkdir(parents=True)
    page.write_text("my notes")
    assert main(["models", "--export", str(out), "alista-16", own]) == 2
    assert f"{page}: is there, and differs" in capsys.readouterr().err
    assert [path for path in out.rglob("*") if path.is_file()] == [page] and page.read_text() == "my notes"
    page.unlink()
    for _ in range(2):
        assert main(["models", "--export", str(out), "alista-16", own]) == 0
    assert isinstance(load(out / "own" / WEIGHTS_FILE), MOL)
    assert len([path for path in out.rglob("*") if path.is_file()]) == 6


def test_what_cannot_be_exported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.safetensors").write_bytes(b"x")
    for names, message in (
        (["nothing"], "neither a file nor a packaged model"),
        (["alista-16", "alista-16"], "alista-16 more than once"),
        ([str(tmp_path / "x.safetensors")], "not a molrecon model"),
    ):
        assert main(["models", "--export", str(tmp_path / "out"), *names]) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    with pytest.raises(ValueError, match="expected models of different names"):
        export_models(["alista-16"] * 2, tmp_path)

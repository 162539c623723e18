"""GLOW-Prox files: saved and loaded, wrong ones refused, the packaged ones do what their cards say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from molrecon.descent.glow import Glow
from molrecon.descent.glow_prox import GlowProx
from molrecon.descent.inpainting import biharmonic_fill, inpainting_score
from molrecon.descent.inpainting_problems import FACE_SIZE, evaluation_batches, shipped_faces
from molrecon.reconstructors.base import Reconstructor
from molrecon.weights import available_models, load, load_card, save
from operators import Inpainting

pytest.importorskip("normflows")


def test_round_trip(tmp_path: Path) -> None:
    model = GlowProx(channels=3, n_layers=2, levels=1, blocks=1, features=4, seed=9)
    images = torch.rand(8, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    operator = Inpainting((torch.arange(64) % 3 > 0).reshape(1, 1, 8, 8))
    model.calibrate(operator(images), operator)
    path = tmp_path / "inpainter.safetensors"
    save(model, path, {"seed": 9})
    loaded = load(path, GlowProx)
    assert not loaded.training
    assert loaded.settings() == model.settings()
    assert torch.equal(loaded(operator(images), operator), model(operator(images), operator))
    assert load_card(path) == {"seed": 9}
    with pytest.raises(ValueError, match=r"a name that ends in \.safetensors"):
        save(model, tmp_path / "inpainter.pt", {})
    with pytest.raises(ValueError, match="holds a GlowProx, expected a Reconstructor"):
        load(path, Reconstructor)


def test_other_files(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    name = "molrecon.descent.glow_prox:GlowProx"
    wrong: list[dict[str, object]] = [
        {"class": name},
        {"class": name, "settings": {"levels": 0}},
        {"class": name, "settings": {"colour": 1}},
        {"class": name, "settings": {}},
    ]
    for settings in wrong:
        save_file({"weight": torch.zeros(2)}, path, metadata={"molrecon": json.dumps(settings)})
        with pytest.raises(
            ValueError, match=r"(?s)other\.safetensors: not a molrecon model .*expected a file written by"
        ):
            load(path, GlowProx)
    path.write_text("text", encoding="utf-8")
    with pytest.raises(ValueError, match="not a molrecon model"):
        load(path, GlowProx)
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "missing.safetensors", GlowProx)


@pytest.mark.parametrize("name", available_models(GlowProx))
def test_packaged(name: str) -> None:
    model, card = load(name, GlowProx), load_card(name)
    assert {"data", "split", "steps", "seed", "licence"} <= card.keys()
    assert card["intended_use"] == "research use"
    faces = shipped_faces()
    [validation] = evaluation_batches(faces.validation, FACE_SIZE)
    [test] = evaluation_batches(faces.test, FACE_SIZE)
    with torch.no_grad():
        restored = [model(batch.measurements, batch.operator) for batch in (validation, test)]
        flow = model.flows[0]
        assert isinstance(flow, Glow)
        image = test.measurements[:, None]
        torch.testing.assert_close(flow.decode(flow.encode(image)), image, atol=1e-5, rtol=0)
    found = inpainting_score(validation.images, restored[0], validation.operator.known)
    assert found.hole_psnr == pytest.approx(card["scores"]["validation_hole_psnr_db"], abs=0.01)
    found = inpainting_score(test.images, restored[1], test.operator.known)
    biharmonic = biharmonic_fill(test.measurements, test.operator)
    assert found.hole_psnr > inpainting_score(test.images, biharmonic, test.operator.known).hole_psnr

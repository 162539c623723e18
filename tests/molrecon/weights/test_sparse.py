"""Networks of sparse codes survive saving, nearly so in half precision; packaged ones score as their cards say."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from molrecon.descent.lista import ALISTA, LISTA, LISTACP, CodeNetwork, SupportSelection
from molrecon.descent.sparse import pooled_nmse_db
from molrecon.descent.sparse_problems import TEST, BernoulliGaussian, gaussian_dictionary, stream
from molrecon.weights import available_models, load, load_card, save, weights_path
from operators import Dense

DICTIONARY = gaussian_dictionary(20, 40)
NETWORKS = [
    LISTA(DICTIONARY, 3, tied=True),
    LISTACP(DICTIONARY, 3, selection=SupportSelection(0.05, 0.1)),
    ALISTA(DICTIONARY, 3, selection=SupportSelection()),
]


@pytest.mark.parametrize("model", NETWORKS, ids=lambda model: type(model).__name__)
def test_round_trip(model: CodeNetwork, tmp_path: Path) -> None:
    with torch.no_grad():
        model.log_threshold[1] = -7.654321
    path = tmp_path / "x.safetensors"
    save(model, path, {"name": "x"})
    loaded = load(path, CodeNetwork)
    assert type(loaded) is type(model) and loaded.settings() == model.settings() and not loaded.training
    assert torch.equal(loaded.dictionary, DICTIONARY) and load_card(path) == {"name": "x"}
    _, measurements = BernoulliGaussian(DICTIONARY).draw(5, stream(0, TEST))
    whole = model(measurements, Dense(DICTIONARY))
    assert torch.equal(loaded(measurements, Dense(loaded.dictionary)), whole)
    save(model, path, {}, half=True)
    rounded = load(path, CodeNetwork)
    assert rounded.log_threshold[1] == model.log_threshold[1]
    torch.testing.assert_close(rounded(measurements, Dense(rounded.dictionary)), whole, rtol=0, atol=0.02)


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"ends in \.safetensors"):
        save(NETWORKS[0], tmp_path / "x.pt", {})
    save_file({"a": torch.zeros(1)}, tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match="not a molrecon model"):
        load(tmp_path / "x.safetensors")
    with pytest.raises(FileNotFoundError, match="neither a file nor a packaged model"):
        load("nothing")


@pytest.mark.parametrize("name", available_models(CodeNetwork))
def test_packaged_networks(name: str) -> None:
    assert weights_path(name).stat().st_size < 2e6
    model = load(name, CodeNetwork)
    dictionary = model.dictionary
    card = load_card(name)
    assert {"data", "split", "steps", "seed", "licence"} <= card.keys() and card["intended_use"] == "research use"
    pooled = card["scores"].get("test_pooled_nmse_db_by_layer")
    if pooled is not None:
        codes, measurements = BernoulliGaussian(dictionary, snr_db=card["snr_db"]).draw(200, stream(0, TEST))
        with torch.no_grad():
            found = pooled_nmse_db(model(measurements, Dense(dictionary)), codes)
        assert found == pytest.approx(pooled[-1], abs=4)  # of fewer codes, and hard ones count

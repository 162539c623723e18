"""Networks of sparse codes survive saving, in half precision almost; packaged ones are whole and as good as told."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from molrecon.sparse import pooled_nmse_db
from molrecon.training.sparse_problems import TEST, BernoulliGaussian, gaussian_dictionary, stream
from molrecon.unrolled.lista import ALISTA, LISTA, LISTACP, CodeNetwork, SupportSelection
from molrecon.weights import FOLDER, load_card
from molrecon.weights.sparse import available_code_networks, load_code_network, save_code_network
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
    save_code_network(model, DICTIONARY, path, {"name": "x"})
    loaded, dictionary = load_code_network(path)
    assert type(loaded) is type(model) and loaded.settings() == model.settings() and not loaded.training
    assert torch.equal(dictionary, DICTIONARY) and load_card(path) == {"name": "x"}
    _, measurements = BernoulliGaussian(DICTIONARY).draw(5, stream(0, TEST))
    whole = model(measurements, Dense(DICTIONARY))
    assert torch.equal(loaded(measurements, Dense(dictionary)), whole)
    save_code_network(model, DICTIONARY, path, {}, half=True)
    rounded, dictionary = load_code_network(path)
    assert rounded.log_threshold[1] == model.log_threshold[1]
    torch.testing.assert_close(rounded(measurements, Dense(dictionary)), whole, rtol=0, atol=0.02)


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"ends in \.safetensors"):
        save_code_network(NETWORKS[0], DICTIONARY, tmp_path / "x.pt", {})
    save_file({"a": torch.zeros(1)}, tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match="not a network of sparse codes"):
        load_code_network(tmp_path / "x.safetensors")
    with pytest.raises(FileNotFoundError, match="neither a file nor a packaged model"):
        load_code_network("nothing")


@pytest.mark.parametrize("name", available_code_networks())
def test_packaged_networks(name: str) -> None:
    assert (FOLDER / f"{name}.safetensors").stat().st_size < 2e6
    model, dictionary = load_code_network(name)
    card = load_card(name)
    assert {"data", "split", "steps", "seed", "licence"} <= card.keys() and card["intended_use"] == "research use"
    told = card["scores"].get("test_pooled_nmse_db_by_layer")
    if told is not None:
        codes, measurements = BernoulliGaussian(dictionary, snr_db=card["snr_db"]).draw(200, stream(0, TEST))
        with torch.no_grad():
            found = pooled_nmse_db(model(measurements, Dense(dictionary)), codes)
        assert found == pytest.approx(told[-1], abs=4)  # of fewer codes, and hard ones count

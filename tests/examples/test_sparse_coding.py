"""The examples of sparse coding run from training to tables and figures, at a small size."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from examples import sparse_coding, train_sparse_coding
from molrecon.descent.lista import CodeNetwork
from molrecon.weights import load, load_card


def test_training_and_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    small = ["--measurements", "20", "--atoms", "40", "--layers", "3", "--steps", "4", "--threads", "1"]
    models = []
    for network, more in (("lista-cpss-tied", ["--snr", "20"]), ("alista", [])):
        out = tmp_path / network
        train_sparse_coding.run(train_sparse_coding.parse(["--network", network, "--out", str(out), *small, *more]))
        models.append(out / f"{network}.safetensors")
    model = load(models[0], CodeNetwork)
    dictionary = model.dictionary
    card = load_card(models[0])
    assert model.n_layers == 3 and dictionary.shape == (20, 40)
    assert card["parameters"] == 20 * 40 + 6 and len(card["scores"]["test_pooled_nmse_db_by_layer"]) == 3
    distance = [{"mean": x, "spread": 0.1, "each": [x, x, x]} for x in (1.0, 0.5, 0.1)]
    summary = tmp_path / "arms.json"
    summary.write_text(json.dumps({"constrained": {"conditions": {"unseen": {"distance": distance}}}}))
    figure, table = tmp_path / "figure.png", tmp_path / "table.json"
    monkeypatch.setattr(sparse_coding, "PATCHES", 10)
    arguments = [item for model in models for item in ("--model", str(model))]
    sparse_coding.main([*arguments, "--arms", str(summary), "--figure", str(figure), "--json", str(table)])
    printed = capsys.readouterr().out
    assert "constrained, 3 seeds" in printed and "20 dB SNR" in printed and figure.is_file()
    curves = json.loads(table.read_text())
    assert curves["NMSE (pooled), no noise"].keys() >= {"ISTA", "FISTA", "alista/alista"}
    distances = curves["distance to the lasso's optimum, patches"]
    of_arms = curves[f"{tmp_path.name}, mean over seeds"]
    assert of_arms["constrained, 3 seeds"] == pytest.approx([0, -6.021, -20])
    assert distances["FISTA"][-1] < distances["ISTA"][-1] < 0

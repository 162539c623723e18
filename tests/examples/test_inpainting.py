"""examples/train_inpainting.py and examples/inpainting.py on scikit-image's faces, with a tiny network."""

from __future__ import annotations

from pathlib import Path

import pytest

from examples.inpainting import main
from examples.train_inpainting import parse, run

pytest.importorskip("cooper")
pytest.importorskip("normflows")


def test_train_and_show(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny = ["--levels", "1", "--blocks", "1", "--features", "4", "--steps", "2", "--batch", "4", "--threads", "1"]
    models = []
    for seed in ("0", "1"):
        arguments = parse(
            ["--out", str(tmp_path / seed), "--constrained", "--layer-noise", "0.1", "--seed", seed, *tiny]
        )
        models.append(str(run(arguments)))
    main(["--model", *models, "--out", str(tmp_path / "figures")])
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("| biharmonic") for line in lines) == 2
    rows = [line for line in lines if line.startswith("| GLOW-Prox constrained + noise |")]
    assert len(rows) == 3
    assert all("±" in row for row in rows)
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {"inpainting.png", "inpainting_layers.png"}

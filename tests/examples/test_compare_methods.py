"""The comparison runs on a small stand-in for the SIAT slices, and every method that has weights is in its results."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from molrecon.simulation.phantom import phantom_volume

SCRIPT = Path(__file__).parents[2] / "examples" / "compare_methods.py"
N_SLICES, N = 200, 48


def test_compare_methods_scores_every_method_and_draws(tmp_path: Path) -> None:
    (tmp_path / "mri").mkdir()
    image = phantom_volume(1, (N, N))[0]
    parts = np.stack([image.real, image.imag]) / np.abs(image).max() * 32767
    np.savez(tmp_path / "mri" / "siat200_256_reim_i16.npz", x=np.tile(parts.astype("i2"), (N_SLICES, 1, 1, 1)))
    command = [sys.executable, str(SCRIPT), "--data", str(tmp_path), "--slices", "1", "--brain-masks", "0"]
    command += ["--json", str(tmp_path / "scores.json"), "--figure", str(tmp_path / "figure.png"), "--threads", "1"]
    answer = subprocess.run(command, check=False, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    results = json.loads((tmp_path / "scores.json").read_text())
    assert set(results["scores"]) == {"SIAT 4x", "SIAT 8x"}
    scores = results["scores"]["SIAT 4x"]
    assert {"zero-filled", "CG-SENSE", "L1-wavelet", "MoDL, 10 unrolls", "MOL strict"} <= set(scores)
    assert scores["MOL strict"]["mean"][0] > scores["zero-filled"]["mean"][0]
    cost = results["parameters and training memory, MB"]
    assert set(cost) == set(scores) - {"zero-filled", "CG-SENSE", "L1-wavelet"}
    assert (tmp_path / "figure.png").stat().st_size > 0

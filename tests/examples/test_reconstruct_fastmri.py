from __future__ import annotations

from pathlib import Path

import pytest

from examples.reconstruct_fastmri import run, sample_volume
from molrecon.io import read_volume
from molrecon.networks import ResidualNetwork
from molrecon.reconstructors.mol import MOL
from molrecon.simulation.phantom import write_phantom
from molrecon.weights import save


def small(path: Path) -> Path:
    return write_phantom(path, slices=1, coils=4, shape=(48, 100))


@pytest.fixture
def model(tmp_path: Path) -> str:
    path = tmp_path / "untrained.safetensors"
    network = ResidualNetwork(monotonicity=0.2, channels=2, features=4, levels=1, cycles=1)
    save(MOL(network), path, {})
    return str(path)


def test_with_a_path(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    result = run(str(small(tmp_path / "scan.h5")), tmp_path, model)
    assert result.converged.all()
    assert (tmp_path / "scan.nii.gz").is_file()
    output = capsys.readouterr().out
    assert "slice 0: within" in output and "PSNR" in output


def test_without_a_path(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr("examples.reconstruct_fastmri.write_sample", small)
    assert sample_volume().kspace.shape == read_volume(small(tmp_path / "x.h5")).kspace.shape
    run(None, tmp_path, model)
    assert (tmp_path / "sample.nii.gz").is_file()
    assert "the model is certified" in capsys.readouterr().out

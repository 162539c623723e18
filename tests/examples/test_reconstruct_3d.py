"""The 3D example writes a volume and a picture, and a memory budget does not change the result."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest

from examples.reconstruct_3d import make_sample, run
from molrecon.networks import ResidualNetwork
from molrecon.reconstructors.mol import MOL
from molrecon.simulation.phantom import voxel_size
from molrecon.weights import save

SHAPE = (24, 32, 40)


@pytest.fixture
def model(tmp_path: Path) -> str:
    path = tmp_path / "untrained.safetensors"
    network = ResidualNetwork(ndim=3, monotonicity=0.2, channels=2, features=4, levels=1, cycles=1)
    save(MOL(network), path, {})
    return str(path)


def test_sample_leaves_the_readout_alone():
    sample = make_sample(SHAPE)
    assert sample.reference.shape == (1, 32, 24, 40)
    assert sample.operator.sampling_mask.shape == (1, 1, 24, 40)
    assert sample.operator.chunk_axis == 1
    noise = sample.kspace - sample.operator(sample.reference)
    measured = noise[sample.operator.sampling_mask[:, None].expand_as(noise)]
    assert measured.abs().square().mean().sqrt() == pytest.approx(float(sample.noise_level), rel=0.05)


def test_volume_and_picture(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    images = run(tmp_path / "out", model, shape=SHAPE)
    output = capsys.readouterr().out
    assert "zero-filled" in output and "CG-SENSE" in output and "MOL is within" in output and "(certified)" in output
    volume = nibabel.Nifti1Image.from_filename(tmp_path / "out" / "volume.nii.gz")
    np.testing.assert_array_equal(np.asarray(volume.dataobj).T, images["MOL"])
    row, col, through = voxel_size(24, (32, 40))
    assert volume.header.get_zooms() == pytest.approx((col, row, through))
    assert (tmp_path / "out" / "reconstruct_3d.png").stat().st_size > 10_000

    tiled = run(tmp_path / "tiled", model, memory="1GiB", shape=SHAPE)
    assert "memory: " in capsys.readouterr().out
    np.testing.assert_allclose(tiled["MOL"], images["MOL"], atol=2e-3)

"""The dynamic example writes a series with its time step, a picture and an animation."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from examples.reconstruct_dynamic import FRAME_SECONDS, make_sample, moving_head, run
from molrecon.networks import ResidualNetwork
from molrecon.reconstructors.mol import MOL
from molrecon.weights import save

SHAPE = (6, 40, 36)


def test_chamber_beats_and_contrast_arrives():
    series = np.abs(moving_head((12, 64, 56)))
    centre = series[:, 34, 26]
    assert centre[-1] > 2 * centre[0]
    assert np.abs(np.diff(series, axis=0)).max(axis=(1, 2)).min() > 0.02
    corner = series[:, :5, :5]
    np.testing.assert_allclose(corner, corner[:1].repeat(12, 0), rtol=0.2, atol=0.02)


def test_sample_measures_an_eighth_of_the_columns_of_every_frame():
    sample = make_sample((6, 40, 48))
    mask = sample.operator.sampling_mask
    assert mask.shape == (1, 6, 1, 48)
    assert (mask.sum((2, 3)) == 6).all()
    assert sample.kspace.shape == (1, 8, 6, 40, 48)


def test_series_picture_and_animation(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / "untrained.safetensors"
    save(MOL(ResidualNetwork(ndim=3, monotonicity=0.2, channels=2, features=4, levels=1, cycles=1)), path, {})
    images = run(tmp_path / "out", str(path), shape=SHAPE)
    output = capsys.readouterr().out
    assert "CG-SENSE" in output and "MOL is within" in output
    series = nibabel.Nifti1Image.from_filename(tmp_path / "out" / "series.nii.gz")
    assert series.shape == (36, 40, 1, 6)
    np.testing.assert_array_equal(np.asarray(series.dataobj).T[:, 0], images["MOL"])
    assert series.header.get_zooms()[3] == pytest.approx(FRAME_SECONDS)
    assert series.header.get_xyzt_units() == ("mm", "sec")
    assert (tmp_path / "out" / "reconstruct_dynamic.png").stat().st_size > 10_000
    with Image.open(tmp_path / "out" / "reconstruct_dynamic.gif") as animation:
        animation.seek(5)  # the last of six frames
        assert animation.size == (2 * 36 * 5, 2 * 40)

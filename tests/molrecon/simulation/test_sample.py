from __future__ import annotations

import os
from importlib.resources import files
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from ismrmrd import xsd

from data_scripts.crop_colin27 import SOURCE, cropped
from molrecon.io import center_crop, read_volume
from molrecon.scans.data_checks import check_slice
from molrecon.simulation.phase import residual_angle
from molrecon.simulation.sample import VOXEL_SIZE, sample_image, sample_maps, write_sample
from operators import Sense, random_mask
from operators.fourier import centred_fft, centred_ifft

PACKAGE = files("molrecon.simulation")


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sample(tmp_path_factory.mktemp("sample") / "sample.h5", slices=2, coils=4, seed=3)


def test_volume_has_the_fastmri_layout(sample: Path):
    with h5py.File(sample) as file:
        assert set(file) == {"kspace", "reconstruction_rss", "ismrmrd_header"}
        assert file["kspace"].shape == (2, 4, 432, 200) and file["kspace"].dtype == np.complex64
        assert set(file.attrs) == {"acquisition", "max", "norm", "patient_id", "noise_level"}
        assert file.attrs["patient_id"] == "colin27-3"
        header = xsd.CreateFromDocument(file["ismrmrd_header"][()])
    assert header.encoding[0].reconSpace.matrixSize.x == 216
    volume = read_volume(sample)
    assert volume.fully_sampled and volume.recon_shape == (216, 200) and volume.voxel_size == VOXEL_SIZE
    images = center_crop(centred_ifft(torch.from_numpy(volume.kspace), (-2, -1)).abs().numpy(), (216, 200))
    assert volume.reference is not None
    np.testing.assert_allclose(volume.reference, np.sqrt((images**2).sum(1)), rtol=1e-4, atol=1e-5)


def test_kspace_is_maps_times_image_plus_noise_of_the_stated_level(sample: Path):
    padded = np.zeros((2, 4, 432, 200), np.complex64)
    padded[:, :, 108:324] = sample_maps(2, 4, seed=3) * sample_image(2, seed=3)[:, None]
    noise = read_volume(sample).kspace - centred_fft(torch.from_numpy(padded), (-2, -1)).numpy()
    assert np.sqrt(np.mean(np.abs(noise) ** 2)) == pytest.approx(0.01, rel=0.02)
    assert abs(np.mean(noise**2)) < 0.02 * 0.01**2  # circular


def test_same_arguments_same_bytes_other_seed_other_scan_of_the_same_head(sample: Path, tmp_path: Path):
    again, other = (write_sample(tmp_path / f"{seed}.h5", slices=2, coils=4, seed=seed) for seed in (3, 4))
    assert again.read_bytes() == sample.read_bytes() != other.read_bytes()
    first, second = sample_image(1, 3), sample_image(1, 4)
    np.testing.assert_allclose(np.abs(first), np.abs(second), atol=1e-6)
    assert np.abs(first - second).max() > 0.1


def test_it_looks_like_a_head():
    image = sample_image()
    magnitude = np.abs(image)
    assert image.shape == (8, 216, 200) and image.dtype == np.complex64
    assert magnitude.max() == pytest.approx(1)
    border = np.concatenate([magnitude[:, [0, -1]].ravel(), magnitude[:, :, [0, -1]].ravel()])
    assert not border.any()  # the whole head is in the field of view
    white = magnitude[-1, 80:140, 50:85]
    ventricle = magnitude[4, 85:95, 92:96]
    assert 0.5 < np.median(white) < 0.7 and ventricle.max() < 0.5
    assert np.abs(magnitude - magnitude[:, :, ::-1]).mean() < 0.5 * magnitude.mean()  # the midline is in the middle
    assert np.abs(np.diff(magnitude, axis=0)).mean() > 0.01


def test_its_phase_is_rough_where_the_tissue_is():
    for image in sample_image()[::3]:
        rough = np.abs(residual_angle(image)[np.abs(image) > 0.3])
        assert 0.04 < np.median(rough) < 0.08 and 0.1 < np.quantile(rough, 0.9) < 0.3  # as measured brains have it
        assert np.ptp(np.angle(image)[np.abs(image) > 0.3]) > 1


def test_its_calibration_region_needs_one_set_of_maps():
    # Without air beside the scalp it would need two (0.0034 of the energy): the region resolves 13 pixels.
    maps, image = (torch.from_numpy(x) for x in (sample_maps(1), sample_image(1)[:, None]))
    kspace = centred_fft(maps * image, (-2, -1))
    mask = torch.as_tensor(random_mask(200, 4.0, 0.08, 0))[None, None]
    operator = Sense(maps / torch.linalg.vector_norm(maps, dim=1, keepdim=True), mask)
    measured = operator.sampling(kspace)
    checks = check_slice(measured, operator, 0.01, operator.adjoint(measured))
    assert checks.second_set_energy < 1e-3 and checks.second_set_pixels < 0.1


def test_fewer_slices_are_the_middle_ones():
    np.testing.assert_allclose(np.abs(sample_image(3)), np.abs(sample_image())[3:6], atol=1e-6)


@pytest.mark.parametrize(
    "arguments", [{"slices": 0}, {"slices": 9}, {"coils": 0}, {"noise_level": -1.0}, {"noise_level": float("nan")}]
)
def test_impossible_requests_are_refused_and_nothing_is_written(tmp_path: Path, arguments: dict[str, float]):
    with pytest.raises(ValueError, match=r"sample: got .*, expected"):
        write_sample(tmp_path / "sample.h5", **arguments)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_the_head_comes_with_its_notice_and_is_small():
    notice = " ".join((PACKAGE / "NOTICE-colin27.txt").read_text(encoding="utf-8").split())
    assert "Copyright (C) 1993-2009 Louis Collins, McConnell Brain Imaging Centre" in notice
    assert "Permission to use, copy, modify, and distribute this software and its documentation" in notice
    assert len((PACKAGE / "colin27.npz").read_bytes()) < 400_000


@pytest.mark.skipif("MOLRECON_DATA" not in os.environ, reason="MOLRECON_DATA is not set: Colin27 is not here")
def test_the_head_is_colin27_unchanged():
    expected = cropped(Path(os.environ["MOLRECON_DATA"]) / SOURCE)
    with (PACKAGE / "colin27.npz").open("rb") as file, np.load(file) as packaged:
        assert set(packaged) == set(expected)
        assert all(np.array_equal(packaged[name], expected[name]) for name in expected)

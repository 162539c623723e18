"""From a radial or spiral file to weighted samples, coil maps and a noise level."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from molrecon.io import read_volume
from molrecon.scans.preparation import PreparedVolume, prepare
from molrecon.scans.scan import read_scan
from molrecon.scans.trajectories.preparation import prepare_volume
from molrecon.scans.trajectories.samples import Trajectory
from operators import WeightedSense, density_compensation

from .conftest import LEVEL, MATRIX, coil_images


def trajectory_of(prepared: PreparedVolume) -> Trajectory:
    """Return where the samples of a scan lie, which it has to know."""
    assert prepared.trajectory is not None
    return prepared.trajectory


@pytest.mark.parametrize("kind", ["radial", "spiral"])
def test_weighted_samples_maps_and_noise(scan_file, kind):
    volume = read_volume(scan_file(kind))
    prepared = prepare_volume(volume)
    assert volume.trajectory is not None
    weights = density_compensation(torch.from_numpy(volume.trajectory), (MATRIX, MATRIX))
    expected = torch.from_numpy(volume.kspace) * weights.sqrt()[:, None]
    torch.testing.assert_close(prepared.kspace, expected.to(torch.complex64))
    truth = torch.from_numpy(coil_images())
    seen = torch.linalg.vector_norm(truth, dim=0) > 0
    maps = prepared.sensitivity_maps[0, 0].to(truth.dtype)
    outside = truth - maps * (maps.conj() * truth).sum(0)
    assert torch.linalg.vector_norm(outside[:, seen]) < 0.05 * torch.linalg.vector_norm(truth)
    assert prepared.maps_source.method == "espirit" and prepared.sets == 1
    level = prepared.noise_level / trajectory_of(prepared).noise_gain
    # Of the spiral it can only be too high: what the maps cannot explain is in the residual too.
    assert 0.95 * LEVEL < level < (2 if kind == "spiral" else 1.1) * LEVEL
    assert prepared.noise_estimated
    assert (
        set(prepared.noise_estimates)
        == {
            "radial": {"outer readout", "periphery"},
            "spiral": {"periphery", "least squares"},
        }[kind]
    )


def test_the_operator_is_that_of_the_samples(scan_file):
    prepared = prepare_volume(read_volume(scan_file(level=0.0)), noise_level=LEVEL)
    operator = prepared.operator([0])
    assert isinstance(operator, WeightedSense)
    maps = prepared.sensitivity_maps[:, 0]
    image = (maps.conj() * torch.from_numpy(coil_images()).to(maps.dtype)).sum(1)
    error = torch.linalg.vector_norm(operator(image) - prepared.kspace)
    assert error < 0.05 * torch.linalg.vector_norm(prepared.kspace)
    with pytest.raises(ValueError, match="is of a trajectory, expected samples on the grid"):
        prepared.cartesian_operator([0])


def test_a_noise_scan_whitens_and_is_believed(scan_file):
    prepared = prepare_volume(read_volume(scan_file("spiral", noise_scan=True)))
    assert prepared.prewhitened
    assert prepared.noise_level / trajectory_of(prepared).noise_gain == pytest.approx(LEVEL, rel=0.03)
    assert "periphery" not in prepared.noise_estimates


def test_a_noise_level_and_maps_that_are_given(scan_file):
    volume = read_volume(scan_file(slices=2))
    images = coil_images()
    maps = images / np.maximum(np.linalg.norm(images, axis=0), 1e-3)
    prepared = prepare_volume(volume, maps[None], 0.1)
    assert prepared.noise_level == pytest.approx(0.1 * trajectory_of(prepared).noise_gain)
    assert not prepared.noise_estimated and prepared.maps_source.method == "given"
    torch.testing.assert_close(prepared.sensitivity_maps[1, 0], torch.from_numpy(maps.astype(np.complex64)))
    with pytest.raises(ValueError, match=r"expected .2 or 1, 6, 40 or 40, 40"):
        prepare_volume(volume, maps[None, :, :20])
    with pytest.raises(ValueError, match="map_sets is 3, expected 1, 2 or None"):
        prepare_volume(volume, map_sets=3)
    with pytest.raises(ValueError, match="not negative"):
        prepare_volume(volume, noise_level=-1.0)
    with pytest.raises(ValueError, match="is of a trajectory"):
        prepare(volume)


def test_two_sets_are_estimated_when_they_are_asked_for(scan_file):
    volume = read_volume(scan_file("spiral"))
    one, two = prepare_volume(volume), prepare_volume(volume, map_sets=2)
    assert (one.sets, two.sets) == (1, 2) and two.operator([0]).sets == 2 and one.operator([0]).sets is None
    assert float((two.first_set().sensitivity_maps - one.sensitivity_maps).abs().max()) < 0.02
    assert two.noise_level == pytest.approx(one.noise_level, rel=0.01)  # what one set leaves of the data
    energy = one.maps_source.detail["second_set_energy"]
    assert isinstance(energy, float) and 0 <= energy < 0.001
    image = torch.zeros(1, 2, MATRIX, MATRIX, dtype=torch.complex64)
    image[:, 0] = (one.sensitivity_maps[:, 0].conj() * torch.from_numpy(coil_images()).to(image.dtype)).sum(1)
    alone = two.first_set().operator([0])(image[:, 0])
    torch.testing.assert_close(two.operator([0])(image), alone, rtol=1e-4, atol=1e-4)
    stack = np.stack([coil_images(), np.zeros_like(coil_images())])[None].astype(np.complex64)
    given = prepare_volume(volume, stack, 0.1)
    assert given.sets == 2 and "second_set_energy" not in given.maps_source.detail


def test_calibration_of_the_volume_comes_first(scan_file):
    volume = read_volume(scan_file())
    image = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(coil_images(), (1, 2)), norm="ortho"), (1, 2))
    calibration = np.zeros((1, 6, MATRIX, MATRIX), np.complex64)
    calibration[0, :, 10:30, 10:30] = image[:, 10:30, 10:30]
    prepared = prepare_volume(replace(volume, calibration=calibration))
    assert prepared.maps_source.detail["calibration_region"] == [20, 20]


def test_a_centre_that_is_not_dense_is_refused(scan_file):
    with pytest.raises(ValueError, match=r"slice 0: gridded_calibration: .* measure more readouts, or give"):
        prepare_volume(read_volume(scan_file(readouts_each=6)))


def test_frames_of_few_readouts_share_the_maps_of_all(scan_file):
    scan = read_scan(scan_file(readouts_each=6, repetitions=5))
    frames = [frame.volume for frame in scan.calibrated().frames]
    regions = [one.calibration for one in frames if one.calibration is not None]
    assert len(regions) == 5 and all(np.array_equal(one, regions[0]) for one in regions)
    first = prepare_volume(frames[0])
    second = prepare_volume(frames[1], shared=first)
    assert second.sensitivity_maps is first.sensitivity_maps
    assert not torch.equal(trajectory_of(second).points, trajectory_of(first).points)
    ratio = trajectory_of(second).noise_gain / trajectory_of(first).noise_gain
    assert second.noise_level == pytest.approx(ratio * first.noise_level)
    again = prepare_volume(frames[0], shared=first)
    assert trajectory_of(again) is trajectory_of(first)

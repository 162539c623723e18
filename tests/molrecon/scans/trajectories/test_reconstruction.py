"""The certificate and its bound on trajectories, and what is said about such a reconstruction."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from examples._mrd_files import header, measure, noise, radial, readouts, write
from molrecon.guarantees.certify import certify, volume_problem
from molrecon.io import Geometry, PlacedImage, borrow_geometry, read_volume
from molrecon.networks import ResidualNetwork
from molrecon.reconstructors.classical import CGSense, ZeroFilled
from molrecon.reconstructors.mol import MOL
from molrecon.scans.comparison import undersample
from molrecon.scans.info import describe_scan, scan_text
from molrecon.scans.parts import Parts
from molrecon.scans.parts.files import covariance
from molrecon.scans.reconstruction import reconstruct_prepared, reconstruct_volume
from molrecon.scans.scan import Scan, read_scan
from molrecon.scans.scan_reconstruction import reconstruct_scan, write_scan
from molrecon.scans.sidecar import ModelSource
from molrecon.scans.trajectories.preparation import prepare_volume
from operators import NonCartesianSense, WeightedSense

from .conftest import LEVEL, coil_images


def model(tol: float = 1e-7) -> MOL:
    network = ResidualNetwork(monotonicity=0.1, channels=3, features=6, levels=2, cycles=1, seed=1)
    found = MOL(network).eval()
    found.solver = replace(found.solver, tol=tol, max_steps=400)
    return found


def test_what_trajectories_are_not_for_yet_is_said(scan_file):
    prepared = prepare_volume(read_volume(scan_file("radial")))
    assert "trajectory" in {warning.check for warning in reconstruct_prepared(prepared, model(1e-2)).warnings}
    shape = (len(prepared.kspace), *prepared.volume.recon_shape)
    place = Geometry((0, 0, 0), (0, 0, 5), (0, 1, 0), (1, 0, 0), 5)
    image = PlacedImage(np.ones(shape, np.float32), place, "NIfTI", "ab" * 32)
    volume = replace(prepared.volume, geometry=None, voxel_size=None)
    with pytest.raises(ValueError, match="samples on a trajectory, which are not compared"):
        borrow_geometry(volume, image)
    assert borrow_geometry(volume, image, axes="stored").origin == (0, 0, 0)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["radial", "spiral"])
def test_convergence_bound_and_uniqueness(scan_file, kind):
    prepared = prepare_volume(read_volume(scan_file(kind)))
    operator, kspace = prepared.operator([0]), prepared.kspace[[0]].to(torch.complex128)
    assert isinstance(operator, WeightedSense) and prepared.trajectory is not None
    exact = WeightedSense(
        NonCartesianSense(operator.operator.sensitivity_maps.to(torch.complex128), operator.operator.trajectory),
        prepared.trajectory.weights,
    )
    mol = model().double()
    known = mol.condition(kspace, exact, prepared.noise_level)
    found = mol(kspace, exact, conditioning=known)
    assert found.kind == "certified" and bool(found.converged.all())
    start = torch.randn(found.value.shape, dtype=torch.complex128, generator=torch.Generator().manual_seed(0))
    other = mol(kspace, exact, conditioning=known, start=start)
    size = torch.linalg.vector_norm(found.value)
    assert torch.linalg.vector_norm(found.value - other.value) <= 2e-7 * size
    iterates = mol.stages(kspace, exact, conditioning=known, start=start)
    assert len(iterates) > 5
    for one in iterates:
        error = torch.linalg.vector_norm(one.value - found.value) / torch.linalg.vector_norm(one.value)
        assert float(error) <= float(one.residual) * (1 + 1e-6) + 1e-7
    # The single precision operator of the scan has the same equilibrium, to within the bounds.
    single = model(1e-4)(prepared.kspace[[0]], operator, conditioning=known.in_precision(torch.complex64))
    assert bool(single.converged.all())
    assert torch.linalg.vector_norm(single.value - found.value) <= 1.1e-4 * size


@pytest.mark.parametrize("sets", [1, 2])
def test_two_sets_make_the_same_image(scan_file, sets):
    """Of a scan that one set explains: what a second one has is not there, and checks and noise maps take both."""
    prepared = prepare_volume(read_volume(scan_file()), map_sets=sets)
    result = reconstruct_prepared(prepared, CGSense(), parts=Parts(noise_probes=1))
    truth = np.linalg.norm(coil_images(), axis=0)
    assert np.linalg.norm(result.image[0] - truth) < 0.12 * np.linalg.norm(truth)
    assert result.checks[0].sets == sets and 0.9 < result.checks[0].least_squares_sigmas < 2
    assert result.noise is not None and result.noise[0].shape == (1, 40, 40)
    assert not any(warning.check == "second map set" for warning in result.warnings)


def test_an_object_larger_than_the_field_of_view_is_told_of(scan_file, tmp_path):
    """One set is used; that the data hold more than it explains is said."""
    n = 60  # pixels of the object's own field of view, of the size of those of the scan
    rows, cols = np.meshgrid(*2 * [(np.arange(n) - n // 2) / 40], indexing="ij")
    image = (np.hypot(rows, cols) < 0.7) * (1 + 0.5 * np.cos(9 * rows) * np.cos(11 * cols))
    angles = 2 * np.pi * np.arange(6) / 6
    maps = np.stack([np.exp(-2 * ((rows - np.cos(a)) ** 2 + (cols - np.sin(a)) ** 2) + 1j * a * rows) for a in angles])
    points = radial(40, 40)
    samples = 1.5 * measure(image * maps / np.linalg.norm(maps, axis=0), points * n / 40)
    samples = samples + noise(np.random.default_rng(0), LEVEL, *samples.shape)
    path = write(tmp_path / "large.mrd", header("radial", (40, 40)), readouts(samples, points / 40))
    found = [one for one in reconstruct_volume(read_volume(path), CGSense()).warnings if one.check == "second map set"]
    assert len(found) == 1 and found[0].slice is None
    assert "one set is used" in found[0].advice and "--map-sets 2" in found[0].advice


def test_images_of_slices_and_methods(scan_file):
    volume = read_volume(scan_file(slices=2))
    truth = np.linalg.norm(coil_images(), axis=0)
    errors = {}
    for method in (CGSense(), ZeroFilled()):
        result = reconstruct_volume(volume, method)
        assert result.image.shape == (2, 40, 40) and not any(w.check == "trajectory" for w in result.warnings)
        errors[result.method] = np.linalg.norm(result.image[1] - 2 * truth) / np.linalg.norm(2 * truth)
        assert result.geometry is not None
    assert errors["CGSense"] < 0.12 and errors["CGSense"] < errors["ZeroFilled"] < 0.4
    checks = reconstruct_volume(volume, CGSense()).checks
    assert all(0.9 < one.least_squares_sigmas < 2 for one in checks)


def test_noise_maps_are_those_of_scans_with_other_noise(scan_file):
    """To some tens of draws; the maps of the scan are held fixed, as the noise maps hold them."""
    method = CGSense()
    prepared = prepare_volume(read_volume(scan_file(level=0.0)), noise_level=LEVEL)
    found = reconstruct_prepared(prepared, method, parts=Parts(noise_probes=20)).noise
    assert found is not None and found[0].shape == (1, 40, 40) and found[0].dtype == np.float32
    operator, trajectory = prepared.operator([0]), prepared.trajectory
    assert trajectory is not None
    rng, images = np.random.default_rng(4), []
    with torch.no_grad():
        for _ in range(20):
            replica = torch.from_numpy(prepared.volume.kspace + noise(rng, LEVEL, *prepared.volume.kspace.shape))
            images.append(method(trajectory.weigh(replica.to(torch.complex64)), operator).value)
    magnitude = torch.stack([torch.from_numpy(prepared.magnitude(one)) for one in images])
    inside = magnitude.mean(0)[0].numpy() > 0.3
    assert np.count_nonzero(inside) > 400
    ratio = found[0][0, inside] / magnitude.std(0)[0].numpy()[inside]
    assert np.median(ratio) == pytest.approx(1, abs=0.05)
    # The g-factor is of complex pixels, over what as many samples spread evenly over k-space would leave.
    deviation = torch.stack(images).sub(torch.stack(images).mean(0)).abs().square().mean(0).sqrt().numpy()
    even = LEVEL * np.sqrt(40 * 40 / (24 * 80))
    assert np.median(found[1][0, inside] * even / deviation[0, inside]) == pytest.approx(1, abs=0.06)


def test_noise_maps_of_a_model(scan_file):
    prepared = prepare_volume(read_volume(scan_file()))
    mol = reconstruct_prepared(prepared, model(1e-2), parts=Parts(noise_probes=1))
    assert mol.noise is not None and all(one.shape == mol.image.shape and one.max() > 0 for one in mol.noise)


def test_noise_that_is_kept_is_that_of_a_sample(scan_file):
    prepared = prepare_volume(read_volume(scan_file()), noise_level=LEVEL)
    np.testing.assert_allclose(covariance(prepared), LEVEL**2 * np.eye(6))


def test_what_is_said(scan_file, tmp_path):
    scan = read_scan(scan_file(repetitions=2, readouts_each=16))
    found = reconstruct_scan(scan, model(1e-3))
    (warning,) = (one for one in found[0].result.warnings if one.check == "trajectory")
    assert "radial or spiral" in warning.advice
    *files, sidecar = write_scan(tmp_path, "scan", found, ModelSource("mol", None), "0" * 64)
    described = json.loads(sidecar.read_text())
    assert described["sampling"]["kind"] == "radial"
    assert (described["sampling"]["readouts"], described["sampling"]["samples"]) == (16, 80)
    assert described["noise"]["noise_level_of_a_sample"] == pytest.approx(LEVEL, rel=0.1)
    assert len(described["frames"]) == 2 and described["image"]["shape"] == [2, 1, 40, 40]
    page = next(path for path in files if path.suffix == ".html").read_text()
    assert "16 readouts of 80 samples, radial" in page


def test_arrays_are_a_scan_as_their_file_is(scan_file):
    from_file = read_scan(scan_file(slices=2, repetitions=2, readouts_each=16))
    kspace = np.stack([frame.volume.kspace for frame in from_file.frames])
    own = [one.volume.trajectory for one in from_file.frames if one.volume.trajectory is not None]
    points = np.stack(own)  # of all slices, turning in time
    scan = Scan.from_arrays(kspace, trajectory=points, grid=(40, 40), time_step=2.0)
    (series,), (expected,) = (reconstruct_scan(one, ZeroFilled()) for one in (scan, from_file))
    np.testing.assert_allclose(series.result.image, expected.result.image, rtol=1e-4, atol=1e-5)
    assert series.result.time_step == 2.0 and series.result.image.shape == (2, 2, 40, 40)
    still = Scan.from_arrays(kspace[0], trajectory=points[0], grid=(40, 40)).frames[0].volume
    assert still.recon_shape == (40, 40) and not still.fully_sampled
    for wrong, message in (
        ({"trajectory": points}, "no grid, expected both or none"),
        ({"grid": (40, 40)}, "no trajectory"),
        ({"trajectory": points, "grid": (40, 30)}, "reaches 20 and 20, expected at most 20 and 15 cycles"),
        ({"trajectory": points[..., :1], "grid": (40, 40)}, "expected real"),
        ({"trajectory": points[:, :, 1:], "grid": (40, 40)}, "RawVolume: trajectory"),
        ({"trajectory": points, "grid": (40, 40), "sampling_mask": np.ones(80, bool)}, "a sampling mask with"),
    ):
        with pytest.raises(ValueError, match=message):
            Scan.from_arrays(kspace, **wrong)


def test_findings_about_a_certificate_on_a_trajectory(scan_file):
    problem = volume_problem(read_volume(scan_file()))
    findings = certify(model(1e-4), problem)
    assert findings.converged and findings.violations == ()


def test_a_comparison_has_nothing_to_leave_out(scan_file):
    volume = read_volume(scan_file())
    with pytest.raises(ValueError, match="is of a trajectory, expected samples on the grid"):
        undersample(volume, np.ones(80, bool), 0.0, [0])


def test_what_is_in_a_file(scan_file):
    described = describe_scan(scan_file(slices=2))
    assert described["sampling"]["kind"] == "radial" and described["calibration"]["size"] == "12 x 12"
    assert described["odd"] == [
        "no packaged model was trained on trajectories; certificate and bound hold all the same"
    ]
    assert "radial, 24 readouts of 80 samples" in scan_text(described)
    sparse = describe_scan(scan_file("radial", readouts_each=6, slices=1))
    assert any("no fully sampled centre" in sentence for sentence in sparse["odd"])

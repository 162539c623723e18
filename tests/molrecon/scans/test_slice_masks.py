"""Slices that were sampled differently: each is reconstructed as if it were alone. And what a raw file leaves out."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from molrecon.command.parser import main
from molrecon.guarantees.robustness import _noise, take_slices
from molrecon.io import RawVolume, read_volume
from molrecon.networks import ResidualNetwork
from molrecon.reconstructors.classical import CGSense
from molrecon.reconstructors.mol import MOL
from molrecon.scans.cohort import reconstruct_cohort
from molrecon.scans.comparison import Comparison, reference_image, undersample
from molrecon.scans.metrics import psnr
from molrecon.scans.preparation import prepare
from molrecon.scans.quality_page import summary
from molrecon.scans.reconstruction import reconstruct_prepared, reconstruct_volume
from molrecon.scans.settings import Settings
from molrecon.scans.sidecar import ModelSource, describe_sampling
from molrecon.simulation.phantom import write_phantom
from molrecon.weights import save
from operators import variable_density_mask

SHAPE = (48, 96)
MEASURED, LEVEL = 26, 0.01
GENERATE = "ismrmrd_generate_cartesian_shepp_logan"
needs_tools = pytest.mark.skipif(shutil.which(GENERATE) is None, reason="ismrmrd-tools is not installed")


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> RawVolume:
    path = tmp_path_factory.mktemp("sample") / "head.h5"
    return read_volume(write_phantom(path, slices=2, coils=6, shape=SHAPE, noise_level=LEVEL))


@pytest.fixture(scope="module")
def masks() -> np.ndarray:
    """Two masks (2, 1, cols) of 26 columns of 96, the same 10 in the middle and otherwise different."""
    rng = np.random.default_rng(0)
    masks = np.stack([variable_density_mask(SHAPE[1], SHAPE[1] / MEASURED, rng, 10, 0.3)[None] for _ in range(2)])
    assert masks.sum(axis=-1).tolist() == [[MEASURED], [MEASURED]]
    assert masks.any(axis=0).sum() > MEASURED + 8
    return masks


@pytest.fixture(scope="module")
def stored(full: RawVolume, masks: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("stored") / "scan.npy"
    np.save(path, full.kspace * masks[:, None])
    return path


@pytest.fixture
def model() -> MOL:
    return MOL(ResidualNetwork(monotonicity=0.2, channels=4, features=8, levels=2, cycles=1)).eval()


def test_each_slice_is_reconstructed_as_if_it_were_alone(stored: Path, masks: np.ndarray, model: MOL, tmp_path: Path):
    volume = read_volume(stored)
    np.testing.assert_array_equal(volume.sampling_mask, masks)
    together = reconstruct_volume(volume, model, noise_level=LEVEL, batch_size=2)
    for k in range(2):
        np.save(tmp_path / "one.npy", volume.kspace[[k]])
        alone = reconstruct_volume(read_volume(tmp_path / "one.npy"), model, noise_level=LEVEL)
        error = np.abs(together.image[k] - alone.image[0]).max() / alone.image.max()
        assert error < 10 * model.solver.tol
        assert prepare(take_slices(volume, [k]), noise_level=LEVEL).sampling_mask.shape == (1, 1, SHAPE[1])
    for level in (None, LEVEL):
        assert prepare(volume, noise_level=level).noise_level == pytest.approx(LEVEL, rel=0.2)


def test_the_mask_of_all_slices_together_would_be_worse(full: RawVolume, stored: Path, masks: np.ndarray):
    reference = reference_image(full, prepare(full))
    right = prepare(undersample(full, masks, 0.0, [0]))
    assert right.sampling_mask.shape == (2, 1, SHAPE[1])
    wanted = Comparison(right, full).score("cg-sense", CGSense(0.02))
    # The .npy knows nothing of the readout's oversampling: its middle rows are what the other delivers.
    read = prepare(replace(read_volume(stored), recon_shape=full.recon_shape))
    found = Comparison(read, full).score("cg-sense", CGSense(0.02))
    assert found.score.psnr == pytest.approx(wanted.score.psnr, abs=0.01)
    wrong = prepare(replace(read.volume, sampling_mask=np.asarray(masks.any(axis=0))))
    assert Comparison(wrong, full).score("cg-sense", CGSense(0.02)).score.psnr < wanted.score.psnr - 2
    for k in range(2):
        scan = prepare(take_slices(right.volume, [k]))
        alone = Comparison(scan, take_slices(full, [k])).score("cg-sense", CGSense(0.02))
        assert psnr(reference[[k]], found.image[[k]]) == pytest.approx(alone.score.psnr, abs=0.1)


def test_the_operator_of_some_slices_has_their_masks(stored: Path, masks: np.ndarray):
    prepared = prepare(read_volume(stored))
    for slices in ([1], [1, 0], [0, 1], slice(None)):
        np.testing.assert_array_equal(prepared.cartesian_operator(slices).sampling_mask.numpy(), masks[slices])
    perturbed = np.asarray(_noise(prepared, [3]).numpy().any(axis=(1, 2)))
    np.testing.assert_array_equal(perturbed[:, None], masks)


def test_masks_of_rows_and_columns_that_differ(full: RawVolume, model: MOL):
    rows, cols = full.kspace.shape[-2:]
    masks = np.random.default_rng(0).random((2, rows, cols)) < 0.6
    masks[:, rows // 2 - 10 : rows // 2 + 10, cols // 2 - 10 : cols // 2 + 10] = True
    volume = undersample(full, masks, 0.0, [0])
    assert volume.sampling_mask.shape == masks.shape
    prepared = prepare(volume)
    image = reconstruct_prepared(prepared, model).image
    for k in range(2):
        alone = reconstruct_prepared(prepare(take_slices(volume, [k]), noise_level=prepared.noise_level), model).image
        assert np.abs(image[k] - alone[0]).max() / alone.max() < 10 * model.solver.tol


def test_the_sidecar_says_what_was_measured_in_each_slice(full: RawVolume, stored: Path, masks: np.ndarray):
    sampling = describe_sampling(read_volume(stored))
    assert (sampling["kind"], sampling["alike_in_all_slices"]) == ("columns", False)
    assert (sampling["measured"], sampling["of"]) == (2 * MEASURED, 2 * SHAPE[1])
    assert "columns" not in sampling
    for k, one in enumerate(sampling["slices"]):
        assert (one["index"], one["measured"], one["of"]) == (k, MEASURED, SHAPE[1])
        np.testing.assert_array_equal(one["columns"], np.flatnonzero(masks[k]))
    assert "remarks" not in sampling
    assert describe_sampling(replace(full, remarks=("as if zero-padded",)))["remarks"] == ("as if zero-padded",)
    alike = describe_sampling(undersample(full, masks[0, 0], 0.0, [0]))
    assert alike["alike_in_all_slices"] and "slices" not in alike
    assert alike["measured"] == MEASURED and alike["acceleration"] == pytest.approx(SHAPE[1] / MEASURED, abs=1e-3)


def test_calibration_regions_that_differ_are_listed(full: RawVolume, masks: np.ndarray):
    wider = masks.copy()
    wider[1, 0, SHAPE[1] // 2 - 10 : SHAPE[1] // 2 + 10] = True
    detail = prepare(undersample(full, wider, 0.0, [0])).maps_source.detail
    regions = detail["calibration_region_by_slice"]
    assert isinstance(regions, list) and regions[0] == detail["calibration_region"]
    assert isinstance(regions[1], list) and regions[1][1] >= 20
    assert "calibration_region_by_slice" not in prepare(undersample(full, masks[0, 0], 0.0, [0])).maps_source.detail
    narrow = masks.copy()
    narrow[1, 0, SHAPE[1] // 2] = False
    with pytest.raises(ValueError, match="slice 1: calibration_region"):
        prepare(undersample(full, narrow, 0.0, [0]), noise_level=LEVEL)


def test_a_volume_takes_masks_in_any_shape_and_refuses_what_does_not_fit(full: RawVolume, masks: np.ndarray):
    assert replace(full, sampling_mask=masks[0, 0]).sampling_mask.shape == (1, 1, SHAPE[1])
    with pytest.raises(ValueError, match=r"sampling mask of shape \(3, 1, 96\)"):
        replace(full, sampling_mask=np.ones((3, 1, SHAPE[1]), bool))
    with pytest.raises(ValueError, match="sampling mask"):
        replace(full, kspace=full.kspace[:1], sampling_mask=masks)


@needs_tools
def test_a_raw_file_with_more_than_was_read_is_incomplete(
    model: MOL, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    for name, options in (("twice", []), ("noise", ["-C"])):
        command = [GENERATE, "-m", "32", "-c", "4", "-o", f"{name}.h5", *options]
        subprocess.run(command, cwd=tmp_path, check=True, timeout=60, capture_output=True)
    with h5py.File(tmp_path / "twice.h5", "r+") as file:
        file.copy("dataset", "second")
    save(model, tmp_path / "model.safetensors", {"data": "none"})
    out = tmp_path / "out"
    command = ["reconstruct", "--out", str(out), "--model", str(tmp_path / "model.safetensors")]
    for again in ([], ["--skip-existing"]):
        assert main([*command, str(tmp_path / "twice.h5"), *again]) == 5
        assert "twice.h5: incomplete: " in (printed := capsys.readouterr()).err
        assert "left out: 1 data set" in printed.err
        (entry,) = json.loads((out / "manifest.json").read_text())["volumes"]
        assert (entry["status"], entry["left_out"]) == ("incomplete", {"data sets": 1})
    assert json.loads((out / "twice.json").read_text())["input"]["left_out"] == {"data sets": 1}
    assert main([*command, str(tmp_path / "noise.h5")]) == 0
    assert "left out: 1 noise readout" in capsys.readouterr().out
    volumes = json.loads((out / "manifest.json").read_text())["volumes"]
    (entry,) = [volume for volume in volumes if volume["input"].endswith("noise.h5")]
    assert (entry["status"], entry["left_out"]) == ("ok", {"noise readouts": 1})


@needs_tools
def test_the_page_names_what_was_left_out_and_missing_the_tolerance_comes_first(model: MOL, tmp_path: Path):
    command = [GENERATE, "-m", "32", "-c", "4", "-o", "raw.h5"]
    subprocess.run(command, cwd=tmp_path, check=True, timeout=60, capture_output=True)
    with h5py.File(tmp_path / "raw.h5", "r+") as file:
        file.copy("dataset", "second")
    prepared = prepare(read_volume(tmp_path / "raw.h5"))
    assert "left out      1 data set" in summary(prepared, reconstruct_prepared(prepared, model))
    model.solver = replace(model.solver, max_steps=1)
    source = ModelSource("untrained", "0" * 64)
    (entry,) = reconstruct_cohort([tmp_path / "raw.h5"], tmp_path / "out", model, source, Settings())
    assert (entry.status, entry.left_out) == ("not converged", {"data sets": 1})
    assert "left out: 1 data set" in entry.message


def test_the_page_says_that_masks_differ(stored: Path, model: MOL):
    prepared = prepare(read_volume(stored))
    text = summary(prepared, reconstruct_prepared(prepared, model))
    assert f"measured      {2 * MEASURED} of {2 * SHAPE[1]} columns of all slices, which differ" in text

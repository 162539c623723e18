"""A scan of several images: which files they make, what they share, and that sharing helps."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import nibabel
import numpy as np
import pytest
import torch

from molrecon.io import READERS, Frame, Reader, read_volume
from molrecon.reconstructors.classical import CGSense
from molrecon.scans.outputs import written_paths
from molrecon.scans.preparation import cartesian, estimated_maps, prepare
from molrecon.scans.scan import Scan, read_scan
from molrecon.scans.scan_reconstruction import reconstruct_scan, write_scan
from molrecon.scans.series import frame_of
from molrecon.scans.sidecar import ModelSource
from molrecon.simulation.phantom import coil_maps, phantom_volume, write_phantom
from operators import centred_fft

GENERATE = "ismrmrd_generate_cartesian_shepp_logan"
ROWS, COLS, COILS = 24, 20, 4


def arrays(repetitions: int = 1, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    shape = (repetitions, 2, COILS, ROWS, COLS)
    return (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(np.complex64)


def frames(*keys: tuple[int, int, int, int, int]) -> Scan:
    volume = Scan.from_arrays(arrays()).frames[0].volume
    return Scan(tuple(Frame(volume, c, p, r, s, e, seconds=2.0 * r + 0.05 * p) for e, c, s, p, r in keys))


def test_arrays_are_taken_as_they_are() -> None:
    kspace, mask = arrays(3), np.zeros((3, COLS), bool)
    mask[0, ::2] = mask[1, 1::2] = mask[2, 3:9] = True
    before = kspace.copy()
    scan = Scan.from_arrays(kspace, mask[:, None, None], time_step=1.5, recon_shape=(12, COLS))
    np.testing.assert_array_equal(kspace, before)
    (series,) = scan.series()
    assert (series.entities, series.time_step, len(series.frames)) == ("", 1.5, 3)
    for frame, one, columns in zip(series.frames, kspace, mask, strict=True):
        np.testing.assert_array_equal(frame.volume.kspace, one * columns)
        np.testing.assert_array_equal(frame.volume.sampling_mask[0, 0], columns)
        assert frame.volume.recon_shape == (12, COLS)
    for wrong in (kspace[0, 0], kspace * np.nan, kspace * 0):
        with pytest.raises(ValueError, match="kspace"):
            Scan.from_arrays(wrong)
    with pytest.raises(ValueError, match="masks of 2 frames, expected 3"):
        Scan.from_arrays(kspace, mask[:2, None, None])
    with pytest.raises(ValueError, match="counters of its own"):
        Scan(scan.frames[:1] * 2)


def test_series_are_named_as_in_bids() -> None:
    def entities(scan: Scan) -> list[tuple[str, int]]:
        return [(series.entities, len(series.frames)) for series in scan.series()]

    assert entities(frames((0, 0, 0, 0, 0), (0, 0, 0, 0, 1))) == [("", 2)]
    assert entities(frames((0, 0, 0, 0, 0), (0, 3, 0, 0, 0))) == [("echo-1", 1), ("echo-2", 1)]
    assert entities(frames((0, 0, 0, 0, 0), (1, 0, 0, 0, 0))) == [("acq-space1", 1), ("acq-space2", 1)]
    assert entities(frames((0, 0, 0, 0, 0), (0, 1, 2, 0, 0))) == [("acq-set1_echo-1", 1), ("acq-set2_echo-2", 1)]
    both = [(0, 0, 0, p, r) for r in range(2) for p in range(3)]
    assert entities(frames(*both)) == [("run-1", 3), ("run-2", 3)]


def test_time_steps_that_differ_are_not_given() -> None:
    scan = frames(*((0, 0, 0, 0, r) for r in range(4)))
    assert scan.series()[0].time_step == 2.0
    uneven = Scan((*scan.frames[:3], replace(scan.frames[3], seconds=9.0)))
    assert uneven.series()[0].time_step is None
    unknown = Scan((*scan.frames[:3], replace(scan.frames[3], seconds=None)))
    assert unknown.series()[0].time_step is None


def test_calibration_is_the_mean_of_what_was_measured() -> None:
    kspace, mask = arrays(2), np.zeros((2, 1, 1, COLS), bool)
    mask[0, ..., :12], mask[1, ..., 8:] = True, True
    scan = Scan.from_arrays(kspace, mask).calibrated()
    expected = np.concatenate([kspace[0, ..., :8], kspace[..., 8:12].mean(axis=0), kspace[1, ..., 12:]], axis=-1)
    for frame in scan.frames:
        assert frame.volume.calibration is not None
        np.testing.assert_allclose(frame.volume.calibration, expected, rtol=1e-5, atol=1e-6)
    own = np.ones_like(kspace[0])
    given = Scan.from_arrays(kspace, mask, calibration=own).calibrated()
    assert all(frame.volume.calibration is own for frame in given.frames)
    assert Scan.from_arrays(kspace[:1], mask[:1]).calibrated().frames[0].volume.calibration is None


def test_a_reader_of_ones_own_joins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(path: Path) -> list[Frame]:
        with np.load(path) as content:
            return list(Scan.from_arrays(content["kspace"]).frames)

    mine = Reader((".npz",), lambda path: path.suffix == ".npz", lambda path: read(path)[0].volume, read)
    monkeypatch.setattr("molrecon.io.READERS", [mine, *READERS])
    np.savez(tmp_path / "scan.npz", kspace=arrays(2))
    assert len(read_scan(tmp_path / "scan.npz").frames) == 2
    np.testing.assert_array_equal(read_volume(tmp_path / "scan.npz").kspace, arrays(2)[0])


def noisy(folder: Path, psi: np.ndarray, sigma: float) -> tuple[np.ndarray, np.ndarray]:
    """Return a phantom's k-space (1, coil, rows, cols), fully sampled, noise goes with `psi`; and its covariance."""
    rng = np.random.default_rng(1)
    volume = read_volume(write_phantom(folder / "phantom.h5", 1, COILS, (48, 40), 0.0))
    shape = volume.kspace[0].shape
    white = (rng.normal(size=shape) + 1j * rng.normal(size=shape)) / np.sqrt(2)
    level = sigma * np.abs(volume.kspace).max()
    noise = level * np.tensordot(np.linalg.cholesky(psi), white, 1)
    return (volume.kspace + noise[None]).astype(np.complex64), level**2 * psi


def test_a_noise_scan_makes_the_coils_independent(tmp_path: Path) -> None:
    factor = np.array([[1, 0, 0, 0], [0.7, 0.5, 0, 0], [0, 0.8j, 1.5, 0], [0.3, 0, 0.9, 0.4]])
    kspace, covariance = noisy(tmp_path, factor @ factor.conj().T, 2e-3)
    scan = Scan.from_arrays(kspace, noise_covariance=covariance)
    prepared = prepare(scan.frames[0].volume)
    sigma = np.sqrt(np.diag(covariance).real.mean())
    assert prepared.prewhitened
    assert prepared.noise_level == pytest.approx(sigma, rel=1e-6)
    clean = read_volume(tmp_path / "phantom.h5")
    noise = (
        prepared.kspace
        - prepare(replace(clean, noise_covariance=covariance, recon_shape=(96, 40)), shared=prepared).kspace
    )
    np.testing.assert_allclose(np.cov(noise[0].flatten(1)) / sigma**2, np.eye(COILS), atol=0.1)
    wrong = prepare(Scan.from_arrays(kspace, noise_covariance=2 * covariance).frames[0].volume)
    assert wrong.noise_level == pytest.approx(sigma * np.sqrt(2), rel=0.35)
    assert wrong.noise_level != pytest.approx(wrong.noise_estimates["noise scan"], rel=0.2)


@pytest.mark.skipif(shutil.which(GENERATE) is None, reason="ismrmrd-tools is not installed")
def test_interleaved_repetitions_share_maps_that_none_of_them_could_give(tmp_path: Path) -> None:
    command = [GENERATE, "-m", "64", "-c", "8", "-r", "1", "-a", "3", "-n", "0.005", "-o", "raw.h5"]
    subprocess.run(command, cwd=tmp_path, check=True, timeout=60, capture_output=True)
    scan = read_scan(tmp_path / "raw.h5")
    assert scan.left_out == {}
    with pytest.raises(ValueError, match="calibration"):
        prepare(scan.frames[0].volume)
    (found,) = reconstruct_scan(scan, CGSense(1e-3))
    assert found.result.image.shape == (3, 1, 64, 64)
    with h5py.File(tmp_path / "raw.h5") as file:
        stored = file["dataset/phantom"][()]
        truth = np.abs(stored["real"] + 1j * stored["imag"]).squeeze().T
    for image in found.result.image[:, 0]:
        image = image * (image * truth).sum() / (image**2).sum()
        psnr = 10 * np.log10(truth.max() ** 2 / np.mean((image - truth) ** 2))
        assert psnr > 25


def test_frames_of_one_scan_share_maps_and_become_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    estimated = []
    estimate = estimated_maps.estimate_maps

    def counted(*args: Any) -> Any:
        estimated.append(1)
        return estimate(*args)

    for module in (cartesian, estimated_maps):
        monkeypatch.setattr(module, "estimate_maps", counted)
    kspace, _ = noisy(tmp_path, np.eye(COILS), 1e-3)
    scan = Scan.from_arrays(np.stack([kspace, 1.5 * kspace]), time_step=0.5, voxel_size=(2.0, 2.0, 5.0))
    (found,) = reconstruct_scan(scan, CGSense(1e-3))
    image = found.result.image
    np.testing.assert_allclose(image[1], 1.5 * image[0], rtol=1e-3, atol=1e-3 * image.max())
    np.testing.assert_array_equal(frame_of(found.result, 1).image, image[1])
    assert frame_of(found.result, 1).converged.shape == (1,)
    write_scan(tmp_path, "one", [found], ModelSource("cg-sense", None), "hash")
    nifti: Any = nibabel.load(tmp_path / "one.nii.gz")
    assert nifti.shape == (*image.shape[:0:-1], 2) and nifti.header.get_zooms()[3] == 0.5
    sidecar = json.loads((tmp_path / "one.json").read_text())
    assert [frame["repetition"] for frame in sidecar["frames"]] == [0, 1] and len(sidecar["slices"]) == 2

    contrasts = Scan(tuple(replace(one, contrast=k, repetition=0) for k, one in enumerate(scan.frames)))
    source = ModelSource("cg-sense", None)
    both = reconstruct_scan(contrasts, CGSense(1e-3))
    paths = write_scan(tmp_path, "two", both, source, "hash")
    assert [path.name for path in paths if path.suffix == ".gz"] == ["two_echo-1.nii.gz", "two_echo-2.nii.gz"]
    assert paths == written_paths(tmp_path, "two") and all(path.is_file() for path in paths)
    assert write_scan(tmp_path, "two", both, source, "hash") == paths  # its own files may be replaced
    (tmp_path / "three_echo-1.h5").write_text("of somebody else")
    with pytest.raises(ValueError, match="of another input"):
        write_scan(tmp_path, "three", both, source, "hash")
    assert len(estimated) == 2
    (tmp_path / "two_echo-1.json").unlink()
    with pytest.raises(ValueError, match=r"two_echo-1\.nii\.gz: is of two, expected another folder"):
        other = replace(found, first=replace(found.first, volume=replace(found.first.volume, sha256="other")))
        write_scan(tmp_path, "two_echo-1", [other], source, "hash")


def test_frames_that_lack_a_slice() -> None:
    images = coil_maps(2, COILS, (ROWS, COLS)) * phantom_volume(2, (ROWS, COLS))[:, None]
    kspace = centred_fft(torch.from_numpy(images), (-2, -1))
    scan = Scan.from_arrays(np.stack([kspace.numpy(), kspace.numpy()]).astype(np.complex64))
    first, second = scan.frames
    first.volume.kspace[1] = 0
    echoes = Scan((first, replace(second, contrast=1, repetition=0)))
    one, two = reconstruct_scan(echoes, CGSense(1e-3))
    assert one.result.empty.tolist() == [False, True] and not two.result.empty.any()
    assert two.result.image[1].max() > 0.5 * two.result.image[0].max()  # its maps are its own
    calibration = Scan((first, second)).calibrated().frames[0].volume.calibration
    assert calibration is not None
    np.testing.assert_allclose(calibration, second.volume.kspace, rtol=1e-6)  # of the frame that has the slice
    smaller = replace(second, volume=replace(second.volume, kspace=second.volume.kspace[:1]))
    with pytest.raises(ValueError, match=r"frames of shapes .* in one series"):
        reconstruct_scan(Scan((first, smaller)), CGSense(1e-3))


def test_samples_outside_a_mask_are_counted() -> None:
    mask = np.arange(COLS) % 2 == 0
    scan = Scan.from_arrays(arrays()[0], mask)
    assert scan.left_out == {"masked samples": 2 * ROWS * COLS // 2}
    assert Scan.from_arrays(arrays()[0] * mask, mask).left_out == {}

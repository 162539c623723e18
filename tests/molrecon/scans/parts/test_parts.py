"""Phase, coil maps and noise beside the image, by the command: what they hold, and that they belong to their image."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pytest
import torch

from molrecon.command.parser import main
from molrecon.io import read_volume
from molrecon.reconstructors.classical import CGSense
from molrecon.scans.parts import Parts
from molrecon.scans.parts.noise_maps import noise_maps
from molrecon.scans.preparation import prepare, unmixed_maps
from molrecon.scans.reconstruction import reconstruct_prepared
from molrecon.simulation.phantom import write_phantom
from operators import Sense, SoftSense

SHAPE = (36, 32)
ALL = ("--output", "magnitude,phase,complex", "--keep", "maps,noise", "--noise-map", "4")


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_phantom(tmp_path_factory.mktemp("sample") / "head.h5", slices=2, coils=4, shape=SHAPE)


@pytest.fixture(scope="module")
def out(scan: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("out")
    assert main(["reconstruct", str(scan), "--out", str(folder), "--model", "cg-sense", *ALL]) == 0
    return folder


def values(path: Path) -> np.ndarray:
    return np.asarray(nibabel.Nifti1Image.from_filename(path).dataobj).T


def test_parts_are_those_of_the_image(out: Path) -> None:
    image, phase = values(out / "head.nii.gz"), values(out / "head_part-phase.nii.gz")
    assert np.array_equal(values(out / "head_part-mag.nii.gz"), image)
    with h5py.File(out / "head_part-complex.h5") as file:
        whole = file["reconstruction"][()]
    assert whole.dtype == np.complex64 and whole.shape == (2, *SHAPE)
    assert np.allclose(np.abs(whole), image, rtol=1e-5, atol=1e-12)
    assert np.allclose(whole, image * np.exp(1j * phase), atol=1e-5 * image.max())
    assert np.ptp(phase[image > 0.1 * image.max()]) > 0.1
    for part, expected in (("real", whole.real), ("imag", whole.imag)):
        assert np.array_equal(values(out / f"head_part-{part}.nii.gz"), expected)
    headers = [nibabel.Nifti1Image.from_filename(path).header.get_zooms() for path in out.glob("head*.nii.gz")]
    assert len(headers) == 7 and len(set(headers)) == 1


def test_they_are_listed_with_the_image(out: Path) -> None:
    sidecar = json.loads((out / "head.json").read_text())
    suffixes = set(Parts(("magnitude", "phase", "complex"), ("maps", "noise"), 4).files())
    assert {f"_{name}" for name in sidecar["parts"]["files"]} == suffixes and sidecar["parts"]["noise_probes"] == 4
    (volume,) = json.loads((out / "manifest.json").read_text())["volumes"]
    listed = {Path(path).name for path in volume["outputs"]}
    assert {f"head{suffix}" for suffix in suffixes} <= listed
    assert {path.name for path in out.glob("head*")} == listed
    page = (out / "head.html").read_text()
    assert "noise in the image" in page and "g-factor" in page and "part-phase.nii.gz" in page


def test_kept_maps_give_the_same_image_again(scan: Path, out: Path, tmp_path: Path) -> None:
    command = ["reconstruct", str(scan), "--out", str(tmp_path), "--model", "cg-sense"]
    assert main([*command, "--maps", str(out / "head_maps.npy")]) == 0
    again, image = values(tmp_path / "head.nii.gz"), values(out / "head.nii.gz")
    assert np.allclose(again, image, atol=1e-4 * image.max())
    level = json.loads((out / "head.json").read_text())["noise"]["noise_level"]
    assert np.allclose(np.load(out / "head_noise.npy"), level**2 * np.eye(4))


def test_maps_of_whitened_coils_are_kept_as_those_of_the_coils(scan: Path) -> None:
    from dataclasses import replace

    volume = read_volume(scan)
    root = np.eye(4) + 0.3j * np.tri(4, k=-1)
    volume = replace(volume, noise_covariance=1e-4 * root @ root.conj().T)
    prepared = prepare(volume, noise_level=0.01)
    again = prepare(volume, unmixed_maps(prepared), noise_level=0.01)
    assert float((again.sensitivity_maps - prepared.sensitivity_maps).abs().max()) < 1e-5


def test_a_run_that_asks_for_less_leaves_nothing_behind_and_for_more_does_it_again(
    scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["reconstruct", str(scan), "--out", str(tmp_path), "--model", "zero-filled", "--resume"]
    assert main(command) == 0
    assert main([*command, "--output", "phase"]) == 0
    assert "kept" not in capsys.readouterr().out and (tmp_path / "head_part-phase.nii.gz").exists()
    assert main([*command, "--output", "phase"]) == 0
    assert "kept" in capsys.readouterr().out
    (tmp_path / "head_part-phase.nii.gz").unlink()
    assert main([*command, "--output", "phase"]) == 0
    assert (tmp_path / "head_part-phase.nii.gz").exists()
    assert main(command) == 0
    assert not (tmp_path / "head_part-phase.nii.gz").exists()


def test_a_bids_data_set_gets_the_phase_too(scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, bids = tmp_path / "out", tmp_path / "bids"
    options = ["--bids", str(bids), "--subject", "01", "--suffix", "T2w", "--output", "phase", "--resume"]
    command = ["reconstruct", str(scan), "--out", str(out), "--model", "zero-filled", *options]
    assert main(command) == 0
    stem = "sub-01/anat/sub-01_rec-molrecon_part-phase_T2w"
    assert np.array_equal(values(bids / f"{stem}.nii.gz"), values(out / "head_part-phase.nii.gz"))
    assert json.loads((bids / f"{stem}.json").read_text())["Units"] == "rad"
    (volume,) = json.loads((out / "manifest.json").read_text())["volumes"]
    assert any(path.endswith(f"{stem}.nii.gz") for path in volume["outputs"])
    validator = shutil.which("bids-validator-deno", path=str(Path(sys.executable).parent))
    if validator is not None:
        done = subprocess.run([validator, "--json", bids], capture_output=True, text=True, check=False)
        issues = json.loads(done.stdout)["issues"]["issues"]
        assert [issue for issue in issues if issue["severity"] == "error"] == []
    (bids / f"{stem}.nii.gz").unlink()
    capsys.readouterr()
    assert main(command) == 0
    assert (bids / f"{stem}.nii.gz").exists() and "kept" not in capsys.readouterr().out


@pytest.mark.parametrize("options", [("--tol", "0.1"), ("--model", "admm-net-2d")])
def test_noise_maps_of_learned_methods(options: tuple[str, str], scan: Path, tmp_path: Path) -> None:
    """Of the model that the scan chooses, and of an unrolled one."""
    assert main(["reconstruct", str(scan), "--out", str(tmp_path), "--noise-map", "1", *options]) == 0
    deviation = values(tmp_path / "head_desc-noise.nii.gz")
    assert deviation.shape == (2, *SHAPE) and deviation.max() > 0


def test_a_part_does_not_replace_an_input(scan: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    maps = out / "head_maps.npy"
    command = ["reconstruct", str(scan), "--out", str(out), "--model", "zero-filled", "--maps", str(maps)]
    before = maps.read_bytes()
    assert main([*command, "--keep", "maps"]) == 2
    assert "would replace an input" in capsys.readouterr().err and maps.read_bytes() == before


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (("--output", "phases"), "phases, expected some of magnitude, phase, complex"),
        (("--keep", "masks"), "masks, expected some of maps, noise"),
        (("--noise-map", "0"), "whole number of 1 or more"),
        (("--noise-map", "--model", "l1-wavelet"), "whose derivative is known"),
    ],
)
def test_what_is_not_there_is_said(scan, tmp_path, capsys, options, word) -> None:
    try:
        code: object = main(["reconstruct", str(scan), "--out", str(tmp_path), *options])
    except SystemExit as error:
        code = error.code
    assert code == 2 and word in capsys.readouterr().err


def test_the_g_factor_of_a_full_scan_is_one_and_noise_is_that_of_the_scan(scan: Path) -> None:
    """Without regularisation to speak of, in the object: where the maps see nothing, there is no noise either."""
    prepared = prepare(read_volume(scan), noise_level=0.02)
    result = reconstruct_prepared(prepared, CGSense(1e-3), parts=Parts(noise_probes=200))
    assert result.noise is not None
    deviation, amplification = result.noise
    inside = result.image > 0.3 * result.image.max()
    assert deviation.shape == result.image.shape and deviation.dtype == np.float32
    acceleration = prepared.sampling_mask.numel() / int(prepared.sampling_mask.sum())
    if acceleration == 1:
        assert np.median(amplification[inside]) == pytest.approx(1, abs=0.03)
    # Of the magnitude: half of the variance of the complex image.
    ratio = deviation[inside] / (0.02 * np.sqrt(acceleration / 2) * amplification[inside])
    assert np.median(ratio) == pytest.approx(1, abs=0.03)


def test_two_sets_of_which_one_is_empty_are_one() -> None:
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(1, 3, 12, 10, dtype=torch.complex64, generator=generator)
    maps = maps / torch.linalg.vector_norm(maps, dim=1, keepdim=True)
    mask = torch.arange(10) % 2 == 0
    one, two = Sense(maps, mask), SoftSense(torch.stack([maps, torch.zeros_like(maps)], 1), mask)
    image = torch.randn(1, 12, 10, dtype=torch.complex64, generator=generator)
    kspace = one(image)
    method = CGSense(0.1)
    pair = torch.stack([image, torch.zeros_like(image)], 1)
    first = noise_maps(method, one, kspace, 0.5, image, None, 3, [7])
    second = noise_maps(method, two, kspace, 0.5, pair, None, 3, [7])
    for name in ("deviation", "amplification"):
        assert float((getattr(first, name) - getattr(second, name)).abs().max()) < 2e-3

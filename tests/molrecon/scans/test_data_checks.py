"""The checks of data against model: silent on sound scans, heard on broken ones. Thresholds were set on more scans."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from molrecon.command.parser import main
from molrecon.io import RawVolume, read_npy, read_volume
from molrecon.reconstructors.base import Reconstructor
from molrecon.reconstructors.classical import CGSense, ZeroFilled
from molrecon.reconstructors.conditioning import Conditioning
from molrecon.scans.comparison import undersample
from molrecon.scans.data_checks import check_slice
from molrecon.scans.data_warnings import DataWarning, noise_warnings
from molrecon.scans.preparation import prepare
from molrecon.scans.quality_page import summary
from molrecon.scans.reconstruction import Reconstruction, reconstruct_volume
from molrecon.simulation.phantom import coil_maps, write_phantom
from molrecon.solvers.solution import Solution, unbounded_solution
from molrecon.solvers.solver_settings import SolverSettings
from operators import LinearOperator, Sense, centred_fft, equispaced_fraction_mask, random_mask

DATA = os.environ.get("MOLRECON_DATA")
needs_data = pytest.mark.skipif(DATA is None, reason="MOLRECON_DATA is not set: no measured scans here")

MASKS = {"random": random_mask, "equispaced": equispaced_fraction_mask}
CENTER_FRACTION = {2: 0.12, 4: 0.08, 8: 0.06}


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., RawVolume]:
    folder = tmp_path_factory.mktemp("phantoms")

    def phantom(seed: int = 0, **arguments: Any) -> RawVolume:
        path = folder / f"{seed}-{abs(hash(tuple(arguments.items())))}.h5"
        return read_volume(path if path.exists() else write_phantom(path, seed=seed, **arguments))

    return phantom


@pytest.fixture(scope="module")
def brain() -> RawVolume:
    return read_npy(Path(DATA or "") / "mri" / "brain_mprage_8ch_230x180_ksp_c64.npy")


@pytest.fixture(scope="module")
def four_coil_brain() -> RawVolume:
    with np.load(Path(DATA or "") / "mri" / "multicoil_brain_4ch_ge_coilimages_i16.npz") as file:
        components = torch.from_numpy(file["x"].astype(np.float32) / 32767)
    return with_kspace(None, centred_fft(torch.complex(components[:, 0], components[:, 1]), (-2, -1))[None].numpy())


def with_kspace(volume: RawVolume | None, kspace: np.ndarray) -> RawVolume:
    """Return a volume of other, fully sampled k-space."""
    mask = np.ones((1, 1, kspace.shape[-1]), dtype=bool)
    if volume is None:
        return RawVolume(Path("scan"), kspace, mask, kspace.shape[-2:], "0" * 64)
    shape = min(volume.recon_shape[0], kspace.shape[-2]), min(volume.recon_shape[1], kspace.shape[-1])
    return replace(volume, kspace=kspace, sampling_mask=mask, recon_shape=shape, reference=None)


def measured(
    volume: RawVolume, acceleration: int, lines: int | None = None, kind: str = "random", seed: int = 0
) -> RawVolume:
    """Return the scan undersampled, with so many central lines."""
    cols = volume.kspace.shape[-1]
    share = CENTER_FRACTION[acceleration] if lines is None else lines / cols
    return undersample(volume, MASKS[kind](cols, acceleration, share, seed), 0.0, [seed])


def folded(volume: RawVolume) -> RawVolume:
    """Return the scan with every second phase encode as the full grid: half of the field of view, the head wraps."""
    cols = volume.kspace.shape[-1]
    return with_kspace(volume, np.ascontiguousarray(volume.kspace[..., cols // 2 % 2 :: 2]))


def warned(volume: RawVolume, model: Reconstructor | None = None, **arguments: Any) -> list[str]:
    """Return the names of the checks that warn of a volume."""
    result = reconstruct_volume(volume, model or CGSense(), **arguments)
    return sorted({warning.check for warning in result.warnings})


@pytest.mark.parametrize("acceleration", [4, 8])
@pytest.mark.parametrize("kind", MASKS)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_no_false_alarm_on_the_sample(seed: int, kind: str, acceleration: int, phantoms: Callable[..., RawVolume]):
    volume = phantoms(seed, slices=1)
    assert warned(measured(volume, acceleration, kind=kind, seed=seed)) == []


@pytest.mark.parametrize(
    "arguments",
    [
        {"noise_level": 0.0},
        {"noise_level": 1e-3},
        {"noise_level": 0.1},
        {"coils": 1},
        {"coils": 2},
        {"coils": 16},
        {"shape": (64, 48)},
    ],
    ids=str,
)
def test_no_false_alarm_on_other_phantoms(arguments: dict[str, object], phantoms: Callable[..., RawVolume]):
    volume = phantoms(3, slices=1, **arguments)
    assert warned(measured(volume, 2)) == []
    assert warned(volume) == []


def test_no_false_alarm_with_the_true_maps(phantoms: Callable[..., RawVolume]):
    volume = measured(phantoms(6, slices=2), 4)
    assert warned(volume, maps=coil_maps(2, 8, (192, 168), 6)) == []


def test_the_norm_of_maps_means_nothing(phantoms: Callable[..., RawVolume]):
    prepared = prepare(measured(phantoms(3, slices=1, shape=(64, 48)), 2))
    operator, noise = prepared.cartesian_operator([0]), prepared.noise_level
    image = CGSense()(prepared.kspace, operator).value
    scaled = Sense(0.1 * prepared.sensitivity_maps[:, 0], prepared.sampling_mask)
    one = asdict(check_slice(prepared.kspace, operator, noise, image))
    other = asdict(check_slice(prepared.kspace, scaled, noise, 10 * image))
    assert other.pop("calibration_shape") == one.pop("calibration_shape")
    assert other == pytest.approx(one, rel=1e-3, nan_ok=True)


@needs_data
@pytest.mark.parametrize("kind", MASKS)
@pytest.mark.parametrize(("acceleration", "lines"), [(4, 24), (8, 12), (8, 16)])
def test_no_false_alarm_on_a_real_brain(kind: str, acceleration: int, lines: int, brain: RawVolume):
    for seed in (0, 1):
        assert warned(measured(brain, acceleration, lines, kind, seed)) == []


@needs_data
def test_coil_images_that_were_filtered_are_found_by_their_noise_alone(four_coil_brain: RawVolume):
    # The edge of k-space holds a twentieth of the noise in the background of the images, 0.005.
    scan = measured(four_coil_brain, 4, 24)
    assert warned(scan) == ["noise estimates"]
    assert warned(scan, noise_level=0.005) == []


@pytest.mark.parametrize("acceleration", [2, 4])
def test_a_folded_phantom(acceleration: int, phantoms: Callable[..., RawVolume]):
    scan = measured(folded(phantoms(0, slices=1)), acceleration, 16)
    assert {"calibration misfit", "second map set", "data not explained"} <= set(warned(scan, map_sets=1))
    # Two sets of maps explain the data; that they were needed is said all the same.
    assert "second map set" in warned(scan) and "data not explained" not in warned(scan)


@needs_data
@pytest.mark.parametrize(("acceleration", "lines"), [(2, 24), (4, 16)])
def test_a_head_larger_than_the_field_of_view(acceleration: int, lines: int, brain: RawVolume):
    scan = measured(folded(brain), acceleration, lines)
    result = reconstruct_volume(scan, CGSense(), map_sets=1)
    assert result.kind == "certified"  # of the method's own equation, and all the same
    found = {warning.check: warning for warning in result.warnings}
    assert {"calibration misfit", "second map set", "data not explained"} <= found.keys()
    assert "use two map sets" in found["second map set"].advice
    both = reconstruct_volume(scan, CGSense())
    assert ["two map sets are used" in w.advice for w in both.warnings if w.check == "second map set"] == [True]
    assert both.checks[0].least_squares_sigmas < 0.8 * result.checks[0].least_squares_sigmas
    assert ("bright pixels" in found) == (acceleration == 4)


@needs_data
@pytest.mark.parametrize(
    "change", [lambda s: s[..., ::-1], lambda s: s[..., ::-1, :], np.conj, lambda s: s[..., ::-1, :, :]]
)
def test_wrong_maps(change: Callable[[np.ndarray], np.ndarray], brain: RawVolume):
    scan = measured(brain, 4, 24)
    maps = prepare(scan).sensitivity_maps.numpy()
    assert warned(scan, maps=maps) == []
    assert {"calibration misfit", "data not explained"} <= set(warned(scan, maps=np.ascontiguousarray(change(maps))))


def test_maps_of_another_slice(phantoms: Callable[..., RawVolume]):
    scan = measured(phantoms(0), 4)
    far = [0, 7]  # 35 mm apart
    scan = replace(scan, kspace=scan.kspace[far], reference=None)
    maps = prepare(scan).sensitivity_maps.numpy()
    result = reconstruct_volume(scan, ZeroFilled(), maps=maps[::-1].copy())
    assert {warning.slice for warning in result.warnings if warning.check == "calibration misfit"} == {0, 1}


@needs_data
@pytest.mark.parametrize("offset", [-8, -5, 8, -47])
def test_a_line_that_is_too_strong(offset: int, brain: RawVolume):
    scan = measured(brain, 4, 24)
    columns = np.flatnonzero(scan.sampling_mask[0, 0]) - 90
    column = int(columns[np.abs(columns - offset).argmin()]) + 90
    kspace = scan.kspace.copy()
    kspace[..., column] *= 5
    result = reconstruct_volume(replace(scan, kspace=kspace), CGSense())
    found = {warning.check: warning for warning in result.warnings}
    assert f"column {column} " in found["inconsistent line"].advice


@needs_data
@pytest.mark.parametrize("offset", [-8, -5, -3])
def test_a_line_that_is_shifted(offset: int, brain: RawVolume):
    scan = measured(brain, 4, 24)
    kspace = scan.kspace.copy()
    kspace[..., 90 + offset] = np.roll(kspace[..., 90 + offset], 5, axis=-1)
    broken = replace(scan, kspace=kspace)
    assert {"inconsistent line", "data not explained"} & set(warned(broken, map_sets=1))
    assert {"inconsistent line", "data not explained", "second map set"} & set(warned(broken))


def test_a_line_of_the_phantom(phantoms: Callable[..., RawVolume]):
    scan = measured(phantoms(0, slices=1), 4)
    kspace = scan.kspace.copy()
    kspace[..., 84 + 5] *= 5
    assert "inconsistent line" in warned(replace(scan, kspace=kspace))


@pytest.mark.parametrize("factor", [0.1, 10.0])
def test_a_noise_level_that_is_ten_times_wrong(factor: float, phantoms: Callable[..., RawVolume]):
    scan = measured(phantoms(0, slices=1), 4)
    assert warned(scan, noise_level=0.01) == []
    result = reconstruct_volume(scan, CGSense(), noise_level=0.01 * factor)
    warning = next(warning for warning in result.warnings if warning.check == "noise level")
    assert warning.slice is None
    assert warning.value == pytest.approx(10, rel=0.2)
    assert ("above" if factor > 1 else "below") in warning.advice


@needs_data
@pytest.mark.parametrize("factor", [0.1, 10.0])
def test_a_noise_level_of_the_real_brain_that_is_ten_times_wrong(factor: float, brain: RawVolume):
    assert "noise level" in warned(measured(brain, 4, 24), noise_level=1.72 * factor)


def test_noise_estimates_are_compared_both_ways():
    sound = {"outer readout": 1.0, "null space": 1.1, "periphery": 1.3}
    assert noise_warnings(1.0, sound, estimated=True) == []
    assert noise_warnings(1.0, {**sound, "periphery": 30.0}, estimated=True) == []  # fine detail, not noise
    assert noise_warnings(1.0, {"null space": torch.nan, "periphery": 1.0}, estimated=True) == []
    assert noise_warnings(0.1, {"null space": 1.0, "periphery": 0.1}, estimated=True)
    assert noise_warnings(0.1, {**sound, "outer readout": 0.1}, estimated=True)
    assert noise_warnings(0.0, sound, estimated=False)[0].value == np.inf
    assert noise_warnings(0.0, {"periphery": 1e-8}, estimated=False, rounding=1e-7) == []
    assert noise_warnings(2.0, sound, estimated=False) == []


class Changed(Reconstructor):
    """CG-SENSE, and then a change."""

    def __init__(self, change: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.change = change

    def _solve(
        self,
        kspace: Tensor,
        operator: LinearOperator,
        conditioning: Conditioning | None,
        start: Tensor | None,
        solver: SolverSettings | None,
    ) -> Solution:
        return unbounded_solution(self.change(CGSense()(kspace, operator).value))


def spiked(image: Tensor) -> Tensor:
    image = image.clone()
    image[:, 60, 60] = 5 * image.abs().max()
    return image


def test_images_that_the_data_do_not_support(phantoms: Callable[..., RawVolume]):
    scan = measured(phantoms(0, slices=1), 4)
    assert warned(scan, Changed(lambda image: 2 * image)) == [
        "bright pixels",
        "farther than zero-filling",
        "image residual",
    ]
    assert "bright pixels" in warned(scan, Changed(spiked))
    assert warned(scan, ZeroFilled()) == ["image residual"]  # true, and not farther than itself


def test_empty_slices_and_remarks(phantoms: Callable[..., RawVolume]):
    scan = measured(phantoms(0, slices=2), 4)
    kspace = scan.kspace.copy()
    kspace[0] = 0
    result = reconstruct_volume(replace(scan, kspace=kspace, remarks=("a remark",)), CGSense())
    assert result.warnings == [DataWarning(None, "remark", None, None, "a remark")]
    assert np.isnan(result.checks[0].residual_sigmas)
    assert 0.8 < result.checks[1].residual_sigmas < 1.2


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small phantom whose head wraps, with every second column missing outside the centre."""
    path = tmp_path_factory.mktemp("broken") / "head.npy"
    volume = read_volume(write_phantom(path.with_suffix(".h5"), slices=2, shape=(96, 96)))
    kspace = folded(volume).kspace
    keep = np.arange(kspace.shape[-1]) % 2 == 0
    keep[14:34] = True
    np.save(path, np.where(keep, kspace, 0))
    return path


def test_warnings_are_printed_and_stored(broken: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    arguments = ["reconstruct", str(broken), "--out", str(tmp_path), "--model", "cg-sense"]
    assert main(arguments) == 0
    printed = capsys.readouterr()
    assert f"molrecon: warning: {broken}: slice 1: second map set" in printed.err
    assert "; warnings: " in printed.out
    sidecar = json.loads((tmp_path / "head.json").read_text())
    volume = json.loads((tmp_path / "manifest.json").read_text())["volumes"][0]
    assert sidecar["warnings"] == volume["warnings"]
    first = sidecar["warnings"][0]
    assert first.keys() == {"slice", "check", "value", "threshold", "advice"}
    assert first["value"] > first["threshold"]
    assert sidecar["slices"][0]["checks"]["second_set_energy"] > 0.002
    assert sidecar["sensitivity_maps"]["sets"] == sidecar["slices"][0]["checks"]["sets"] == 2
    assert sidecar["noise"]["estimates"].keys() == {"null space", "periphery"}

    assert main([*arguments, "--strict"]) == 5
    capsys.readouterr()
    assert main([*arguments, "--strict", "--resume"]) == 5  # kept outputs are no better
    assert "second map set" in capsys.readouterr().err


def test_strict_lets_sound_scans_pass(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = write_phantom(tmp_path / "head.h5", slices=1, shape=(96, 80))
    assert main(["reconstruct", str(path), "--out", str(tmp_path / "out"), "--model", "cg-sense", "--strict"]) == 0
    assert "warning" not in capsys.readouterr().err


def test_the_page_tells_of_warnings(broken: Path):
    prepared = prepare(read_volume(broken))
    result: Reconstruction = reconstruct_volume(prepared.volume, CGSense(), map_sets=1)
    page = summary(prepared, result)
    assert "WARNING       slice 0: calibration misfit" in page
    assert "two map sets" in " ".join(page.split())
    assert max(map(len, page.splitlines())) <= 100

"""Which model reconstructs which scan: by the scan with `auto`, by the model's axes with any other."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from molrecon.command.parser import main
from molrecon.io import Frame, Reader
from molrecon.networks import ResidualNetwork
from molrecon.reconstructors.classical import CGSense
from molrecon.reconstructors.defaults import AUTOMATIC, DEFAULT_MODEL, SERIES_MODEL
from molrecon.reconstructors.mol import MOL
from molrecon.scans.info import describe_scan
from molrecon.scans.kinds.choice import Automatic, automatic_unit, choose
from molrecon.scans.methods import load_method
from molrecon.scans.scan import Scan
from molrecon.scans.scan_reconstruction import reconstruct_scan
from molrecon.scans.settings import Settings
from molrecon.scans.sidecar import ModelSource
from molrecon.weights import save, weights_hash
from operators import poisson_disc_mask

COILS, ROWS, COLS = 2, 24, 20
EVERY_SECOND = np.zeros((ROWS, COLS), bool)
EVERY_SECOND[:, ::2] = EVERY_SECOND[8:16, 6:14] = True  # with a calibration region
POISSON = poisson_disc_mask((ROWS, COLS), 4, 0, (8, 8))


def random(*shape: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    return (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(np.complex64)


def slab(mask: np.ndarray) -> Scan:
    return Scan.from_arrays(random(3, COILS, ROWS, COLS), mask, volumetric=True)


def frames(count: int, step: int, *, turning: bool = True) -> Scan:
    """Every `step`-th column of each frame, and of others in the next where the pattern is turning."""
    mask = np.zeros((count, 1, 1, COLS), bool)
    for k in range(count):
        mask[k, ..., k % step if turning else 0 :: step] = True
    return Scan.from_arrays(random(count, 2, COILS, ROWS, COLS), mask)


def network(ndim: int) -> ResidualNetwork:
    return ResidualNetwork(ndim=ndim, monotonicity=0.3, channels=2, features=4, levels=1, cycles=1)


@pytest.fixture(scope="module")
def automatic() -> Automatic:
    sources = ModelSource(DEFAULT_MODEL, "0" * 64), ModelSource(SERIES_MODEL, "1" * 64)
    return Automatic(MOL(network(2)).eval(), MOL(network(3)).eval(), sources)


@pytest.mark.parametrize(
    ("scan", "unit", "reason"),
    [
        (slab(POISSON), "slice", "a 3D scan accelerated 4 times; taken apart along"),
        (slab(EVERY_SECOND), "slice", "a 3D scan accelerated 1.76 times; taken apart along"),
        (Scan.from_arrays(random(3, COILS, ROWS, COLS)), "slice", "a scan of 2D slices"),
        (frames(8, 8), "series", "times, in patterns that change"),
        (frames(8, 4), "series", "each accelerated 4 times, in patterns that change"),
        (frames(8, 2), "slice", "each accelerated 2 times, which is little enough"),
        (frames(8, 8, turning=False), "slice", "times, all in one pattern"),
        (frames(3, 8), "slice", "fewer than 4 of one size"),
    ],
)
def test_a_scan_gets_the_model_that_fits_it(automatic: Automatic, scan: Scan, unit: str, reason: str) -> None:
    (series,) = scan.series()
    choice = choose(series, automatic)
    assert choice.unit == unit == automatic_unit(series)[0] and reason in choice.reason
    names = {"slice": DEFAULT_MODEL, "series": SERIES_MODEL}
    assert choice.source is not None and choice.source.name == names[unit]
    assert bool(choice.cautions) == (unit != "slice")
    assert choice.describe(ModelSource(AUTOMATIC, "abc")) == {
        "asked_for": AUTOMATIC,
        "weights_sha256": "abc",
        "model": names[unit],
        "model_weights_sha256": choice.source.weights_sha256,
        "seen_at_a_time": unit,
        "reason": choice.reason,
    }


def test_frames_may_differ_in_whether_their_slices_are_sampled_alike() -> None:
    mask = np.zeros((8, 2, 1, COLS), bool)
    for k in range(8):
        mask[k, :, :, k % 8 :: 8] = True
    mask[3, 1] = np.roll(mask[3, 1], 1, -1)
    (series,) = Scan.from_arrays(random(8, 2, COILS, ROWS, COLS), mask).series()
    assert len({frame.volume.sampling_mask.shape for frame in series.frames}) == 2
    assert automatic_unit(series)[0] == "series"


def test_a_model_that_was_named_sees_what_it_has_axes_for() -> None:
    volumes, planes = MOL(network(3)), MOL(network(2))
    assert choose(slab(EVERY_SECOND).series()[0], volumes).unit == "volume"
    assert choose(frames(2, 2).series()[0], volumes).unit == "series"
    for model in (planes, CGSense()):
        for scan in (slab(POISSON), frames(8, 8)):
            assert choose(scan.series()[0], model).unit == "slice"
    with pytest.raises(ValueError, match="MOL has 3 spatial axes and the scan is of 2D slices, expected a 3D scan"):
        choose(frames(1, 2).series()[0], volumes)


def test_the_packaged_models_are_behind_the_word_auto() -> None:
    model, source = load_method(AUTOMATIC)
    assert isinstance(model, Automatic) and source == load_method(AUTOMATIC)[1]
    assert [model.of(unit).ndim for unit in ("slice", "series")] == [2, 3]
    assert model.sources["series"] == ModelSource(SERIES_MODEL, weights_hash(SERIES_MODEL))
    assert source.weights_sha256 not in (None, *(one.weights_sha256 for one in model.sources.values()))
    assert Settings().sha256(model) == Settings().sha256(load_method(AUTOMATIC)[0])


def test_what_the_call_says_of_the_solver_holds_for_the_model_that_is_chosen(automatic: Automatic) -> None:
    automatic.solver = automatic.slices.solver
    together = automatic.series
    assert together.solver is not None and automatic.solver is not None
    together.solver = replace(together.solver, window=3)
    solver = replace(automatic.solver, tol=0.1, max_steps=2)
    settings = Settings(solver=solver, maps=random(2, COILS, ROWS, COLS), noise_level=1.0)
    (found,) = reconstruct_scan(frames(8, 8), automatic, settings)
    assert found.result.unit == "series"
    assert found.result.solver == replace(together.solver, tol=0.1, max_steps=2)
    assert found.result.n_steps.max() <= 2


def test_log_sidecar_and_manifest_say_what_was_chosen_and_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def read(path: Path) -> list[Frame]:
        return list(frames(8, 8).renamed(path).frames)

    reader = Reader((".cine",), lambda path: path.suffix == ".cine", lambda path: read(path)[0].volume, read)
    monkeypatch.setattr("molrecon.io.READERS", [reader])
    for name in (SERIES_MODEL, DEFAULT_MODEL):  # small ones under the packaged names
        save(MOL(network(2 if name == DEFAULT_MODEL else 3)), tmp_path / f"{name}.safetensors", {})
    monkeypatch.setattr("molrecon.weights._packaged", lambda: {p.stem: p for p in tmp_path.glob("*.safetensors")})
    scan, out, maps = tmp_path / "heart.cine", tmp_path / "out", tmp_path / "maps.npy"
    scan.write_bytes(b"cine")
    np.save(maps, random(2, COILS, ROWS, COLS))
    command = ["reconstruct", str(scan), "--out", str(out), "--maps", str(maps), "--noise-level", "0.01"]
    with caplog.at_level(logging.INFO, logger="molrecon"):
        assert main([*command, "--max-steps", "2"]) in (0, 5)
    reason = automatic_unit(frames(8, 8).series()[0])[1]
    assert any(
        f"all frames of a slice together, by {SERIES_MODEL}: {reason}" in record.getMessage()
        for record in caplog.records
    )
    sidecar = json.loads((out / "heart.json").read_text())
    assert sidecar["model"]["name"] == SERIES_MODEL
    assert sidecar["model"]["weights_sha256"] == weights_hash(tmp_path / f"{SERIES_MODEL}.safetensors")
    assert sidecar["summary"]["bound_of"] == "series"
    (choice,) = sidecar["model_choice"]
    assert (choice["asked_for"], choice["seen_at_a_time"], choice["reason"]) == (AUTOMATIC, "series", reason)
    assert any("trained on frames of hearts" in warning["advice"] for warning in sidecar["warnings"])
    (entry,) = json.loads((out / "manifest.json").read_text())["volumes"]
    assert entry["model_choice"] == [choice] and "all frames of a slice together" in entry["message"]
    described = describe_scan(scan)
    assert described["model"] == SERIES_MODEL and described["outputs"][0]["reason"] == reason

    monkeypatch.setattr("molrecon.scans.cohort.earlier_run.input_sha256", lambda path: sidecar["input"]["sha256"])
    monkeypatch.setattr("molrecon.scans.cohort.one_volume.reconstruct_one", None)
    main([*command, "--max-steps", "2", "--resume"])
    (entry,) = json.loads((out / "manifest.json").read_text())["volumes"]
    assert entry["skipped"] and entry["model_choice"] == [choice]

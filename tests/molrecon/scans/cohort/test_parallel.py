"""Cohorts in several processes: killed workers, a killed shard, and the same images as in one process."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from molrecon.networks import ResidualNetwork
from molrecon.reconstructors.mol import MOL
from molrecon.scans.cohort import reconstruct_cohort
from molrecon.scans.cohort.parallel import InWorkers, _remove_unfinished, load_same
from molrecon.scans.cohort.recipe import Recipe
from molrecon.scans.methods import load_method
from molrecon.scans.outputs import temporary_prefix
from molrecon.scans.settings import Settings
from molrecon.scans.sidecar import ModelSource
from molrecon.simulation.phantom import write_phantom
from molrecon.weights import save
from tests.benchmarks.cohort import check, make_volumes, survive


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="processes are looked up in /proc")
def test_every_volume_has_one_record_whoever_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NULL_SECONDS", "0.2")
    make_volumes(tmp_path, 60)
    done = survive(tmp_path, shards=2, workers=2, kills=4, pause=1.0)
    assert "shard 2 killed and restarted" in done[0]
    check(tmp_path, 60)


def test_the_same_image_as_in_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("molrecon.scans.quality_page.RESOLUTION", 10)  # of this process' pages
    scan = write_phantom(tmp_path / "scan.h5", slices=1, coils=4, shape=(32, 30), seed=1)
    network = ResidualNetwork(monotonicity=0.2, channels=2, features=4, levels=1, cycles=1)
    save(MOL(network).eval(), tmp_path / "mine.safetensors", {"data": "none"})
    model, source = load_method(str(tmp_path / "mine.safetensors"))
    bad = tmp_path / "bad.h5"
    bad.write_bytes(b"nothing")
    here = reconstruct_cohort([bad, scan], tmp_path / "here", model, source, Settings())
    there = reconstruct_cohort(
        [bad, scan], tmp_path / "there", model, source, Settings(device="cuda"), execute=InWorkers(2, ["cpu"])
    )
    assert [entry.status for entry in there] == [entry.status for entry in here] == ["unreadable", "ok"]
    files: list[Any] = [nib.load(tmp_path / out / "scan.nii.gz") for out in ("here", "there")]
    images = [np.asanyarray(one.dataobj) for one in files]
    np.testing.assert_allclose(images[0], images[1], rtol=1e-4, atol=1e-4 * images[0].max())
    kept = reconstruct_cohort([scan], tmp_path / "there", model, source, Settings(), resume=True)
    assert [entry.skipped for entry in kept] == [True]


def test_other_weights_by_now(tmp_path: Path) -> None:
    recipe = Recipe(ModelSource("zero-filled", None), Settings(), "0" * 64, tmp_path)
    load_same(recipe)
    with pytest.raises(ValueError, match="has weights None, expected 1111"):
        load_same(replace(recipe, source=ModelSource("zero-filled", "1" * 64)))


def test_what_a_dead_process_left_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "node")
    for process in (12, 123):
        folder = tmp_path / f"{temporary_prefix('node', process)}abc"
        folder.mkdir()
        np.save(folder / "half.npy", np.zeros(3))
    _remove_unfinished(tmp_path, 12)
    assert [path.name for path in tmp_path.iterdir()] == [".node-123-abc"]
    _remove_unfinished(None, 123)

"""Cohorts on a Dask cluster: the records of one process, whoever is killed, and what is refused."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from molrecon.command.parser import main
from molrecon.reconstructors.base import Reconstructor
from molrecon.scans.cohort import reconstruct_cohort
from molrecon.scans.cohort.recipe import Item, Outcome, Recipe
from molrecon.scans.methods import load_method
from molrecon.scans.outputs import temporary_prefix
from molrecon.scans.settings import Settings
from molrecon.simulation.phantom import write_phantom
from tests.benchmarks.cohort import POISON, check, make_volumes, null

distributed = pytest.importorskip("distributed", reason="needs the extra dask")

from molrecon.scans.cohort.dask_cluster import InDask  # noqa: E402 - needs distributed


def marked(item: Item, model: Reconstructor, recipe: Recipe) -> Outcome:
    """Leave a hidden folder, as a reconstruction that is under way does, and the number of the process."""
    assert recipe.out is not None
    folder = recipe.out / f"{temporary_prefix(os.uname().nodename, os.getpid())}x"
    folder.mkdir(exist_ok=True)
    (recipe.out.parent / "processes" / str(os.getpid())).touch()
    outcome = null(item, model, recipe)
    folder.rmdir()
    return outcome


def killer(folder: Path, kills: int) -> Callable[[], None]:
    """Return what kills so many of the processes that have left their number, one after the other."""

    def kill() -> None:
        killed: set[int] = set()
        end = time.monotonic() + 60
        while len(killed) < kills and time.monotonic() < end:
            time.sleep(0.3)
            alive = [int(path.name) for path in folder.iterdir()]
            for process in alive:
                if process not in killed and Path(f"/proc/{process}").exists():
                    killed.add(process)
                    os.kill(process, signal.SIGKILL)
                    break

    return kill


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="processes are looked up in /proc")
def test_every_volume_has_one_record_whoever_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NULL_SECONDS", "0.2")
    make_volumes(tmp_path, 16)
    (tmp_path / "processes").mkdir()
    model, source = load_method("zero-filled")
    inputs = sorted((tmp_path / "in").iterdir())
    thread = threading.Thread(target=killer(tmp_path / "processes", 1))
    thread.start()
    entries = reconstruct_cohort(
        inputs, tmp_path / "out", model, source, Settings(), execute=InDask(workers=2, carry_out=marked)
    )
    thread.join()
    check(tmp_path, 16)
    (failed,) = (entry for entry in entries if entry.status == "failed")
    assert Path(failed.input).stem == POISON and "every Dask worker that worked on it died" in failed.message
    assert len(list((tmp_path / "processes").iterdir())) >= 4  # two at first, and those in the places of the killed
    assert not list((tmp_path / "out").glob(".*"))


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Of a cluster that is running already, with one worker."""
    with distributed.LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster:
        yield str(cluster.scheduler_address)


def test_the_images_of_a_running_cluster(
    tmp_path: Path, address: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("molrecon.scans.quality_page.RESOLUTION", 10)  # of this process' pages
    monkeypatch.chdir(tmp_path)
    write_phantom(tmp_path / "scan.h5", slices=1, coils=4, shape=(32, 30), seed=1)
    (tmp_path / "bad.h5").write_bytes(b"nothing")
    command = ["reconstruct", "bad.h5", "scan.h5", "--model", "cg-sense", "--device", "cpu", "--no-paths"]
    assert main([*command, "--out", "here"]) == 4
    assert main([*command, "--out", "there", "--dask", address]) == 4
    assert "bad.h5" in capsys.readouterr().err
    entries = {}
    for out in ("here", "there"):
        content = json.loads((tmp_path / out / "manifest.json").read_text())
        entries[out] = {one["name"]: (one["input"], one["status"], one["model"]) for one in content["volumes"]}
    assert entries["here"] == entries["there"] and entries["there"]["scan"][1] == "ok"
    files: list[Any] = [nib.load(tmp_path / out / "scan.nii.gz") for out in ("here", "there")]
    images = [np.asanyarray(one.dataobj) for one in files]
    np.testing.assert_allclose(images[0], images[1], rtol=1e-4, atol=1e-4 * images[0].max())
    assert main([*command, "--out", "there", "--dask", address, "--resume"]) == 4
    assert "earlier run kept" in capsys.readouterr().out


def test_a_worker_of_another_version_works_not(tmp_path: Path, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "molrecon.scans.cohort.dask_cluster.versions", lambda: {"molrecon": "another"}
    )  # of this process
    model, source = load_method("zero-filled")
    with pytest.raises(ValueError, match=r"a Dask worker has molrecon .*, expected another"):
        reconstruct_cohort([tmp_path / "a.npy"], tmp_path / "out", model, source, Settings(), execute=InDask(address))


def test_an_empty_shard_starts_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("molrecon.scans.cohort.dask_cluster.LocalCluster")
    model, source = load_method("zero-filled")
    assert reconstruct_cohort([], tmp_path / "out", model, source, Settings(), execute=InDask(workers=2)) == []


def test_what_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["reconstruct", str(tmp_path / "a.npy"), "--out", str(tmp_path / "out"), "--model", "zero-filled"]
    assert main([*command, "--dask", "tcp://127.0.0.1:1", "--workers", "2"]) == 2
    assert "expected a cluster that is running already to bring its own" in capsys.readouterr().err
    assert main([*command, "--dask", "carrier-pigeon://1"]) == 2
    assert "carrier-pigeon://1, expected local, or the address of a Dask scheduler" in capsys.readouterr().err


def test_the_extra_is_asked_for(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    monkeypatch.delitem(sys.modules, "molrecon.scans.cohort.dask_cluster")
    assert main(["reconstruct", "a.npy", "--out", "out", "--dask", "local"]) == 2
    assert "pip install 'molrecon[dask]'" in capsys.readouterr().err

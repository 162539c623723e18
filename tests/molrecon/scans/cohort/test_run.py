"""A folder that several runs, models, settings and processes write into: what is kept, replaced and listed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from molrecon.io import UnreadableInput, input_sha256, read_volume, write_cfl
from molrecon.networks import ResidualNetwork
from molrecon.reconstructors.mol import MOL
from molrecon.scans import manifest
from molrecon.scans.cohort import reconstruct_cohort, reconstruct_file
from molrecon.scans.manifest import write_manifest, write_record
from molrecon.scans.settings import Settings
from molrecon.scans.sidecar import ModelSource, write_json
from molrecon.simulation.phantom import write_phantom
from molrecon.weights import save

SHAPE = (32, 30)
SOURCE = ModelSource("untrained", "0" * 64)


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("molrecon.scans.quality_page.RESOLUTION", 10)


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Scans of two patients, of one name."""
    folder = tmp_path_factory.mktemp("scans")
    return [write_phantom(folder / f"patient{k}" / "scan.h5", slices=1, coils=4, shape=SHAPE, seed=k) for k in (1, 2)]


def network() -> MOL:
    return MOL(ResidualNetwork(monotonicity=0.2, channels=2, features=4, levels=1, cycles=1)).eval()


def listed(out: Path) -> dict[str, dict[str, Any]]:
    content = json.loads((out / "manifest.json").read_text())
    assert content["inputs"] == len(content["volumes"]) == sum(content["counts"].values())
    return {volume["name"]: volume for volume in content["volumes"]}


def sidecar(out: Path, name: str = "scan") -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / f"{name}.json").read_text())
    return found


def test_outputs_of_another_patient_are_not_kept(scans: list[Path], tmp_path: Path) -> None:
    first, second = scans
    reconstruct_cohort([first], tmp_path, network(), SOURCE, Settings(), resume=True)
    assert sidecar(tmp_path)["input"]["sha256"] == input_sha256(first)
    (entry,) = reconstruct_cohort([second], tmp_path, network(), SOURCE, Settings(), resume=True)
    assert not entry.skipped and entry.status == "ok" and f"replaced the outputs of {first}" in entry.message
    assert sidecar(tmp_path)["input"]["sha256"] == input_sha256(second)
    (kept,) = reconstruct_cohort([second], tmp_path, network(), SOURCE, Settings(), resume=True)
    assert kept.skipped and listed(tmp_path)["scan"]["skipped"]
    # A new run replaces the outputs of the same input without a word, and says so for another's.
    (again,) = reconstruct_cohort([second], tmp_path, network(), SOURCE, Settings())
    assert not again.skipped and "replaced" not in again.message
    second_copy = tmp_path / "scan.h5.broken"
    second_copy.write_bytes(b"no scan")
    (tmp_path / "in").mkdir()
    bad = second_copy.rename(tmp_path / "in" / "scan.h5")
    (failed,) = reconstruct_cohort([bad], tmp_path, network(), SOURCE, Settings(), resume=True)
    assert failed.status == "unreadable" and f"are older, of {second}" in failed.message


def test_outputs_of_other_weights_or_settings_are_not_kept(scans: list[Path], tmp_path: Path) -> None:
    maps = np.ones((1, 4, *SHAPE), np.complex64) / 2

    def run(model: MOL | None = None, source: ModelSource = SOURCE, settings: Settings | None = None) -> bool:
        inputs, used = scans[:1], settings or Settings()
        (entry,) = reconstruct_cohort(inputs, tmp_path, model or network(), source, used, resume=True)
        assert sidecar(tmp_path)["settings_sha256"] == used.sha256(model or network())
        assert listed(tmp_path)["scan"]["model"]["weights_sha256"] == source.weights_sha256
        return entry.skipped

    other_tol, fewer_steps, coarse = network(), network(), network()
    other_tol.solver = replace(other_tol.solver, tol=1e-3)
    fewer_steps.solver = replace(fewer_steps.solver, max_steps=90)
    coarse.solver = replace(coarse.solver, refine=False)
    runs: list[dict[str, Any]] = [
        {},
        {"source": replace(SOURCE, weights_sha256="1" * 64)},
        {"model": other_tol},
        {"model": fewer_steps},
        {"model": coarse},
        {"settings": Settings(noise_level=0.02)},
        {"settings": Settings(noise_level=0.03)},
        {"settings": Settings(maps=maps)},
        {"settings": Settings(maps=maps.conj() * 1j)},
    ]
    for arguments in runs:
        assert not run(**arguments), arguments
        assert run(**arguments), arguments
    # The same weights under another name, and what only rounds differently.
    assert run(settings=Settings(maps=maps.conj() * 1j, batch_size=1), source=replace(SOURCE, name="copy"))


def test_an_input_that_changes_is_done_again(scans: list[Path], tmp_path: Path) -> None:
    path, out = tmp_path / "scan.npy", tmp_path / "out"
    kspace = read_volume(scans[0]).kspace
    np.save(path, kspace)
    for expected in (False, True):
        (entry,) = reconstruct_cohort([path], out, network(), SOURCE, Settings(), resume=True)
        assert entry.skipped is expected
    np.save(path, 2 * kspace)
    (entry,) = reconstruct_cohort([path], out, network(), SOURCE, Settings(), resume=True)
    assert not entry.skipped
    for damage in ("no JSON", "[]", "{}", '{"input": 3, "summary": {"converged": true}, "model": []}'):
        (out / "scan.json").write_text(damage)
        (entry,) = reconstruct_cohort([path], out, network(), SOURCE, Settings(), resume=True)
        assert not entry.skipped and entry.status == "ok"
    path.unlink()
    (entry,) = reconstruct_cohort([path], out, network(), SOURCE, Settings(), resume=True)
    assert entry.status == "unreadable" and (out / "scan.nii.gz").is_file()


def test_the_hash_of_an_input_is_that_of_its_volume(scans: list[Path], tmp_path: Path) -> None:
    kspace = read_volume(scans[0]).kspace[0]
    np.save(tmp_path / "a.npy", kspace)
    write_cfl(tmp_path / "b", np.moveaxis(kspace, 0, -1)[:, :, None])
    for name in ("a.npy", "b", "b.cfl", "b.hdr"):
        assert input_sha256(tmp_path / name) == read_volume(tmp_path / name).sha256
    assert input_sha256(scans[0]) == read_volume(scans[0]).sha256
    with pytest.raises(UnreadableInput):
        input_sha256(tmp_path / "absent.npy")


def test_the_manifest_keeps_what_other_runs_did(scans: list[Path], tmp_path: Path) -> None:
    older = {"input": "old.h5", "status": "ok", "message": "", "outputs": ["out/old.nii.gz", "out/old.json"]}
    unread = {"input": "gone.h5", "status": "unreadable", "message": "", "outputs": []}
    write_json(tmp_path / "manifest.json", {"model": {}, "volumes": [older, unread]})  # as version 0.1 wrote it
    copy = tmp_path / "in" / "other.h5"
    copy.parent.mkdir()
    copy.write_bytes(scans[0].read_bytes())
    reconstruct_cohort(scans[:1], tmp_path, network(), SOURCE, Settings())
    reconstruct_cohort([copy], tmp_path, network(), replace(SOURCE, name="two"), Settings())
    found = json.loads((tmp_path / "manifest.json").read_text())
    assert found["inputs"] == 4 and found["counts"] == {
        "ok": 3,
        "not converged": 0,
        "incomplete": 0,
        "unreadable": 1,
        "failed": 0,
    }
    by_input = {Path(volume["input"]).name: volume for volume in found["volumes"]}
    assert by_input["old.h5"] == older and by_input["gone.h5"] == unread
    assert by_input["scan.h5"]["model"]["name"] == "untrained" and by_input["other.h5"]["model"]["name"] == "two"
    # An entry is replaced by the same output's.
    reconstruct_cohort([copy], tmp_path, network(), SOURCE, Settings())
    found = json.loads((tmp_path / "manifest.json").read_text())
    assert found["inputs"] == 4
    assert {volume["model"]["name"] for volume in found["volumes"] if "model" in volume} == {"untrained"}


def test_an_interrupted_run_is_listed(scans: list[Path], tmp_path: Path) -> None:
    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        reconstruct_cohort(scans, tmp_path, network(), SOURCE, Settings(), report=interrupt)
    assert list(listed(tmp_path)) == ["patient1_scan"]


def test_a_record_that_comes_while_the_manifest_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_record(tmp_path, {"name": "a", "status": "ok"})
    written = []

    def write(path: Path, content: dict[str, Any], **options: bool) -> None:
        # Another process, done by now, read the records before this one and is the last to write.
        if path.name == "manifest.json":
            written.append(len(content["volumes"]))
            if len(written) == 1:
                write_record(tmp_path, {"name": "b", "status": "failed"})
                write_manifest(tmp_path)
        write_json(path, content, **options)

    monkeypatch.setattr(manifest, "write_json", write)
    write_manifest(tmp_path)
    assert list(listed(tmp_path)) == ["a", "b"]


def test_a_record_that_a_power_failure_tore(scans: list[Path], tmp_path: Path) -> None:
    reconstruct_cohort(scans[:1], tmp_path, network(), SOURCE, Settings())
    record = tmp_path / "records" / "scan.json"
    whole = json.loads(record.read_text())
    for torn in (b"", bytes(300), b'{"name": "scan", "sta'):
        record.write_bytes(torn)
        assert manifest.missing(tmp_path, ["scan"]) == ["scan"]
        content = write_manifest(tmp_path)
        assert content["volumes"] == [] and content["missing"] == ["scan"]
        (entry,) = reconstruct_cohort(scans[:1], tmp_path, network(), SOURCE, Settings(), resume=True)
        assert entry.skipped and json.loads(record.read_text())["outputs"] == whole["outputs"]
        assert list(listed(tmp_path)) == ["scan"] and not write_manifest(tmp_path)["missing"]


def test_the_cost_of_a_volume_does_not_grow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One record is written for each of the inputs, none of which is there, and one manifest for all of them.

    The disk is waited for when list, manifest and page are written, and not for each volume.
    """
    written: list[Path] = []
    waits: list[int] = []

    def write(path: Path, content: dict[str, Any], **options: bool) -> None:
        written.append(path)
        write_json(path, content, **options)

    monkeypatch.setattr(manifest, "write_json", write)
    monkeypatch.setattr(os, "fsync", waits.append)
    inputs = [tmp_path / f"{k}.h5" for k in range(50)]
    reconstruct_cohort(inputs, tmp_path / "out", network(), SOURCE, Settings())
    assert len(written) == 52  # and one list of what is to be done
    assert len(waits) == 3  # and the page of all of them
    assert len(listed(tmp_path / "out")) == 50


def test_two_processes_in_one_folder(scans: list[Path], tmp_path: Path) -> None:
    model = tmp_path / "untrained.safetensors"
    save(network(), model, {"data": "none"})
    names = [[f"{who}{k}.h5" for k in range(3)] for who in "ab"]
    for name in (*names[0], *names[1]):
        os.link(scans[0], tmp_path / name)
    out = tmp_path / "out"
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "molrecon", "reconstruct", *mine, "--out", str(out), "--model", str(model)],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[4])},
            stderr=subprocess.PIPE,
        )
        for mine in names
    ]
    for process in processes:
        _, errors = process.communicate()
        assert process.returncode == 0, errors
    assert sorted(listed(out)) == sorted(Path(name).stem for mine in names for name in mine)
    assert all(Path(tmp_path, path).is_file() for volume in listed(out).values() for path in volume["outputs"])
    assert not [path for path in out.iterdir() if path.name.startswith(".")]


def test_the_card_of_the_model_is_no_output(scans: list[Path], tmp_path: Path) -> None:
    save(network(), tmp_path / "scan.safetensors", {"data": "none"})
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ValueError, match=r"scan\.json: would replace an input"):
        reconstruct_file(scans[0], tmp_path, str(tmp_path / "scan.safetensors"))
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_run_ends_with_a_page(scans: list[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "bad.npy").write_bytes(b"\x93NUMPY\x01\0broken")
    inputs, out = [*scans, tmp_path / "bad.npy"], tmp_path / "out"
    reconstruct_cohort(inputs, out, network(), SOURCE, Settings())
    page = (out / "index.html").read_text(encoding="utf-8")
    assert "2 of 3 volumes certified; 1 unreadable" in page and "bad.npy: found" in page
    assert 'href="./patient1_scan.html"' in page and page.count('<img src="data:image/webp') == 2
    found = listed(out)["patient1_scan"]
    assert found["no_paths"] is False and found["figures"]["kind"] == "certified" and found["figures"]["slices"] == 1
    reconstruct_cohort(scans, out, network(), SOURCE, Settings(), resume=True)  # kept, with the same figures
    assert listed(out)["patient1_scan"]["figures"] == found["figures"]
    (out / "index.html").write_text("<title>my own</title>")
    reconstruct_cohort(scans, out, network(), SOURCE, Settings(), resume=True)
    assert (out / "index.html").read_text() == "<title>my own</title>"
    assert "index.html: is there and no page of molrecon" in caplog.text


def test_an_input_cannot_take_the_place_of_the_page(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"the page of .*Index\.h5 would take the name of index\.html"):
        reconstruct_cohort([tmp_path / "Index.h5"], tmp_path / "out", network(), SOURCE, Settings())


@pytest.mark.parametrize("name", ["scan.h5", "scan.json", "scan.nii.gz"])
def test_files_of_others_are_not_replaced(scans: list[Path], tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text('{"of": "another converter"}')
    with pytest.raises(ValueError, match=rf"{name}: is there and not of molrecon"):
        reconstruct_cohort(scans[:1], tmp_path, network(), SOURCE, Settings())
    with pytest.raises(ValueError, match="is there and not of molrecon"):
        reconstruct_file(scans[0], tmp_path, "zero-filled")
    assert (tmp_path / name).read_text() == '{"of": "another converter"}'
    (tmp_path / name).unlink()
    reconstruct_file(scans[0], tmp_path, "zero-filled")  # what is ours may be replaced
    reconstruct_cohort(scans[:1], tmp_path, network(), SOURCE, Settings())
    (tmp_path / "scan.json").unlink()  # as a run that was interrupted leaves it
    reconstruct_cohort(scans[:1], tmp_path, network(), SOURCE, Settings())

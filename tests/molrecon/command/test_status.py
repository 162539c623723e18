"""Lists, shards and workers by the command, what `molrecon status` says of them, and outputs without folders."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from molrecon.command.parser import main
from molrecon.io import read_volume
from molrecon.scans.manifest import write_list, write_record
from molrecon.simulation.phantom import write_phantom


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("molrecon.scans.quality_page.RESOLUTION", 10)


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three scans of one name, each in the folder of a patient."""
    folder = tmp_path_factory.mktemp("scans")
    first = write_phantom(folder / "all.h5", slices=1, coils=4, shape=(24, 20))
    kspace, found = read_volume(first).kspace, []
    for patient in ("DOE^JANE", "ROE RICHARD", "POE"):
        (folder / patient).mkdir()
        np.save(folder / patient / "scan.npy", kspace)
        found.append(folder / patient / "scan.npy")
    return found


def reconstruct(out: Path, *arguments: object) -> int:
    fixed = ("--model", "zero-filled", "--device", "cpu", "--noise-level", "0.01")
    return main(["reconstruct", "--out", str(out), *fixed, *map(str, arguments)])


def test_shards_of_a_list_and_their_status(
    scans: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "list.txt").write_text("".join(f"{scan}\n" for scan in scans))
    out = tmp_path / "out"
    assert reconstruct(out, "--inputs-from", tmp_path / "list.txt", "--shard", "1/2") == 0
    assert not (out / "manifest.json").exists() and f"molrecon status {out}" in capsys.readouterr().out
    assert main(["status", str(out)]) == 4
    assert "2 volumes: 2 ok, 1 missing\nmissing: ROE RICHARD_scan" in capsys.readouterr().out
    stdin = io.TextIOWrapper(io.BytesIO("\0".join(map(str, scans)).encode()))
    monkeypatch.setattr(sys, "stdin", stdin)
    assert reconstruct(out, "--inputs-from", "-", "--shard", "2/2") == 0
    assert json.loads((out / "manifest.json").read_text())["counts"]["ok"] == 3
    for shard in ("3/3", "4/4"):  # a part of a longer array has nothing to do, or one volume
        assert reconstruct(out, *scans, "--shard", shard, "--resume") == 0
    capsys.readouterr()
    assert main(["status", str(out), "--json", str(next((out / "records").iterdir()))]) == 2
    assert "among the outputs" in capsys.readouterr().err
    assert main(["status", str(out), "--json", "-"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["inputs"] == 3 and content["missing"] == []


def test_status_of_failures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", str(tmp_path)]) == 2
    write_list(tmp_path, {f"n{k:02}": f"n{k:02}.h5" for k in range(40)})
    for k in range(15):
        write_record(tmp_path, {"name": f"n{k:02}", "status": "failed" if k else "ok", "message": f"why {k}"})
    assert main(["status", str(tmp_path)]) == 4
    output = capsys.readouterr().out
    assert "15 volumes: 1 ok, 14 failed, 25 missing" in output and "failed: n03: why 3" in output
    assert "missing: n34\nmissing: and 5 more" in output


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--inputs-from", "absent.txt"],
        ["a.npy", "--shard", "0/2"],
        ["a.npy", "--shard", "2"],
        ["a.npy", "--shard", "slurm"],
        ["a.npy", "--devices", "cpu"],
        ["a.npy", "--workers", "0"],
    ],
)
def test_arguments_that_make_no_sense(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    try:
        code = reconstruct(tmp_path / "out", *arguments)
    except SystemExit as error:
        code = int(error.code or 0)
    assert code == 2
    assert not (tmp_path / "out").exists()


def test_nothing_names_a_folder(scans: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "of POE"
    (scans[0].parent / "bad.npy").write_bytes(b"\x93NUMPY\x01\0broken")
    inputs = [*scans, scans[0].parent / "bad.npy", scans[0].parent / "absent.h5"]
    for _ in range(2):  # the second time there is something to replace
        assert reconstruct(out, *inputs, "--no-paths", "--verbose") == 4
    assert main(["status", str(out)]) == 4
    output = capsys.readouterr()
    text = output.out + output.err
    assert "bad.npy" in text and "absent.h5" in text
    written = [path for path in out.rglob("*") if path.is_file()]
    assert len(written) == 5 * 3 + 3 + 5 + 3  # with thumbnails, records, list, manifest and page
    names = " ".join(str(path.relative_to(out)) for path in written)
    contents = b"".join(path.read_bytes() for path in written).decode("latin-1")
    for where in (text, names, contents):
        for folder in ("DOE", "JANE", "ROE", "RICHARD", "POE", str(tmp_path), str(scans[0].parents[1])):
            assert folder not in where.replace(str(Path(__file__).parents[3]), ""), folder
    sidecar = json.loads(next(out.glob("*_scan.json")).read_text())
    assert sidecar["input"]["path"] == "scan.npy"

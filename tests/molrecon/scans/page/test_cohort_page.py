"""index.html without a browser: what it says of a cohort, and what it does not."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from molrecon.command.parser import main
from molrecon.scans.manifest import write_list, write_manifest, write_record
from molrecon.scans.page.cohort import INDEX, judge, write_index, write_thumbnail
from molrecon.scans.page.rows import Row, make_rows, thumbnail_path

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"


def record(name: str, **changes: Any) -> dict[str, Any]:
    """Return the record of a volume with which all is well."""
    return {
        "name": name,
        "input": f"/data/DOE/{name}.h5",
        "status": "ok",
        "message": "free text",
        "outputs": [f"/out/{name}.nii.gz", f"/out/{name}.html", f"/out/{name}.json"],
        "left_out": {},
        "warnings": [],
        "figures": {
            "kind": "certified",
            "slices": 4,
            "error_bound": 5e-5,
            "noise": 0.01,
            "seconds": 2.5,
            "n_steps": 20,
        },
        "model": {"name": "/home/DOE/own.safetensors", "weights_sha256": "ab" * 32},
        "settings_sha256": "cd" * 32,
        "no_paths": False,
        **changes,
    }


def index(folder: Path, *records: dict[str, Any]) -> str:
    """Write the records and the page, and return the page."""
    for one in records:
        write_record(folder, one)
    write_index(folder, write_manifest(folder))
    return (folder / INDEX).read_text(encoding="utf-8")


def rows_of(folder: Path, *records: dict[str, Any]) -> dict[str, Row]:
    for one in records:
        write_record(folder, one)
    return {row.name: row for row in make_rows(folder, write_manifest(folder), thumbnails=True)}


def test_the_first_line_counts_everything(tmp_path: Path) -> None:
    warning = {"slice": 0, "check": "single lines", "value": 3.0, "threshold": 2.2, "advice": "Look."}
    write_list(tmp_path, {"a": "a.h5", "later": "later.h5"})
    rows = rows_of(
        tmp_path,
        record("a"),
        record("b", warnings=[warning, warning]),
        record("c", figures={"kind": "none", "slices": 1}),
        record("d", status="not converged"),
        record("e", status="incomplete"),
        record("f", status="unreadable"),
        record("g", status="failed"),
        record("h", status="of a later version"),
    )
    verdict = judge(list(rows.values()))
    assert verdict.level == "bad"
    assert verdict.headline == (
        "2 of 9 volumes certified; 1 without a certificate; 1 not converged; 1 incomplete; 1 unreadable; 1 failed;"
        " 1 unknown; 1 not done yet; 1 with warnings about the data."
    )
    assert [row.level for row in rows.values()] == ["good", "caution", "caution", *["bad"] * 5, "caution"]
    assert rows["b"].remarks == ["single lines (2)"] and rows["c"].state == "no bound"
    assert rows["later"].state == "not done" and rows["later"].shown_for == "waiting"
    assert judge([rows["a"]]).level == "good" and judge([rows["a"], rows["b"]]).level == "caution"
    assert judge([]).headline == "No volumes."


def test_those_that_stand_out_are_named_with_the_quantity(tmp_path: Path) -> None:
    figures = record("a")["figures"]
    others = [record(f"v{k}", figures={**figures, "noise": 0.01 + k / 1e4}) for k in range(8)]
    page = index(tmp_path, *others, record("odd", figures={**figures, "noise": 0.3}))
    (row,) = [row for row in make_rows(tmp_path, write_manifest(tmp_path), thumbnails=False) if row.z]
    assert row.name == "odd" and row.remarks == [f"high noise / maximum (z {row.z['noise']:.1f})"]
    assert "outlier" in row.shown_for and page.count('class="outlier"') == 1 and "high noise / maximum" in page


def test_rows_lead_to_pages_that_are_there(tmp_path: Path) -> None:
    (tmp_path / "a b%.html").touch()
    (tmp_path / "many_echo-1.html").touch()
    (tmp_path / "many_echo-2.html").touch()
    outputs = [f"C:\\out\\many_echo-{k}.html" for k in (1, 2)]
    rows = rows_of(
        tmp_path,
        record("a b%", outputs=["/out/a b%.html"]),
        record("many", outputs=outputs),
        record("gone"),
    )
    assert rows["a b%"].pages == [("a b%", "./a%20b%25.html")]
    assert rows["many"].pages == [("many", "./many_echo-1.html"), ("echo-2", "./many_echo-2.html")]
    assert rows["gone"].pages == []


def test_scan_2_comes_before_scan_10(tmp_path: Path) -> None:
    assert list(rows_of(tmp_path, *(record(f"scan{k}") for k in (10, 2, 1)))) == ["scan1", "scan2", "scan10"]


def test_thumbnails_are_in_the_page(solved: Any, tmp_path: Path) -> None:
    write_thumbnail(tmp_path, "a", solved.result)
    page = index(tmp_path, record("a"), record("b"))
    assert page.count('<img src="data:image/webp;base64,') == 1 and 'alt="Middle slice of a"' in page
    assert len(thumbnail_path(tmp_path, "a").read_bytes()) < 4000


def test_a_thumbnail_has_the_shape_of_the_object(solved: Any, tmp_path: Path) -> None:
    series = np.stack([solved.result.image] * 2)  # a series shows its first frame
    write_thumbnail(tmp_path, "a", replace(solved.result, image=series, voxel_size=(1.0, 2.0, 5.0)))
    with Image.open(thumbnail_path(tmp_path, "a")) as small:
        assert small.size == (64, 32)


def test_free_text_of_records_without_paths_stays_there(tmp_path: Path) -> None:
    message = "RuntimeError: DOE^JANE in /data/DOE"
    page = index(
        tmp_path,
        record("a", status="failed", message=message, no_paths=True),
        record("b", status="unreadable", message=message, no_paths=True),
    )
    older = record("c", status="failed", message=message)
    del older["no_paths"]  # version 0.2 did not say whether folders were to be named
    page += index(tmp_path, older)
    assert "DOE" not in page and str(tmp_path) not in page and tmp_path.name not in page
    assert "it could not be reconstructed; records/a.json says more" in page
    assert "the input cannot be read; records/b.json says more" in page


def test_why_a_volume_failed_is_said_where_paths_are(tmp_path: Path) -> None:
    message = "/data/DOE/a.h5: found no k-space, expected some"
    page = index(tmp_path, record("a", status="unreadable", message=message))
    assert "a.h5: found no k-space, expected some" in page and "/data/DOE" not in page
    long = rows_of(tmp_path, record("a", status="failed", message="x" * 1000))["a"].remarks[0]
    assert len(long) < 400


def test_strings_stay_in_their_places(tmp_path: Path) -> None:
    warning = {"slice": 0, "check": HOSTILE, "value": 3.0, "threshold": 2.2, "advice": HOSTILE}
    hostile = {"name": HOSTILE, "weights_sha256": HOSTILE}
    one = record("a", warnings=[warning], model=hostile, settings_sha256=HOSTILE)
    other = record("b", status="failed", message=HOSTILE, input=HOSTILE)
    page = index(tmp_path, one, other)
    assert page.count("<script") == 2 and "<img" not in page and "RESEARCH ONLY" in page
    assert "own.safetensors" in index(tmp_path, record("a")) and "/home/DOE" not in page


@pytest.mark.parametrize("odd", [{"figures": {"n_steps": "many"}}, {"warnings": 3}, {"outputs": None}, {"model": []}])
def test_odd_records_are_shown_as_far_as_they_go(tmp_path: Path, odd: dict[str, Any]) -> None:
    assert "of 1 volumes certified" in index(tmp_path, record("a", **odd))


def test_figures_of_older_records_come_from_the_sidecar(solved: Any, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(solved.sidecar))
    older = record("a")
    del older["figures"]
    row = rows_of(tmp_path, older)["a"]
    assert row.slices == 3 and row.values["error_bound"] == pytest.approx(solved.result.error_bound.max())


def test_a_page_of_somebody_else_is_not_replaced(tmp_path: Path) -> None:
    write_record(tmp_path, record("a"))
    (tmp_path / INDEX).write_text("<title>my own</title>")
    assert main(["report", str(tmp_path)]) == 2
    assert (tmp_path / INDEX).read_text() == "<title>my own</title>"
    (tmp_path / INDEX).unlink()
    for _ in range(2):  # its own page it replaces
        assert main(["report", str(tmp_path)]) == 0


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(tmp_path)]) == 2
    assert "expected a folder of outputs" in capsys.readouterr().err
    write_list(tmp_path, {"a": "a.h5", "b": "b.h5"})
    assert main(["report", str(tmp_path)]) == 0  # nothing is done yet
    assert "0 of 2 volumes certified; 2 not done yet." in capsys.readouterr().out
    write_record(tmp_path, record("a"))
    assert main(["report", str(tmp_path)]) == 0
    assert f"{tmp_path / INDEX}: 1 of 2 volumes certified; 1 not done yet." in capsys.readouterr().out


def test_two_hundred_volumes_take_less_than_two_seconds(solved: Any, tmp_path: Path) -> None:
    write_thumbnail(tmp_path, "v0", solved.result)
    for k in range(200):
        write_record(tmp_path, record(f"v{k}"))
        thumbnail_path(tmp_path, f"v{k}").write_bytes(thumbnail_path(tmp_path, "v0").read_bytes())
    start = time.process_time()  # whatever else the machine does
    write_index(tmp_path, write_manifest(tmp_path))
    assert time.process_time() - start < 2
    assert (tmp_path / INDEX).stat().st_size < 2_000_000

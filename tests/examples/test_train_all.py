"""The queue of trainings: shares of the time, runs that go on, runs that fail."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from examples import train_all
from examples.train_all import Run, queue, train_in_turn


@pytest.fixture
def scripts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of scripts in place of the examples: one ends, one never does, one fails."""
    (tmp_path / "ends.py").write_text("import sys; print(sys.argv[1:])")
    (tmp_path / "goes_on.py").write_text("import time\nprint('begun', flush=True)\ntime.sleep(600)")
    (tmp_path / "fails.py").write_text("raise SystemExit('no data')")
    monkeypatch.setattr(train_all, "EXAMPLES", tmp_path)
    return tmp_path


def test_every_run_has_its_turn_and_the_queue_stops_in_time(scripts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [Run("first", 1, ("goes_on.py",)), Run("second", 1, ("fails.py",)), Run("third", 1, ("ends.py", "--a"))]
    began = time.monotonic()
    assert train_in_turn(runs, ["--b"], scripts / "out", 9.0) == ["second"]
    assert time.monotonic() - began < 60
    assert capsys.readouterr().out.splitlines() == [
        "first: time is over",
        "second: failed (1)",
        "third: finished",
    ]
    assert "begun" in (scripts / "out" / "first" / "output.txt").read_text()
    assert "no data" in (scripts / "out" / "second" / "output.txt").read_text()
    words = (scripts / "out" / "third" / "output.txt").read_text()
    assert words.strip() == str(["--a", "--b", "--out", str(scripts / "out" / "third")])


def test_the_queue_calls_scripts_that_exist() -> None:
    runs = queue(100)
    assert len({run.name for run in runs}) == len(runs)
    assert all((train_all.EXAMPLES / run.arguments[0]).is_file() for run in runs)
    assert train_all.GUIDED.is_file()

"""Processes that are killed, and what becomes of their tasks."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from molrecon.scans.cohort.workers import ATTEMPTS, STARTS, Died, run_in_workers


class Squares:
    """Squares numbers; a negative one kills the process once if its mark is not there, and 0 kills it every time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, number: int) -> Callable[[int], int]:
        return self.square

    def square(self, task: int) -> int:
        mark = self.folder / f"{task}"
        if task == 0 or (task < 0 and not mark.exists()):
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if task == 7:
            logging.getLogger("molrecon.somewhere").warning("seven")
        return task**2


def test_no_task_is_lost(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tasks = [1, -2, 0, 3, -4, 5, 6, 7, -8, 9]
    buried: list[int] = []
    with caplog.at_level(logging.WARNING):
        found = list(run_in_workers(tasks, Squares(tmp_path), 2, buried.append))
    assert sorted(task for task, _ in found) == sorted(tasks)
    results = dict(found)
    assert results.pop(0) == Died(ATTEMPTS, -signal.SIGKILL)
    assert all(result == task**2 for task, result in results.items())
    assert len(set(buried)) == len(buried) == 3 + ATTEMPTS
    assert [record.name for record in caplog.records].count("molrecon.somewhere") == 1


def never_ready(number: int) -> Callable[[int], int]:
    os._exit(3)


def test_workers_that_cannot_start() -> None:
    with pytest.raises(RuntimeError, match=rf"ended {STARTS} times before it was ready.* exit code 3"):
        list(run_in_workers([1, 2], never_ready, 1))
    with pytest.raises(ValueError, match="0 workers, expected 1 or more"):
        list(run_in_workers([1], never_ready, 0))
    assert list(run_in_workers([], never_ready, 4)) == []


class Sleeper:
    """Writes its process id and sleeps."""

    def __init__(self, folder: Path, seconds: float) -> None:
        self.folder, self.seconds = folder, seconds

    def __call__(self, number: int) -> Callable[[int], int]:
        return self.sleep

    def sleep(self, task: int) -> int:
        (self.folder / f"pid-{os.getpid()}").touch()
        time.sleep(self.seconds)
        return task


def alive(pid: int) -> bool:
    """Whether the process runs; a zombie does not."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def workers_seen(folder: Path) -> list[int]:
    return [int(path.name.removeprefix("pid-")) for path in folder.glob("pid-*")]


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_closing_ends_the_processes(tmp_path: Path) -> None:
    running = run_in_workers([1, 2, 3], Sleeper(tmp_path, 0.0), 2)
    next(running)
    running.close()  # type: ignore[attr-defined]
    assert not any(alive(pid) for pid in workers_seen(tmp_path))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="processes are looked up in /proc")
def test_workers_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    script = (
        "from pathlib import Path\nfrom molrecon.scans.cohort.workers import run_in_workers\n"
        "from tests.molrecon.scans.cohort.test_workers import Sleeper\n"
        f"if __name__ == '__main__':\n    list(run_in_workers(range(9), Sleeper(Path({str(tmp_path)!r}), 1.0), 2))\n"
    )
    (tmp_path / "script.py").write_text(script)
    root = Path(__file__).parents[4]
    process = subprocess.Popen(
        [sys.executable, tmp_path / "script.py"], cwd=root, env={**os.environ, "PYTHONPATH": str(root)}
    )
    wait_until(lambda: len(workers_seen(tmp_path)) == 2)
    process.kill()
    process.wait()
    wait_until(lambda: not any(alive(pid) for pid in workers_seen(tmp_path)))

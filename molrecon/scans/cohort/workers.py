"""Many tasks in several processes, of which any may be killed at any moment: no other task is lost by that.

`concurrent.futures` breaks its whole pool when a process of it is killed, and everything that waits is lost. Here one
process hands out the tasks one at a time, sees which task a process died at, and starts another process.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from logging.handlers import QueueHandler
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any, Generic, TypeVar, final

log = logging.getLogger(__name__)

ATTEMPTS = 3  # at a task: a process killed for another's memory gets two more, a task that kills its process no others
STARTS = 10  # of one worker in a row that end before it is ready: something is wrong with all of them

Task = TypeVar("Task")
Result = TypeVar("Result")
Start = Callable[[int], Callable[[Task], Result]]


@final
@dataclass(frozen=True)
class Died:
    """What comes instead of a result: every process that tried the task died, the last one with this exit code.

    The code is -9 after SIGKILL (which the kernel sends when memory runs out), -11 after a segmentation fault.
    """

    attempts: int
    exit_code: int | None


def run_in_workers(
    tasks: Sequence[Task],
    start: Start[Task, Result],
    workers: int,
    on_death: Callable[[int], None] | None = None,
) -> Iterator[tuple[Task, Result | Died]]:
    """Yield every task once with its result, as they come, from `workers` processes.

    Processes are spawned, not forked, so that each can use a GPU: a script that calls this needs the usual
    `if __name__ == "__main__":`. When the generator is closed the processes are ended; when the process that runs it is
    killed they finish the task they are at, and end.

    Args:
        tasks: can be pickled, as the results.
        start: called once in each process with the number of the worker, 0 to `workers` - 1; returns what is called
            with each task. Can be pickled. An exception of either ends the process, as a signal would.
        workers: how many processes, 1 or more; never more than tasks.
        on_death: called with the process id of every process that died.

    Raises:
        RuntimeError: a worker died STARTS times in a row before it was ready.
    """
    if workers < 1:
        raise ValueError(f"run_in_workers: {workers} workers, expected 1 or more")
    waiting: deque[int] = deque(range(len(tasks)))
    attempts = [0] * len(tasks)
    team = [_Worker(number, start) for number in range(min(workers, len(tasks)))]
    left = len(tasks)
    try:
        while left:
            for worker in team:
                if worker.ready and worker.task is None and waiting:
                    worker.hand(waiting.popleft(), tasks)
            alive = {worker.connection: worker for worker in team}
            for connection in wait(list(alive)):
                worker = alive[connection]  # type: ignore[index]
                try:
                    kind, content = worker.connection.recv()
                except (EOFError, OSError):  # the process is dead, perhaps in the middle of a message
                    at, process = worker.task, worker.end()
                    if on_death is not None and process.pid is not None:
                        on_death(process.pid)
                    if at is not None:
                        attempts[at] += 1
                        log.warning("worker %d died (exit code %s) at a task", worker.number, process.exitcode)
                        if attempts[at] < ATTEMPTS:
                            waiting.appendleft(at)
                        else:
                            left -= 1
                            yield tasks[at], Died(attempts[at], process.exitcode)
                    if left:
                        worker.spawn()
                    continue
                if kind == "log":
                    logging.getLogger(content.name).handle(content)
                elif kind == "ready":
                    worker.ready, worker.failed_starts = True, 0
                elif worker.task is not None:
                    at, worker.task = worker.task, None
                    left -= 1
                    yield tasks[at], content
    finally:
        for worker in team:
            worker.end()


class _Worker(Generic[Task, Result]):
    """A place in the team, and the process that fills it at present. `task` is what it works on, as an index."""

    process: SpawnProcess
    connection: Connection

    def __init__(self, number: int, start: Start[Task, Result]) -> None:
        self.number, self.start = number, start
        self.failed_starts = 0
        self.spawn()

    def spawn(self) -> None:
        if self.failed_starts == STARTS:
            raise RuntimeError(
                f"run_in_workers: worker {self.number} ended {STARTS} times before it was ready, the last time with"
                f" exit code {self.process.exitcode}"
            )
        self.failed_starts += 1
        self.task: int | None = None
        self.ready = False
        context = multiprocessing.get_context("spawn")
        self.connection, end_of_process = context.Pipe()
        level = logging.getLogger().getEffectiveLevel()
        # daemon: ended with this process, as far as that ends in an orderly way.
        self.process = context.Process(target=_work, args=(end_of_process, self.start, self.number, level), daemon=True)
        self.process.start()
        end_of_process.close()  # the end of the file shows that the process is gone only if nobody else holds this end

    def hand(self, index: int, tasks: Sequence[Task]) -> None:
        """Give it a task; if it is dead already, the end of its connection will tell."""
        self.task = index
        try:
            self.connection.send(tasks[index])
        except OSError:
            log.debug("worker %d is gone", self.number)

    def end(self) -> SpawnProcess:
        """End the process if it is not dead yet, and return it."""
        self.connection.close()
        self.process.join(0.0 if self.task is not None else 1.0)  # one without a task ends by itself
        if self.process.exitcode is None:
            self.process.kill()
        self.process.join()
        return self.process


class _ToParent(QueueHandler):
    """Sends log records to the process that prints them."""

    def enqueue(self, record: logging.LogRecord) -> None:
        self.queue.send(("log", record))  # type: ignore[attr-defined, unused-ignore]


def _work(connection: Connection, start: Callable[[int], Callable[[Any], Any]], number: int, level: int) -> None:
    """Work until the other end is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the first one ends the others
    root = logging.getLogger()
    root.addHandler(_ToParent(connection))  # type: ignore[arg-type]
    root.setLevel(level)
    work = start(number)
    try:
        connection.send(("ready", os.getpid()))
        while True:
            result = work(connection.recv())
            connection.send(("result", result))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return

"""Processes for reconstructions, one a scan and one at a time: what happens to one harms neither server nor next scan.

They are forked from a process that has imported what they need and has no threads, which takes milliseconds instead of
the seconds of a fresh interpreter.
"""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection

from molrecon.stream.job import DONE, FAILED, Job

WORKER = "molrecon.stream.worker"
POLL_SECONDS = 0.2
LAST_SECONDS = 5  # for a process that has done its work to end by itself


class WorkerEnded(Exception):
    """A process ended in the middle of its work, killed or crashed."""


class Workers:
    """Starts the processes. Its methods may be called from any thread."""

    def __init__(self) -> None:
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload([WORKER])
        self._turn = threading.Lock()

    def run(self, job: Job, forward: Callable[[bytes], None], unwanted: Callable[[], bool]) -> bool:
        """Do a job when it is its turn, and hand on the messages of its process as they come.

        Args:
            job: the scan.
            forward: called with every message as a whole. What it raises ends the process and comes out of here.
            unwanted: whether the job is not wanted any more, asked a few times a second; then its process is killed.

        Returns:
            whether the job is done. If not, its process has sent a line that says why, or the job was not wanted.

        Raises:
            WorkerEnded: the process was killed, or crashed.
        """
        while not self._turn.acquire(timeout=POLL_SECONDS):
            if unwanted():
                return False
        try:
            return self._run(job, forward, unwanted)
        finally:
            self._turn.release()

    @property
    def busy(self) -> bool:
        """Whether a job would have to wait."""
        return self._turn.locked()

    def _run(self, job: Job, forward: Callable[[bytes], None], unwanted: Callable[[], bool]) -> bool:
        receiver, sender = self._context.Pipe(duplex=False)
        process = self._context.Process(target=_work, args=(job, sender), daemon=True)
        try:
            process.start()
            sender.close()
            while not unwanted():
                if not receiver.poll(POLL_SECONDS):
                    continue
                try:
                    message = receiver.recv_bytes()
                except (EOFError, OSError):
                    process.join()
                    raise WorkerEnded(f"the reconstruction process ended (exit code {process.exitcode})") from None
                if message in (DONE, FAILED):
                    process.join(LAST_SECONDS)
                    return message == DONE
                forward(message)
            return False
        finally:
            sender.close()
            receiver.close()
            if process.pid is not None:
                process.kill()
                process.join()
            process.close()


def _work(job: Job, sender: Connection) -> None:
    from molrecon.stream.worker import work  # torch: in the worker's process alone

    work(job, sender)

"""The server of `molrecon serve`: listens, and gives every connection a thread, every reconstruction a process."""

from __future__ import annotations

import logging
import socket
import threading
from typing import final

from molrecon.stream.config import Request
from molrecon.stream.job import Job
from molrecon.stream.session import Session, StreamSettings
from molrecon.stream.workers import Workers

ACCEPT_SECONDS = 0.2  # how soon a stop is noticed

log = logging.getLogger(__name__)


@final
class StreamServer:
    """Serves scans from MRD streams.

    server = StreamServer(StreamSettings(model="mol-guided-2d"))
    server.listen("127.0.0.1", 9002)
    server.check()                        # ValueError if the model is not there
    server.serve(stop)                    # until the event is set and the scans are finished

    Args:
        settings: how scans are served.
    """

    def __init__(self, settings: StreamSettings) -> None:
        self._settings = settings
        self._workers = Workers()
        self._sessions: dict[threading.Thread, Session] = {}
        self._listener: socket.socket | None = None
        self._count = 0

    def check(self) -> None:
        """Load the model once, in a process as scans will get one. Raises ValueError with what that process said."""
        lines: list[bytes] = []
        job = Job(None, Request(), self._settings.model, self._settings.device)
        if not self._workers.run(job, lines.append, lambda: False):
            raise ValueError(b"".join(lines)[6:].decode())

    def listen(self, host: str, port: int) -> int:
        """Open the port (0: any free one) and return it. Connections wait until `serve`. Raises OSError."""
        self._listener = socket.create_server((host, port), backlog=16)
        self._listener.settimeout(ACCEPT_SECONDS)
        return int(self._listener.getsockname()[1])

    def close(self) -> None:
        """Close the port."""
        if self._listener is not None:
            self._listener.close()

    def serve(self, stop: threading.Event) -> None:
        """Serve connections until `stop` is set; then close the port, and return when the scans are finished.

        Raises:
            ValueError: nothing is listening.
        """
        if self._listener is None:
            raise ValueError("StreamServer.serve: no port is open, expected listen to be called first")
        with self._listener as listener:
            while not stop.is_set():
                try:
                    peer, _ = listener.accept()
                except TimeoutError:
                    self._forget_finished()
                except OSError as error:  # too many open files, a peer that is gone already
                    log.warning("accept: %s", error.strerror)
                    stop.wait(ACCEPT_SECONDS)
                else:
                    self._start(peer)
        for session in self._sessions.values():
            session.give_up(idle_only=True)
        for thread in list(self._sessions):
            thread.join()
        self._forget_finished()

    def abort(self) -> None:
        """Hang up on all peers and kill what is being reconstructed. May be called from any thread."""
        for session in list(self._sessions.values()):
            session.give_up(idle_only=False)

    def _start(self, peer: socket.socket) -> None:
        self._forget_finished()
        self._count += 1
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # lines for a log are short, and wanted at once
        session = Session(peer, self._settings, self._workers, self._count)
        most, name = self._settings.connections, f"session {self._count}"
        if len(self._sessions) < most:
            thread = threading.Thread(target=session.run, name=name)
        elif len(self._sessions) < 2 * most:
            reason = f"this server serves {most} connections at a time"
            thread = threading.Thread(target=session.refuse, args=(reason,), name=name)
        else:
            peer.close()
            return
        self._sessions[thread] = session
        thread.start()

    def _forget_finished(self) -> None:
        for thread in [thread for thread in self._sessions if not thread.is_alive()]:
            thread.join()
            del self._sessions[thread]

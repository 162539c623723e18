"""One connection, from its first byte to its end: the scan comes in, the images go out, and CLOSE is always sent."""

from __future__ import annotations

import logging
import select
import socket
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import final

from molrecon.stream.config import NULL, Refused
from molrecon.stream.job import Job
from molrecon.stream.log_lines import ERROR, INFO, log_line
from molrecon.stream.messages import encode_close
from molrecon.stream.reception import Received, Reception
from molrecon.stream.wire import HangUp, Limits, WireError, socket_reader
from molrecon.stream.workers import WorkerEnded, Workers

DEFAULT_LIMITS = Limits()
LINGER_SECONDS = 5.0  # for a peer to read the last words while it still sends
SILENCE_SECONDS = 30.0  # after which a line tells that the work goes on, and shows whether the peer is still there

log = logging.getLogger(__name__)


@final
@dataclass(frozen=True)
class StreamSettings:
    """How scans are served.

    Attributes:
        model: name or file, see `molrecon.scans.methods.load_method`.
        device: where to compute, as torch names it; None: the GPU if there is one, else the CPU.
        idle_timeout: seconds without a byte after which a connection ends.
        limits: what a peer may send.
        connections: most at a time; scans are received together and reconstructed one after the other.
        conjugate: whether to conjugate the data, see `read_mrd`.
    """

    model: str
    device: str | None = None
    idle_timeout: float = 300.0
    limits: Limits = DEFAULT_LIMITS
    connections: int = 8
    conjugate: bool | None = None


@final
class Session:
    """A connection that was accepted; `run` serves it and closes it, whatever comes.

    Args:
        peer: the socket.
        settings: of the server.
        workers: of the server.
        number: tells the sessions apart in the log.
    """

    def __init__(self, peer: socket.socket, settings: StreamSettings, workers: Workers, number: int) -> None:
        self._peer, self._settings, self._workers, self._number = peer, settings, workers, number
        self._reception: Reception | None = None
        self._given_up = False
        self._broken = False
        self._last_sent = time.monotonic()
        peer.settimeout(settings.idle_timeout)

    def run(self) -> None:
        """Serve the connection. Raises nothing."""
        start = time.monotonic()
        try:
            with self._peer:
                outcome = self._serve()
                self._end()
        except Exception:
            log.exception("session %d failed", self._number)
            outcome = "failed"
        log.info("session %d: %s, %.1f s", self._number, outcome, time.monotonic() - start)

    def refuse(self, reason: str) -> None:
        """End the connection with a reason instead of serving it. Raises nothing."""
        with self._peer:
            self._fail(reason)
            self._end()
        log.warning("session %d: refused: %s", self._number, reason)

    def give_up(self, *, idle_only: bool) -> None:
        """End the session from another thread; `idle_only`: unless it is in a scan."""
        if idle_only and self._reception is not None and self._reception.started:
            return
        self._given_up = True
        _shut(self._peer, socket.SHUT_RDWR)

    def _serve(self) -> str:
        try:
            with tempfile.TemporaryDirectory(prefix="molrecon-stream-") as folder:
                read = socket_reader(self._peer)
                self._reception = Reception(read, self._tell, Path(folder), self._settings.limits)
                received = self._reception.run()
                if received is None:
                    return "no scan"
                return self._reconstruct(received)
        except (WireError, Refused, WorkerEnded) as error:
            return self._fail(str(error))
        except HangUp as error:
            return f"{self._fail(str(error))} (hang-up)"
        except OSError as error:
            return self._fail(f"the server's disk or network: {error.strerror or type(error).__name__}")
        except Exception as error:
            log.exception("session %d", self._number)
            return self._fail(f"the server failed ({type(error).__name__})")

    def _reconstruct(self, received: Received) -> str:
        self._tell(INFO, f"{received.readouts} readouts received")
        if received.request.config == NULL or received.spool is None:
            return f"{received.readouts} readouts, nothing asked for"
        if self._workers.busy:
            self._tell(INFO, "another scan is being reconstructed, this one waits for it")
        settings = self._settings
        job = Job(received.spool, received.request, settings.model, settings.device, settings.conjugate)
        if self._workers.run(job, self._send, self._peer_is_gone):
            return f"{received.readouts} readouts, reconstructed"
        return f"{received.readouts} readouts, not reconstructed"

    def _fail(self, reason: str) -> str:
        try:
            self._tell(ERROR, reason)
        except HangUp:
            log.debug("session %d: the peer is gone", self._number)
        return reason

    def _tell(self, level: str, text: str) -> None:
        self._send(log_line(level, text))

    def _send(self, message: bytes) -> None:
        if self._broken:
            raise HangUp("the connection is broken")
        try:
            self._peer.sendall(message)
        except OSError as error:
            self._broken = True  # perhaps in the middle of a message: whatever followed would be read as its rest
            raise HangUp(f"{type(error).__name__} while sending") from error
        self._last_sent = time.monotonic()

    def _end(self) -> None:
        """Send CLOSE, and read what the peer is still sending: a socket closed on unread bytes takes CLOSE back."""
        try:
            self._send(encode_close())
        except HangUp:
            return
        _shut(self._peer, socket.SHUT_WR)
        self._peer.settimeout(min(LINGER_SECONDS, self._settings.idle_timeout))
        end = time.monotonic() + LINGER_SECONDS
        try:
            while time.monotonic() < end and self._peer.recv(1 << 16):
                pass
        except OSError:
            return

    def _peer_is_gone(self) -> bool:
        """Tell whether the peer has broken the connection; that it sends nothing any more does not mean that."""
        if self._given_up:
            return True
        if time.monotonic() - self._last_sent > SILENCE_SECONDS:
            self._tell(INFO, "the reconstruction goes on")
        poll = select.poll()
        poll.register(self._peer, 0)
        return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))


def _shut(peer: socket.socket, how: int) -> None:
    try:
        peer.shutdown(how)
    except OSError:  # it is closed already
        return

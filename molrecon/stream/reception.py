"""The first half of a session: from the first byte to the end of the peer's data, which is spooled to disk."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import final

from molrecon.stream.config import NULL, Request
from molrecon.stream.header import without_identity
from molrecon.stream.log_lines import INFO, WARNING
from molrecon.stream.messages import Acquisition, Close, Config, Skipped, Text, XmlHeader, read_message
from molrecon.stream.spool import Spool
from molrecon.stream.wire import HangUp, Limits, Read, WireError

Tell = Callable[[str, str], None]  # a level of `log_lines`, and the line


@final
@dataclass(frozen=True)
class Received:
    """A whole scan.

    Attributes:
        request: what is to be done with it, checked.
        readouts: how many came.
        spool: where they are; None if nothing is to be done with them.
    """

    request: Request
    readouts: int
    spool: Path | None


class Reception:
    """Reads the messages of a peer until its CLOSE.

    Args:
        read: `read(n)`, see `molrecon.stream.wire`.
        tell: sends a line to the peer's log.
        folder: where the spool is written.
        limits: what the peer may send.

    Attributes:
        started: a header has come: this is a scan, not a port that is tried.
    """

    def __init__(self, read: Read, tell: Tell, folder: Path, limits: Limits) -> None:
        self.started = False
        self._read, self._tell, self._limits = read, tell, limits
        self._path = folder / "scan.mrd"
        self._request = Request()
        self._xml = ""
        self._spool: Spool | None = None
        self._readouts = 0
        self._skipped: Counter[str] = Counter()

    def run(self) -> Received | None:
        """Return the scan, or None if the peer closes without a header, which is no failure.

        Raises:
            Refused: a configuration or parameters that this server does not know.
            WireError: bytes that are no MRD stream.
            HangUp: the connection breaks, or ends in the middle of a scan.
            OSError: the disk.
        """
        try:
            return self._receive()
        finally:
            if self._spool is not None:
                self._spool.close()

    def _receive(self) -> Received | None:
        while not isinstance(message := read_message(self._read, self._limits), Close):
            if message is None:
                if self.started:
                    raise HangUp("the connection ended without CLOSE")
                return None
            if isinstance(message, Acquisition):
                self._readout(message)
            elif isinstance(message, Skipped):
                self._skipped[message.kind] += 1
            elif not self._readouts:
                self._preparation(message)
        if not self.started:
            return None
        request = self._request.checked()
        for kind, count in self._skipped.items():
            self._tell(INFO, f"{count} {kind} received and not used")
        if request.config != NULL and self._spool is None:
            raise WireError("a scan without readouts")
        return Received(request, self._readouts, None if self._spool is None else self._path)

    def _preparation(self, message: object) -> None:
        """Take in what comes before the readouts: later it changes nothing any more."""
        if isinstance(message, Config):
            self._request = self._request.named(message.text)
        elif isinstance(message, XmlHeader):
            self._xml = without_identity(message.xml)
            self.started = True
        elif isinstance(message, Text):
            try:
                self._request = self._request.with_json(message.text)
            except ValueError as error:
                if not message.text.lstrip().startswith("{"):
                    self._tell(WARNING, "a text that is no JSON was received and not used")
                    return
                raise WireError(f"parameters that cannot be used: {error}") from error

    def _readout(self, acquisition: Acquisition) -> None:
        if not self.started:
            raise WireError("a readout before the header")
        if not self._readouts:
            request = self._request.checked()
            if request.ignored:
                self._tell(WARNING, f"parameters that mean nothing here: {', '.join(request.ignored)}")
            if request.config != NULL:
                self._tell(INFO, f"molrecon receives a scan, config {request.config}")
                self._spool = Spool(self._path, self._limits)
                self._spool.header(self._xml)
        if self._spool is not None:
            self._spool.readout(acquisition)
        self._readouts += 1

"""What a worker is given to do, and how it says that it has ended."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import final

from molrecon.stream.config import Request

# The last message of a worker; no message of the stream is so short. FAILED: it has sent a line that says why.
DONE, FAILED = b"D", b"F"


@final
@dataclass(frozen=True)
class Job:
    """A scan to reconstruct.

    Attributes:
        spool: the received messages, see `Spool`; None: nothing but the model is to be tried.
        request: what the peer asked for, checked.
        model: name or file, see `molrecon.scans.methods.load_method`.
        device: where to compute, as torch names it; None: the GPU if there is one, else the CPU.
        conjugate: whether to conjugate the data, see `read_mrd`.
    """

    spool: Path | None
    request: Request
    model: str
    device: str | None
    conjugate: bool | None = None

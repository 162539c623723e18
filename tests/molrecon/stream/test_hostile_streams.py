"""Any byte stream ends in CLOSE or a hang-up, soon and in little memory."""

from __future__ import annotations

import resource
import socket
import tempfile

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from molrecon.stream.messages import (
    Acquisition,
    Close,
    encode_acquisition,
    encode_close,
    encode_config,
    encode_header,
    encode_text,
    read_message,
)
from molrecon.stream.session import Session, StreamSettings
from molrecon.stream.wire import ACQUISITION_HEAD, HangUp, Limits, socket_reader
from molrecon.stream.workers import Workers

from .conftest import header, null_session

LIMITS = Limits(text=1 << 16, message=1 << 20, scan=1 << 24)
SETTINGS = StreamSettings("cg-sense", "cpu", idle_timeout=5, limits=LIMITS)


class NoWorkers(Workers):
    """A stream of nonsense reaches no reconstruction: if one does, the session ends as if it had failed."""

    def run(self, job, forward, gone):
        return False


def serve(content: bytes) -> bytes:
    """What a session answers to a stream."""
    ours, theirs = socket.socketpair()
    with theirs:
        theirs.settimeout(10)
        theirs.sendall(content)
        theirs.shutdown(socket.SHUT_WR)
        Session(ours, SETTINGS, NoWorkers(), 1).run()
        answer = b""
        while block := theirs.recv(1 << 16):
            answer += block
    return answer


def messages_of(answer: bytes) -> list[object]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(answer)
        theirs.shutdown(socket.SHUT_WR)
        found: list[object] = []
        try:
            while (message := read_message(socket_reader(ours), Limits(), images=True)) is not None:
                found.append(message)
        except HangUp:
            found.append(None)
    return found


def assert_ended(answer: bytes) -> None:
    found = messages_of(answer)
    assert isinstance(found[-1], Close) and sum(isinstance(message, Close) for message in found) == 1


def readout(samples: int = 8, channels: int = 2, **fields: int) -> bytes:
    head = np.zeros((), ACQUISITION_HEAD)
    head["number_of_samples"], head["active_channels"] = samples, channels
    for name, value in fields.items():
        head[name] = value
    return encode_acquisition(Acquisition(head, np.zeros(0, np.float32), np.ones(2 * samples * channels, np.float32)))


PARTS = st.one_of(
    st.binary(max_size=64),
    st.sampled_from(
        [
            encode_config("null"),
            encode_config("molrecon"),
            encode_header(header(8, 6, (8, 6, 1))),
            encode_text('{"parameters": {"config": "null"}}'),
            encode_text("[" * 5000),
            readout(),
            readout(trajectory_dimensions=65535),
            encode_close(),
            b"\xf0\x03",
            b"\xfe\x03" + bytes(206),
            b"\x02\x04" + bytes(40),
        ]
    ),
    st.text(max_size=40).map(encode_text),
    st.integers(0, 2**16 - 1).map(lambda number: number.to_bytes(2, "little")),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(PARTS, max_size=8))
def test_any_messages_in_any_order(messages):
    assert_ended(serve(b"".join(messages)))


def test_a_thousand_mutated_sessions(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    whole = null_session(b"".join(readout() for _ in range(6)))
    rng = np.random.default_rng(1)
    serve(whole)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(1000):
        content = bytearray(whole)
        for _ in range(rng.integers(1, 6)):
            position = int(rng.integers(len(content)))
            kind = rng.integers(4)
            if kind == 0:
                content[position] = int(rng.integers(256))
            elif kind == 1:
                del content[position : position + int(rng.integers(1, 400))]
            elif kind == 2:
                content[position:position] = rng.bytes(int(rng.integers(1, 40)))
            else:
                del content[position:]
                content += b"\xff" * int(rng.integers(0, 8))
        assert_ended(serve(bytes(content)))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10  # KiB
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "content",
    [
        b"\x03\x00" + (2**32 - 1).to_bytes(4, "little"),
        b"\xfe\x03" + bytes(2) + b"\x05\x00" + bytes(194) + (2**63).to_bytes(8, "little"),
        readout(samples=0, channels=0)[:2] + b"\xff" * 340,
    ],
)
def test_what_a_head_claims_is_not_allocated(content):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert_ended(serve(encode_config("null") + encode_header(header(8, 6, (8, 6, 1))) + content))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 16 << 10


def test_a_scan_beyond_its_limit_is_refused():
    start = encode_config("molrecon") + encode_header(header(8, 6, (8, 6, 1)))
    ours, theirs = socket.socketpair()
    with theirs:
        theirs.sendall(start + readout() * 20 + encode_close())
        theirs.shutdown(socket.SHUT_WR)
        small = StreamSettings("cg-sense", "cpu", 5, Limits(text=1 << 16, message=1 << 16, scan=4000))
        Session(ours, small, NoWorkers(), 1).run()
        assert b"more than 4000 bytes" in theirs.recv(1 << 16)

"""`molrecon serve` as a process, and the public client and server of the MRD stream (python-ismrmrd-server)."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from molrecon.reconstructors.base import Reconstructor
from molrecon.reconstructors.defaults import DEFAULT_MODEL
from molrecon.scans.cohort import reconstruct_file
from molrecon.scans.settings import Settings
from molrecon.stream.client import encode_file, stream_file
from molrecon.stream.messages import Close, Image, Message, read_message
from molrecon.stream.wire import Limits, socket_reader
from molrecon.weights import load

from .conftest import PLANTED

ROOT = Path(__file__).resolve().parents[3]
PEERS = (
    Path(os.environ.get("MOLRECON_DATA", ROOT.parent / "shared" / "data")).parent / "peers" / "python-ismrmrd-server"
)
ENVIRONMENT = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1"}

needs_peer = pytest.mark.skipif(not (PEERS / "client.py").is_file(), reason="needs the public python-ismrmrd-server")


def run(command: list[object], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(word) for word in command],
        cwd=folder,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


class Served:
    """`molrecon serve` with CG-SENSE on a free port."""

    def __init__(self, folder: Path) -> None:
        self.log = folder / "serve.log"
        options = ["--port", "0", "--model", "cg-sense", "--verbose"]
        command = [sys.executable, "-m", "molrecon", "serve", *options]
        environment = {**ENVIRONMENT, "TMPDIR": str(folder)}
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=log, text=True, cwd=ROOT, env=environment
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert "serves MRD streams" in line, self.log.read_text()
        self.port = int(line.split(":")[1].split()[0])

    def end(self) -> int:
        """Ask it to end, and return its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(timeout=60)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code


@pytest.fixture(scope="module")
def served(tmp_path_factory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served")
    server = Served(folder)
    try:
        yield server
    finally:
        code = server.end()
    assert code == 0
    log = server.log.read_text()
    assert "session" in log and PLANTED not in log and "1911" not in log and "Traceback" not in log
    assert [path.name for path in folder.iterdir()] == ["serve.log"]


@needs_peer
def test_the_public_client(served, scan, tmp_path):
    command = [sys.executable, PEERS / "client.py", scan, "-a", "127.0.0.1", "-p", str(served.port), "-c", "molrecon"]
    command += ["-o", tmp_path / "images.h5", "-G", "images"]
    done = run(command, tmp_path)
    assert "ERROR" not in done.stderr and "RESEARCH" not in done.stderr, done.stderr
    with h5py.File(tmp_path / "images.h5", "r") as file:
        images = file["images/image_1/data"][:, 0, 0]
        attributes = file["images/image_1/attributes"][0].decode()
    assert images.shape == (2, 64, 96)  # x is the readout
    np.testing.assert_array_equal(images.transpose(0, 2, 1), reconstruct_file(scan, model="cg-sense").image)
    assert "molreconErrorBound" in attributes and PLANTED not in attributes


@needs_peer
def test_the_public_client_learns_what_is_wrong(served, scan, tmp_path):
    command = [sys.executable, PEERS / "client.py", scan, "-a", "127.0.0.1", "-p", str(served.port), "-c", "nothing"]
    command += ["-o", tmp_path / "images.h5"]
    done = run(command, tmp_path)
    assert "expected one of molrecon, molrecon-cgsense, null" in done.stderr


@pytest.fixture(scope="module")
def public_server(tmp_path_factory) -> Iterator[int]:
    folder = tmp_path_factory.mktemp("public")
    (folder / "analyzeflow.py").write_text("")  # it imports this module, which is not used here
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    paths = os.pathsep.join([str(folder), str(ROOT)])
    command = [sys.executable, str(PEERS / "main.py"), "-H", "127.0.0.1", "-p", str(port), "-d", "simplefft"]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            command, cwd=folder, env={**ENVIRONMENT, "PYTHONPATH": paths}, stdout=log, stderr=log
        )
    end = time.monotonic() + 60
    while "Starting server" not in (folder / "log").read_text() and time.monotonic() < end:
        time.sleep(0.1)
    time.sleep(0.2)  # from that line to the open port
    try:
        yield port
    finally:
        process.kill()
        process.wait()


@needs_peer
def test_molrecon_as_a_module_of_the_public_server(public_server, scan):
    answer = stream_file(scan, port=public_server, config="molrecon", parameters={"tol": "1e-2"})
    assert answer.closed and not any(text.startswith("ERROR") for text in answer.texts), answer.texts
    own = load(DEFAULT_MODEL, Reconstructor).solver
    assert own is not None
    solver = replace(own, tol=1e-2)
    expected = reconstruct_file(scan, model=DEFAULT_MODEL, settings=Settings(solver=solver))
    np.testing.assert_allclose(answer.volume(), expected.image, rtol=1e-6)
    assert answer.images[0].meta["molreconModel"] == [DEFAULT_MODEL]
    assert [image.head["image_index"] for image in answer.images] == [1, 2]


@needs_peer
def test_parameters_reach_the_module_and_nonsense_is_told(public_server, scan):
    answer = stream_file(scan, port=public_server, config="molrecon.stream", parameters={"config": "molrecon.stream"})
    assert answer.closed and not answer.images and "expected one of" in answer.texts[-1]


@needs_peer
def test_our_client_reads_what_the_public_server_sends(public_server, generated):
    answer = stream_file(generated("-r", "1"), port=public_server, config="simplefft")
    assert answer.closed and answer.images and answer.images[0].pixels.dtype == np.int16


def send_half(peer: socket.socket, scan: Path) -> bytes:
    """Send the first half of a session, and return the other."""
    messages = list(encode_file(scan, "molrecon"))
    half = len(messages) // 2
    peer.sendall(b"".join(messages[:half]))
    return b"".join(messages[half:])


def test_sigterm_lets_the_scan_finish(scan, tmp_path):
    server = Served(tmp_path)
    try:
        with socket.create_connection(("127.0.0.1", server.port), timeout=60) as peer:
            second_half = send_half(peer, scan)
            time.sleep(0.3)
            server.process.send_signal(signal.SIGTERM)
            time.sleep(0.5)
            peer.sendall(second_half)
            read, found = socket_reader(peer), list[Message | None]()
            while not found or not isinstance(found[-1], Close):
                found.append(read_message(read, Limits(), images=True))
        assert sum(isinstance(message, Image) for message in found) == 2
    finally:
        assert server.end() == 0
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", server.port))


def test_a_second_sigterm_does_not(scan, tmp_path):
    server = Served(tmp_path)
    try:
        with socket.create_connection(("127.0.0.1", server.port), timeout=60) as peer:
            send_half(peer, scan)
            time.sleep(0.3)
            server.process.send_signal(signal.SIGTERM)
            time.sleep(0.3)
            assert server.process.poll() is None
            assert server.end() == 0
    finally:
        server.process.kill()
    assert [path.name for path in tmp_path.iterdir()] == ["serve.log"]


def test_wrong_arguments_of_the_command(served):
    def complaint(*options: str) -> tuple[int, str]:
        done = run([sys.executable, "-m", "molrecon", "serve", *options], ROOT)
        return done.returncode, done.stderr

    assert complaint("--port", "70000")[0] == 2
    code, message = complaint("--port", str(served.port), "--model", "cg-sense")
    assert code == 4 and "in use" in message

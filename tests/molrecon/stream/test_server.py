"""The server: what comes back is what `molrecon reconstruct FILE` writes, and no peer takes it down."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from xml.etree import ElementTree

import h5py
import numpy as np
import pytest

from molrecon.scans.cohort import reconstruct_file
from molrecon.stream.client import stream_file
from molrecon.stream.messages import encode_close, encode_config, encode_header, read_message
from molrecon.stream.server import StreamServer
from molrecon.stream.session import StreamSettings
from molrecon.stream.wire import Limits, socket_reader

from .conftest import PLANTED, header, null_session, write_scan


def exchange(port: int, content: bytes) -> bytes:
    """Send bytes, end the connection on this side, and return all that comes back."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as peer:
        peer.sendall(content)
        peer.shutdown(socket.SHUT_WR)
        answer = b""
        while block := peer.recv(1 << 16):
            answer += block
    return answer


def test_images_are_those_of_the_file(port, scan):
    expected = reconstruct_file(scan, model="cg-sense")
    answer = stream_file(scan, port=port)
    assert answer.closed and not any(text.startswith("ERROR") for text in answer.texts)
    assert [image.pixels.shape for image in answer.images] == [(1, 1, 64, 96)] * 2  # x is the readout
    np.testing.assert_array_equal(answer.volume(), expected.image)
    bounds = [float(image.meta["molreconErrorBound"][0]) for image in answer.images]
    np.testing.assert_allclose(bounds, expected.error_bound, rtol=1e-5)
    assert answer.images[0].meta["molreconConverged"] == [str(bool(expected.converged[0])).lower()]


def test_images_say_where_they_are_and_what_they_are(port, scan):
    first, second = stream_file(scan, port=port).images
    for number, image in enumerate((first, second)):
        head = image.head
        np.testing.assert_array_equal(head["position"], (1, 2, 5 * number))
        np.testing.assert_array_equal(head["read_dir"], (0, 1, 0))
        np.testing.assert_array_equal(head["phase_dir"], (1, 0, 0))
        np.testing.assert_array_equal(head["slice_dir"], (0, 0, -1))
        np.testing.assert_allclose(head["field_of_view"], (192, 192, 4))
        assert head["acquisition_time_stamp"] == 1000 * number + 32  # of the central readout
        assert [int(head[name]) for name in ("slice", "image_index", "image_series_index")] == [number, number + 1, 1]
        assert image.meta["DataRole"] == ["Image"] and "RESEARCH ONLY" in image.meta["ImageComments"][0]
        assert [float(value) for value in image.meta["ImageRowDir"]] == [0, 1, 0]
    assert first.head["image_type"] == 1


def test_slices_are_sent_as_they_lie_with_their_own_numbers(port, tmp_path):
    path = write_scan(tmp_path / "interleaved.h5", rows=32, cols=32, slices=4, order=(0, 2, 1, 3))
    answer = stream_file(path, port=port)
    np.testing.assert_array_equal(answer.volume(), reconstruct_file(path, model="cg-sense").image)
    assert [int(image.head["slice"]) for image in answer.images] == [3, 1, 2, 0]  # along slice_dir
    assert [float(image.head["position"][2]) for image in answer.images] == [15, 10, 5, 0]
    assert [int(image.head["acquisition_time_stamp"]) for image in answer.images] == [3016, 1016, 2016, 16]


def test_pixels_may_be_whole_numbers(port, scan):
    expected = reconstruct_file(scan, model="cg-sense").image
    answer = stream_file(scan, port=port, parameters={"pixels": "uint16", "tol": "1e-3", "shade": "blue"})
    assert answer.images[0].pixels.dtype == np.uint16
    assert max(image.pixels.max() for image in answer.images) == 4095
    scale = float(answer.images[0].meta["molreconScale"][0])
    np.testing.assert_allclose(answer.volume() / scale, expected, atol=2e-3 * expected.max())
    assert answer.images[0].meta["WindowWidth"] == ["4096"]
    assert any(text.startswith("WARNING") and "shade" in text for text in answer.texts)


@pytest.mark.parametrize(
    ("options", "repetitions"),
    [(("-a", "2", "-w", "16", "-C"), 2), (("-r", "2"), 2), (("-a", "3", "-r", "2", "-w", "18"), 6)],
    ids=str,
)
def test_scans_of_the_reference_generator(port, generated, options, repetitions):
    path = generated(*options)
    answer = stream_file(path, port=port)
    expected = reconstruct_file(path, model="cg-sense").image
    np.testing.assert_array_equal(answer.volume(), expected.reshape(repetitions, *expected.shape[-2:]))
    assert [int(image.head["repetition"]) for image in answer.images] == list(range(repetitions))
    assert [int(image.head["image_index"]) for image in answer.images] == list(range(1, 1 + repetitions))
    with h5py.File(path, "r") as file:
        truth = np.abs(file["dataset/phantom"][0]["real"] + 1j * file["dataset/phantom"][0]["imag"])
    found = answer.images[0].pixels[0, 0]
    assert np.corrcoef(found.ravel(), truth.ravel())[0, 1] > 0.9  # and not of the transposed one
    assert "ImageRowDir" not in answer.images[0].meta  # the generator's directions are zero


def test_what_is_left_out_is_told(port, generated):
    texts = stream_file(generated("-a", "2", "-w", "16", "-C"), port=port).texts
    assert any("noise" in text for text in texts)


def test_configurations_of_the_list_and_no_others(port, scan):
    assert stream_file(scan, port=port, config="null").images == []
    assert len(stream_file(scan, port=port, config="molrecon-cgsense").images) == 2
    for config in ("os", "../secrets", "simplefft", ""):
        answer = stream_file(scan, port=port, config=config)
        assert answer.closed and not answer.images
        assert answer.texts[-1].startswith("ERROR") and "molrecon-cgsense" in answer.texts[-1]
    assert stream_file(scan, port=port, config="openrecon", parameters={"config": "null"}).texts[-1].startswith("INFO")


def test_a_scan_that_cannot_be_reconstructed(port, tmp_path, scan):
    path = tmp_path / "radial.h5"
    path.write_bytes(scan.read_bytes())
    with h5py.File(path, "r+") as file:
        file["dataset/xml"][0] = header(96, 64, (1, 1, 1)).replace(">cartesian<", ">radial<").encode()
    answer = stream_file(path, port=port)
    assert answer.closed and not answer.images and "radial" in answer.texts[-1]
    assert answer.texts[-1].startswith("ERROR") and tempfile.gettempdir() not in answer.texts[-1]


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", None),
        (encode_close(), None),
        (encode_config("molrecon") + encode_close(), None),
        (b"GET / HTTP/1.1\r\n\r\n", "message"),
        (encode_config("molrecon") + encode_header("<a/>"), "header"),
        (encode_config("molrecon") + encode_header('<!DOCTYPE x [<!ENTITY a "b">]><ismrmrdHeader/>'), "document type"),
        (encode_config("molrecon") + encode_header(header(8, 8, (1, 1, 1))), "CLOSE"),
        (encode_config("molrecon") + encode_header(header(8, 8, (1, 1, 1))) + encode_close(), "without readouts"),
        (b"\x03\x00\xff\xff\xff\xff", "bytes"),
        (b"\x05\x00\x02\x00\x00\x00{}", None),
    ],
)
def test_ports_that_are_tried_and_streams_that_are_none(port, content, word):
    answer = exchange(port, content)
    assert answer.endswith(encode_close())
    if word is None:
        assert answer == encode_close()
    else:
        assert b"ERROR" in answer and word.encode() in answer


def test_a_second_scan_while_one_is_reconstructed(port, scan):
    waited = False
    for _ in range(5):  # on a busy machine a client may come when the one before it is done
        with ThreadPoolExecutor(3) as pool:
            answers = list(pool.map(lambda _: stream_file(scan, port=port), range(3)))
        for answer in answers[1:]:
            np.testing.assert_array_equal(answer.volume(), answers[0].volume())
        waited = waited or any("waits" in text for answer in answers for text in answer.texts)
        if waited:
            break
    assert waited


def test_a_killed_worker_is_told_and_the_next_scan_served(port, scan):
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(stream_file, scan, port=port)
        end = time.monotonic() + 20
        while not (workers := multiprocessing.active_children()) and time.monotonic() < end:
            time.sleep(0.002)
        assert workers[0].pid is not None
        os.kill(workers[0].pid, signal.SIGKILL)
        answer = future.result()
    assert answer.closed and answer.texts[-1].startswith("ERROR") and "ended" in answer.texts[-1]
    assert len(stream_file(scan, port=port).images) == 2


def test_a_peer_that_hangs_up_costs_nothing(port, scan):
    with socket.create_connection(("127.0.0.1", port)) as peer:
        peer.sendall(null_session(b"")[:1500])
    assert len(stream_file(scan, port=port).images) == 2


def test_a_silent_peer_is_hung_up_on():
    server, stop = StreamServer(StreamSettings("cg-sense", idle_timeout=0.2)), threading.Event()
    number = server.listen("127.0.0.1", 0)
    thread = threading.Thread(target=server.serve, args=(stop,))
    thread.start()
    with socket.create_connection(("127.0.0.1", number), timeout=20) as peer:
        peer.sendall(encode_config("molrecon"))
        assert peer.recv(1 << 10).startswith(b"\x05\x00")  # a text that says so
    stop.set()
    thread.join(timeout=20)
    assert not thread.is_alive()


def test_no_more_connections_than_allowed():
    server, stop = StreamServer(StreamSettings("cg-sense", connections=1)), threading.Event()
    number = server.listen("127.0.0.1", 0)
    thread = threading.Thread(target=server.serve, args=(stop,))
    thread.start()
    with socket.create_connection(("127.0.0.1", number), timeout=20) as first:
        first.sendall(encode_config("null"))
        with socket.create_connection(("127.0.0.1", number), timeout=20) as second:
            message = read_message(socket_reader(second), Limits())
            assert "1 connections at a time" in str(message)
        stop.set()  # a connection without a scan does not hold up the end
        thread.join(timeout=20)
        assert not thread.is_alive()


def test_an_unknown_model_is_refused_before_a_port_is_opened():
    with pytest.raises(ValueError, match="no-such-model"):
        StreamServer(StreamSettings("no-such-model")).check()


def test_two_hundred_scans_leave_nothing_behind(port, scan, monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def held() -> tuple[int, int, int, int]:
        end = time.monotonic() + 10
        while threading.active_count() > threads_before and time.monotonic() < end:
            time.sleep(0.05)
        files = len(os.listdir("/proc/self/fd")), len(list(tmp_path.iterdir()))
        return *files, len(multiprocessing.active_children()), threading.active_count()

    threads_before = threading.active_count()
    stream_file(scan, port=port)
    before = held()
    for k in range(200):
        answer = stream_file(scan, port=port, config="molrecon" if k % 50 == 0 else "null")
        assert answer.closed
    assert held() == before and before[1] == 0


def test_nobody_is_named(port, scan, caplog):
    with caplog.at_level("DEBUG"):
        answer = stream_file(scan, port=port, parameters={"tol": 1e-3})
    texts = [caplog.text, *answer.texts, *(str(image.meta) for image in answer.images)]
    assert not any(PLANTED in text or "1911" in text for text in texts)
    with h5py.File(scan, "r") as file:
        assert PLANTED in ElementTree.fromstring(file["dataset/xml"][0]).findtext(".//{*}patientName", "")

"""Scans as files, a server in this process, and the bytes of a session."""

from __future__ import annotations

import shutil
import subprocess
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import ismrmrd
import numpy as np
import pytest

from molrecon.stream.messages import encode_close, encode_config, encode_header
from molrecon.stream.server import StreamServer
from molrecon.stream.session import StreamSettings
from molrecon.stream.wire import Limits

GENERATE = "ismrmrd_generate_cartesian_shepp_logan"
COILS = 4
PLANTED = "Planted"  # the first letters of whatever could tell of a person


def header(rows: int, cols: int, fov: tuple[float, float, float]) -> str:
    """An ISMRMRD header full of what tells of a person."""
    space = "".join(f"<{axis}>{size}</{axis}>" for axis, size in zip("xyz", (rows, cols, 1), strict=True))
    mm = "".join(f"<{axis}>{size}</{axis}>" for axis, size in zip("xyz", fov, strict=True))
    matrix = f"<matrixSize>{space}</matrixSize><fieldOfView_mm>{mm}</fieldOfView_mm>"
    return (
        '<?xml version="1.0" encoding="utf-8"?><ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD">'
        f"<subjectInformation><patientName>{PLANTED}Name</patientName><patientWeight_kg>70</patientWeight_kg>"
        f"<patientID>{PLANTED}ID</patientID><patientBirthdate>1911-11-11</patientBirthdate></subjectInformation>"
        f"<studyInformation><studyID>{PLANTED}Study</studyID><referringPhysicianName>{PLANTED}Doctor"
        f"</referringPhysicianName><studyDescription>{PLANTED}Description</studyDescription></studyInformation>"
        f"<measurementInformation><patientPosition>HFS</patientPosition><protocolName>{PLANTED}Protocol</protocolName>"
        "</measurementInformation><acquisitionSystemInformation><systemVendor>molrecon tests</systemVendor>"
        f"<institutionName>{PLANTED}Hospital</institutionName></acquisitionSystemInformation>"
        "<experimentalConditions><H1resonanceFrequency_Hz>123000000</H1resonanceFrequency_Hz></experimentalConditions>"
        f"<encoding><encodedSpace>{matrix}</encodedSpace><reconSpace>{matrix}</reconSpace><encodingLimits>"
        f"<kspace_encoding_step_1><minimum>0</minimum><maximum>{cols - 1}</maximum><center>{cols // 2}</center>"
        "</kspace_encoding_step_1></encodingLimits><trajectory>cartesian</trajectory></encoding>"
        f"<userParameters><userParameterString><name>note</name><value>{PLANTED}Note</value></userParameterString>"
        "</userParameters></ismrmrdHeader>"
    )


def multicoil_kspace(slices: int, rows: int, cols: int) -> np.ndarray:
    """(slices, COILS, rows, cols) complex64 of an ellipse with a bar, which differs from slice to slice."""
    y, x = np.meshgrid(np.linspace(-1, 1, rows), np.linspace(-1, 1, cols), indexing="ij")
    object_ = ((y / 0.8) ** 2 + (x / 0.6) ** 2 < 1).astype(float)
    maps = np.stack([np.exp(-((y - a) ** 2) - (x - b) ** 2 + 1j * a * x) for a in (-1, 1) for b in (-1, 1)])
    images = np.stack([object_ + (np.abs(y - 0.1 * k) < 0.1) * (x > 0) * object_ for k in range(1, slices + 1)])
    kspace = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(images[:, None] * maps, (-2, -1)), norm="ortho"), (-2, -1))
    rng = np.random.default_rng(4)
    noise = rng.normal(size=kspace.shape) + 1j * rng.normal(size=kspace.shape)
    return (kspace + 0.003 * noise).astype(np.complex64)


def write_scan(path: Path, rows: int = 96, cols: int = 64, slices: int = 2, order: Sequence[int] | None = None) -> Path:
    """Write a twice accelerated scan with 20 central lines, through the reference library.

    Slice number n lies at the n-th place of `order`; None: where its number says.
    """
    with ismrmrd.Dataset(str(path), "dataset", create_if_needed=True) as dataset:
        dataset.write_xml_header(header(rows, cols, (2.0 * rows, 3.0 * cols, 4.0)).encode())
        for number, one in enumerate(multicoil_kspace(slices, rows, cols)):
            for column in range(cols):
                if column % 2 and abs(column - cols // 2) > 10:
                    continue
                readout = ismrmrd.Acquisition.from_array(np.ascontiguousarray(one[:, :, column]))
                readout.center_sample = rows // 2
                readout.idx.kspace_encode_step_1, readout.idx.slice = column, number
                readout.position = (1.0, 2.0, 5.0 * (number if order is None else order[number]))
                readout.read_dir, readout.phase_dir, readout.slice_dir = (0, 1, 0), (1, 0, 0), (0, 0, -1)
                readout.acquisition_time_stamp = 1000 * number + column
                dataset.append_acquisition(readout)
    return path


@pytest.fixture(scope="session")
def scan(tmp_path_factory) -> Path:
    return write_scan(tmp_path_factory.mktemp("scans") / "scan.h5")


@pytest.fixture(scope="session")
def generated(tmp_path_factory):
    """Return `generated(*options)`, a file of the reference generator."""
    if shutil.which(GENERATE) is None:
        pytest.skip(f"needs {GENERATE} (Debian's ismrmrd-tools)")

    def make(*options: str) -> Path:
        path = tmp_path_factory.mktemp("generated") / "scan.h5"
        subprocess.run([GENERATE, "-m", "64", "-c", "4", "-o", path, *options], check=True, capture_output=True)
        return path

    return make


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """The port of a server in this process, whose model is CG-SENSE."""
    settings = StreamSettings("cg-sense", "cpu", idle_timeout=20, limits=Limits(1 << 20, 8 << 20, 64 << 20))
    server = StreamServer(settings)
    server.check()
    number, stop = server.listen("127.0.0.1", 0), threading.Event()
    thread = threading.Thread(target=server.serve, args=(stop,))
    thread.start()
    yield number
    stop.set()
    thread.join(timeout=30)
    assert not thread.is_alive()


def null_session(readouts: bytes, xml: str | None = None) -> bytes:
    """The bytes of a session that asks for nothing."""
    return encode_config("null") + encode_header(xml or header(8, 6, (8, 6, 1))) + readouts + encode_close()

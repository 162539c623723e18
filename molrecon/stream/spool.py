"""A scan between the wire and the reader of files: received messages on disk, then an MRD file.

The file is what the ordinary reader reads, so that a scan that comes over the wire and one that comes in a file are
reconstructed alike.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import h5py
import numpy as np

from molrecon.io.hdf5 import own_file
from molrecon.stream.messages import Acquisition, XmlHeader, encode_acquisition, encode_header, read_message
from molrecon.stream.wire import ACQUISITION_HEAD, Limits, WireError, file_reader

SAMPLES = h5py.vlen_dtype(np.dtype("<f4"))
RECORD = np.dtype([("head", ACQUISITION_HEAD), ("traj", SAMPLES), ("data", SAMPLES)])
BLOCK_BYTES = 16 << 20  # of readouts that are held in memory
GROUP = "dataset"


class Spool:
    """Writes a header and readouts to a file as they come, as the messages that they are.

    Args:
        path: of the file, which must not exist.
        limits: the size of a scan.
    """

    def __init__(self, path: Path, limits: Limits) -> None:
        self.path = path
        self.readouts = 0
        self._limit = limits.scan
        self._size = 0
        self._file: BinaryIO = path.open("xb")

    def header(self, xml: str) -> None:
        """Append the header; it comes first."""
        self._append(encode_header(xml))

    def readout(self, acquisition: Acquisition) -> None:
        """Append a readout."""
        self._append(encode_acquisition(acquisition))
        self.readouts += 1

    def close(self) -> None:
        """Finish the file."""
        self._file.close()

    def _append(self, content: bytes) -> None:
        self._size += len(content)
        if self._size > self._limit:
            raise WireError(f"a scan of more than {self._limit} bytes")
        self._file.write(content)


def spooled(path: Path) -> Iterator[XmlHeader | Acquisition]:
    """Yield what a spool holds."""
    limits = Limits()
    with path.open("rb") as file:
        while (message := read_message(file_reader(file), limits)) is not None:
            if isinstance(message, (XmlHeader, Acquisition)):
                yield message


def write_mrd(spool: Path, path: Path) -> None:
    """Write the scan of a spool as an MRD HDF5 file, whose dtypes are those of the reference library."""
    with h5py.File(path, "w") as file:
        group = file.create_group(GROUP)
        data = group.create_dataset("data", (0,), RECORD, maxshape=(None,), chunks=(64,))
        waiting: list[Acquisition] = []
        held = 0
        for message in spooled(spool):
            if isinstance(message, XmlHeader):
                group.create_dataset("xml", data=np.array([message.xml.encode()], object), dtype=h5py.string_dtype())
                continue
            waiting.append(message)
            held += message.samples.nbytes + message.trajectory.nbytes
            if held > BLOCK_BYTES:
                _append(data, waiting)
                waiting, held = [], 0
        _append(data, waiting)


def read_heads(path: Path) -> np.ndarray:
    """Return the heads (readouts,) of the readouts of a file that `write_mrd` wrote."""
    with own_file(path) as file:
        return np.asarray(file[GROUP]["data"].fields("head")[()])


def _append(data: h5py.Dataset, acquisitions: list[Acquisition]) -> None:
    if not acquisitions:
        return
    block = np.empty(len(acquisitions), RECORD)
    for k, acquisition in enumerate(acquisitions):
        block[k]["head"] = acquisition.head
        block[k]["traj"], block[k]["data"] = acquisition.trajectory, acquisition.samples
    start = len(data)
    data.resize((start + len(block),))
    data[start:] = block

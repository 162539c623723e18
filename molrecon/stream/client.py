"""The other end of the stream: sends the scan of an MRD file to a server and returns what comes back."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import final

import h5py
import numpy as np

from molrecon.io import UnreadableInput
from molrecon.io.hdf5 import check_heaps, own_file, read_text
from molrecon.io.volume import reading
from molrecon.stream.messages import (
    Acquisition,
    Close,
    Image,
    Text,
    encode_acquisition,
    encode_close,
    encode_config,
    encode_header,
    encode_text,
    read_message,
)
from molrecon.stream.wire import ACQUISITION_HEAD, HangUp, Limits, socket_reader

BLOCK = 256  # readouts that are held in memory


@final
@dataclass(frozen=True, eq=False)
class Answer:
    """What a server sent.

    Attributes:
        images: in the order in which they came.
        texts: lines for the log.
        closed: it ended with CLOSE; otherwise it hung up.
    """

    images: list[Image] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    closed: bool = False

    def volume(self) -> np.ndarray:
        """Return the images as (slices, rows, cols), as `molrecon reconstruct` writes them. Raises ValueError."""
        if not self.images:
            raise ValueError(f"Answer.volume: no image came, expected one or more; the server said {self.texts}")
        return np.stack([image.pixels[0, 0].T for image in self.images])


def stream_file(
    path: str | Path,
    host: str = "127.0.0.1",
    port: int = 9002,
    *,
    config: str = "molrecon",
    parameters: Mapping[str, object] | None = None,
    timeout: float = 300.0,
) -> Answer:
    """Send the first scan of an MRD file to a server of MRD streams, and return its answer.

    Args:
        path: ISMRMRD HDF5 with raw data.
        host, port: of the server.
        config: name of a configuration that the server knows.
        parameters: for the server, sent as `{"parameters": ...}` in JSON; None: nothing is sent.
        timeout: seconds without a byte after which the server is given up.

    Raises:
        UnreadableInput: the file.
        OSError: the connection.
        WireError: an answer that is no MRD stream.
    """
    messages = encode_file(path, config, parameters)
    start = next(messages)
    answer: list[Answer | Exception] = []
    with socket.create_connection((host, port), timeout=timeout) as server:
        # Both directions at a time: a server may send images while the scan is still on its way.
        reader = threading.Thread(target=_receive, args=(server, answer))
        reader.start()
        try:
            server.sendall(start)
            for message in messages:
                server.sendall(message)
        except OSError:  # it hung up: its last words say why
            pass
        finally:
            reader.join()
    if isinstance(answer[0], Exception):
        raise answer[0]
    return answer[0]


def encode_file(path: str | Path, config: str, parameters: Mapping[str, object] | None = None) -> Iterator[bytes]:
    """Yield the messages of a session, see `stream_file`: all that precedes the readouts first, CLOSE last.

    Raises UnreadableInput.
    """
    path = Path(path)
    start = encode_config(config) + encode_header(_header(path))
    if parameters is not None:
        start += encode_text(json.dumps({"parameters": dict(parameters)}))
    yield start
    yield from map(encode_acquisition, _acquisitions(path))
    yield encode_close()


def _receive(server: socket.socket, answer: list[Answer | Exception]) -> None:
    images: list[Image] = []
    texts: list[str] = []
    read, limits = socket_reader(server), Limits()
    closed = False
    try:
        while not closed and (message := read_message(read, limits, images=True)) is not None:
            closed = isinstance(message, Close)
            if isinstance(message, Image):
                images.append(message)
            elif isinstance(message, Text):
                texts.append(message.text)
    except HangUp:
        pass
    except Exception as error:
        answer.append(error)
        return
    answer.append(Answer(images, texts, closed))


def _header(path: Path) -> str:
    check_heaps(path)
    with reading(path, "raw ISMRMRD data"), own_file(path) as file:
        return read_text(path, file[_group(path, file)]["xml"])


def _acquisitions(path: Path) -> Iterator[Acquisition]:
    with own_file(path) as file:
        data = file[_group(path, file)]["data"]
        for start in range(0, len(data), BLOCK):
            block = data[start : start + BLOCK]
            heads = np.ascontiguousarray(block["head"]).astype(ACQUISITION_HEAD)
            for head, trajectory, samples in zip(heads, block["traj"], block["data"], strict=True):
                yield Acquisition(np.array(head), trajectory, samples)


def _group(path: Path, file: h5py.File) -> str:
    for name in file:
        if isinstance(file[name], h5py.Group) and {"xml", "data"} <= set(file[name]):
            return str(name)
    raise UnreadableInput(path, f"no group with xml and data among {sorted(file)}", "raw ISMRMRD data")

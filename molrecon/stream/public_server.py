"""molrecon as a module of the public MRD server (kspaceKelvin's python-ismrmrd-server).

That server imports the module that a client's config names, `molrecon` or `molrecon.stream`, and calls its `process`.
"""

from __future__ import annotations

import dataclasses
import enum
import json
import logging
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Protocol
from xml.etree import ElementTree

import numpy as np

from molrecon.reconstructors.defaults import DEFAULT_MODEL
from molrecon.stream.config import MOLRECON, NULL, Refused, Request
from molrecon.stream.header import ELEMENTS, without_identity
from molrecon.stream.log_lines import ERROR, INFO
from molrecon.stream.messages import Acquisition
from molrecon.stream.spool import Spool
from molrecon.stream.wire import ACQUISITION_HEAD, TEXT, Limits, WireError

log = logging.getLogger(__name__)


class PeerConnection(Protocol):
    """What is used of that server's Connection: iterating it gives messages, and None at the end."""

    def __iter__(self) -> Any: ...
    def send_logging(self, level: str, contents: str) -> None: ...
    def send_image(self, images: Any) -> None: ...
    def send_close(self) -> None: ...


class _Encoded:
    """An image that is bytes already; the connection writes the number of the message itself."""

    def __init__(self, message: bytes) -> None:
        self._message = message

    def serialize_into(self, write: Callable[[bytes], object]) -> None:
        """Write the image."""
        write(self._message[2:])


def process(connection: PeerConnection, config: Any, metadata: Any, model: str = DEFAULT_MODEL) -> None:
    """Reconstruct the scan of a connection, send its images, and close it. Raises nothing: the peer is told.

    Args:
        connection: of the public server.
        config: the parameters, a dict if the client sent JSON; else the name of the config, which says nothing new.
        metadata: the header as `ismrmrd.xsd` reads it, or XML.
        model: name or file, see `molrecon.scans.methods.load_method`.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="molrecon-stream-") as folder:
            _process(connection, config, metadata, model, Path(folder))
    except (WireError, Refused) as error:
        connection.send_logging(ERROR, str(error))
    except Exception as error:
        log.debug("a scan failed", exc_info=True)
        connection.send_logging(ERROR, f"the reconstruction failed ({type(error).__name__})")
    finally:
        connection.send_close()


def _process(connection: PeerConnection, config: Any, metadata: Any, model: str, folder: Path) -> None:
    from molrecon.stream.job import Job
    from molrecon.stream.worker import failure, reconstruct_job

    request = Request(MOLRECON)
    if isinstance(config, dict):
        request = request.with_json(json.dumps(config)).checked()
    spool = Spool(folder / "scan.mrd", Limits())
    try:
        spool.header(without_identity(metadata if isinstance(metadata, str) else header_xml(metadata)))
        for message in _until_none(connection):
            if hasattr(message, "getHead") and hasattr(message, "traj"):
                spool.readout(_acquisition(message))
    finally:
        spool.close()
    connection.send_logging(INFO, f"{spool.readouts} readouts received")
    if request.config == NULL:
        return
    job = Job(spool.path, request, model, None)

    def send(message: bytes) -> None:
        if message[0] == TEXT:
            text = message[6:].decode()
            connection.send_logging(text[:8], text[9:])
        else:
            connection.send_image(_Encoded(message))

    try:
        reconstruct_job(job, send)
    except Exception as error:
        log.debug("a scan failed", exc_info=True)
        connection.send_logging(ERROR, failure(error, job))


def header_xml(metadata: Any) -> str:
    """Return the XML of a header that was read into nested dataclasses, of its elements in `ELEMENTS`."""
    root = ElementTree.Element("ismrmrdHeader", {"xmlns": "http://www.ismrm.org/ISMRMRD"})
    for name in ELEMENTS:
        _append(root, name, getattr(metadata, name, None))
    return ElementTree.tostring(root, encoding="unicode")


def _append(parent: ElementTree.Element, name: str, value: Any) -> None:
    if value is None:
        return
    if isinstance(value, (list, tuple)):
        for one in value:
            _append(parent, name, one)
        return
    element = ElementTree.SubElement(parent, name)
    if dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            if field.metadata.get("type", "Element") == "Element":
                _append(element, field.metadata.get("name", field.name), getattr(value, field.name))
    else:
        element.text = str(value.value if isinstance(value, enum.Enum) else value)


def _until_none(connection: PeerConnection) -> Iterable[Any]:
    for message in connection:
        if message is None:
            return
        yield message


def _acquisition(message: Any) -> Acquisition:
    head = np.frombuffer(bytes(message.getHead()), ACQUISITION_HEAD).reshape(())
    samples = np.ascontiguousarray(message.data, np.complex64).view(np.float32)
    return Acquisition(head, np.asarray(message.traj, np.float32).ravel(), samples.ravel())

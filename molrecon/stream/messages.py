"""The messages of an MRD stream as Python objects, and back to bytes.

What this room has no use for, waveforms and images that are sent to the server, is read past and counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final
from xml.etree import ElementTree

import numpy as np

from molrecon.io.xml_text import parse_xml
from molrecon.stream import wire
from molrecon.stream.wire import Limits, Read, WireError, read_all, skip

CONFIG_NAME_BYTES = 1024


@final
@dataclass(frozen=True)
class Config:
    """What to do with the scan: the name of a configuration, or the text of one."""

    text: str


@final
@dataclass(frozen=True)
class XmlHeader:
    """The XML header of the measurement, as it came."""

    xml: str


@final
@dataclass(frozen=True)
class Text:
    """A text: parameters in JSON for the server, lines for its log from the server."""

    text: str


@final
@dataclass(frozen=True)
class Close:
    """Nothing follows from this side."""


@final
@dataclass(frozen=True, eq=False)
class Acquisition:
    """A readout.

    Attributes:
        head: () of dtype ACQUISITION_HEAD.
        trajectory: (samples * trajectory_dimensions,) float32.
        samples: (2 * channels * samples,) float32, real and imaginary parts in turn, a channel after the other.
    """

    head: np.ndarray
    trajectory: np.ndarray
    samples: np.ndarray


@final
@dataclass(frozen=True, eq=False)
class Image:
    """An image.

    Attributes:
        head: () of dtype IMAGE_HEAD.
        meta: the attributes, each with one value or several.
        pixels: (channels, z, y, x), x is the readout.
    """

    head: np.ndarray
    meta: Mapping[str, Sequence[str]]
    pixels: np.ndarray


@final
@dataclass(frozen=True)
class Skipped:
    """A message that was read past: its kind in plain words, in the plural."""

    kind: str


Message = Config | XmlHeader | Text | Close | Acquisition | Image | Skipped


def read_message(read: Read, limits: Limits, *, images: bool = False) -> Message | None:
    """Return the next message, None at the end of a stream that ends between two messages.

    Args:
        read: `read(n)`, see `molrecon.stream.wire`.
        limits: what a message may take.
        images: return images, too, as the client needs; else they are read past.

    Raises:
        WireError: an unknown message, one beyond the limits, or text that is not UTF-8.
        HangUp: the stream ends inside a message.
    """
    first = read(2)
    if not first:
        return None
    number = int.from_bytes(first if len(first) == 2 else first + read_all(read, 1), "little")
    if number == wire.CONFIG_FILE:
        return Config(_decode(read_all(read, CONFIG_NAME_BYTES)))
    if number == wire.CONFIG_TEXT:
        return Config(_read_text(read, limits))
    if number == wire.HEADER:
        return XmlHeader(_read_text(read, limits))
    if number == wire.TEXT:
        return Text(_read_text(read, limits))
    if number == wire.CLOSE:
        return Close()
    if number == wire.ACQUISITION:
        return _read_acquisition(read, limits)
    if number == wire.IMAGE:
        return _read_image(read, limits, images)
    if number == wire.WAVEFORM:
        head = np.frombuffer(read_all(read, wire.WAVEFORM_HEAD.itemsize), wire.WAVEFORM_HEAD)[0]
        skip(read, _bounded(4 * int(head["channels"]) * int(head["number_of_samples"]), limits.message, "a waveform"))
        return Skipped("waveforms")
    raise WireError(f"message {number}, expected one of MRD version 1 (1 to 5, 1008, 1022, 1026)")


def encode_config(name: str) -> bytes:
    """Return the message that names a configuration, at most 1023 bytes of UTF-8. Raises ValueError."""
    content = name.encode()
    if len(content) >= CONFIG_NAME_BYTES or b"\0" in content:
        raise ValueError(f"encode_config: {len(content)} bytes, expected fewer than {CONFIG_NAME_BYTES} and no NUL")
    return _number(wire.CONFIG_FILE) + content.ljust(CONFIG_NAME_BYTES, b"\0")


def encode_header(xml: str) -> bytes:
    """Return the message of an XML header."""
    return _encode_text(wire.HEADER, xml)


def encode_text(text: str) -> bytes:
    """Return the message of a text."""
    return _encode_text(wire.TEXT, text)


def encode_close() -> bytes:
    """Return the message that ends a stream."""
    return _number(wire.CLOSE)


def encode_acquisition(acquisition: Acquisition) -> bytes:
    """Return the message of a readout."""
    return b"".join(
        [
            _number(wire.ACQUISITION),
            acquisition.head.tobytes(),
            acquisition.trajectory.astype("<f4", copy=False).tobytes(),
            acquisition.samples.astype("<f4", copy=False).tobytes(),
        ]
    )


def encode_image(image: Image) -> bytes:
    """Return the message of an image, whose head gets sizes, type and length of the attributes from its content."""
    channels, *sizes = image.pixels.shape
    attributes = encode_meta(image.meta)
    head = image.head.copy()
    head["matrix_size"], head["channels"] = sizes[::-1], channels
    head["data_type"] = next(number for number, dtype in wire.PIXELS.items() if dtype == image.pixels.dtype)
    head["attribute_string_len"] = len(attributes)
    length = len(attributes).to_bytes(8, "little")
    return b"".join([_number(wire.IMAGE), head.tobytes(), length, attributes, image.pixels.tobytes()])


def encode_meta(meta: Mapping[str, Sequence[str]]) -> bytes:
    """Return attributes as the XML of the format."""
    root = ElementTree.Element("ismrmrdMeta")
    for name, values in meta.items():
        element = ElementTree.SubElement(root, "meta")
        ElementTree.SubElement(element, "name").text = name
        for value in values:
            ElementTree.SubElement(element, "value").text = value
    return ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)


def _read_text(read: Read, limits: Limits) -> str:
    length = int.from_bytes(read_all(read, 4), "little")
    return _decode(read_all(read, _bounded(length, limits.text, "a text")))


def _read_acquisition(read: Read, limits: Limits) -> Acquisition:
    head = np.frombuffer(read_all(read, wire.ACQUISITION_HEAD.itemsize), wire.ACQUISITION_HEAD).reshape(())
    samples, channels = int(head["number_of_samples"]), int(head["active_channels"])
    trajectory = 4 * int(head["trajectory_dimensions"]) * samples
    _bounded(trajectory + 8 * channels * samples, limits.message, "a readout")
    return Acquisition(
        head,
        np.frombuffer(read_all(read, trajectory), "<f4"),
        np.frombuffer(read_all(read, 8 * channels * samples), "<f4"),
    )


def _read_image(read: Read, limits: Limits, images: bool) -> Image | Skipped:
    head = np.frombuffer(read_all(read, wire.IMAGE_HEAD.itemsize), wire.IMAGE_HEAD).reshape(())
    number = int(head["data_type"])
    if number not in wire.PIXELS:
        raise WireError(f"an image of data type {number}, expected {min(wire.PIXELS)} to {max(wire.PIXELS)}")
    length = _bounded(int.from_bytes(read_all(read, 8), "little"), limits.text, "the attributes of an image")
    shape = (int(head["channels"]), *(int(size) for size in head["matrix_size"][::-1]))
    dtype = wire.PIXELS[number]
    size = dtype.itemsize * shape[0] * shape[1] * shape[2] * shape[3]
    _bounded(size, limits.message, "an image")
    if not images:
        skip(read, length + size)
        return Skipped("images")
    meta = _decode_meta(_decode(read_all(read, length)))
    return Image(head, meta, np.frombuffer(read_all(read, size), dtype).reshape(shape))


def _decode_meta(xml: str) -> dict[str, list[str]]:
    if not xml.strip():
        return {}
    try:
        root = parse_xml(xml)
    except ValueError as error:
        raise WireError(f"attributes of an image that are {error}") from error
    return {
        element.findtext("name", ""): [value.text or "" for value in element.findall("value")]
        for element in root.findall("meta")
    }


def _bounded(size: int, limit: int, message: str) -> int:
    if size > limit:
        raise WireError(f"{message} of {size} bytes, expected at most {limit}")
    return size


def _decode(content: bytes) -> str:
    """Return a text up to its first NUL: some peers close texts with one."""
    try:
        return content.split(b"\0", 1)[0].decode()
    except UnicodeDecodeError as error:
        raise WireError("a text that is not UTF-8") from error


def _encode_text(number: int, text: str) -> bytes:
    content = text.encode()
    return _number(number) + len(content).to_bytes(4, "little") + content


def _number(number: int) -> bytes:
    return number.to_bytes(2, "little")

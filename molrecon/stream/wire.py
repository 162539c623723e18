"""The bytes of an MRD stream: message numbers, the fixed heads as NumPy dtypes, and reads that are bounded.

Source: ismrmrd, doc/mrd_messages.md and doc/mrd_raw_data.md (MRD version 1, little endian). The heads on the wire and
those in HDF5 files have the same fields at the same offsets.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO, final

import numpy as np

CONFIG_FILE, CONFIG_TEXT, HEADER, CLOSE, TEXT = 1, 2, 3, 4, 5
ACQUISITION, IMAGE, WAVEFORM = 1008, 1022, 1026

COUNTERS = np.dtype(
    [
        *((name, "<u2") for name in ("kspace_encode_step_1", "kspace_encode_step_2", "average", "slice", "contrast")),
        *((name, "<u2") for name in ("phase", "repetition", "set", "segment")),
        ("user", "<u2", (8,)),
    ]
)
VECTORS = ("position", "read_dir", "phase_dir", "slice_dir", "patient_table_position")
ACQUISITION_HEAD = np.dtype(
    [
        ("version", "<u2"),
        ("flags", "<u8"),
        ("measurement_uid", "<u4"),
        ("scan_counter", "<u4"),
        ("acquisition_time_stamp", "<u4"),
        ("physiology_time_stamp", "<u4", (3,)),
        ("number_of_samples", "<u2"),
        ("available_channels", "<u2"),
        ("active_channels", "<u2"),
        ("channel_mask", "<u8", (16,)),
        *((name, "<u2") for name in ("discard_pre", "discard_post", "center_sample", "encoding_space_ref")),
        ("trajectory_dimensions", "<u2"),
        ("sample_time_us", "<f4"),
        *((name, "<f4", (3,)) for name in VECTORS),
        ("idx", COUNTERS),
        ("user_int", "<i4", (8,)),
        ("user_float", "<f4", (8,)),
    ]
)  # 340 bytes
IMAGE_HEAD = np.dtype(
    [
        ("version", "<u2"),
        ("data_type", "<u2"),
        ("flags", "<u8"),
        ("measurement_uid", "<u4"),
        ("matrix_size", "<u2", (3,)),
        ("field_of_view", "<f4", (3,)),
        ("channels", "<u2"),
        *((name, "<f4", (3,)) for name in VECTORS),
        *((name, "<u2") for name in ("average", "slice", "contrast", "phase", "repetition", "set")),
        ("acquisition_time_stamp", "<u4"),
        ("physiology_time_stamp", "<u4", (3,)),
        *((name, "<u2") for name in ("image_type", "image_index", "image_series_index")),
        ("user_int", "<i4", (8,)),
        ("user_float", "<f4", (8,)),
        ("attribute_string_len", "<u4"),
    ]
)  # 198 bytes
WAVEFORM_HEAD = np.dtype(
    [
        ("version", "<u2"),
        ("flags", "<u8"),
        ("measurement_uid", "<u4"),
        ("scan_counter", "<u4"),
        ("time_stamp", "<u4"),
        ("number_of_samples", "<u2"),
        ("channels", "<u2"),
        ("sample_time_us", "<f4"),
        ("waveform_id", "<u2"),
    ],
    align=True,
)  # 40 bytes, with the padding that C gives this struct
# The element types of images, by the number in their head.
PIXELS: dict[int, np.dtype[Any]] = {
    1: np.dtype("<u2"),
    2: np.dtype("<i2"),
    3: np.dtype("<u4"),
    4: np.dtype("<i4"),
    5: np.dtype("<f4"),
    6: np.dtype("<f8"),
    7: np.dtype("<c8"),
    8: np.dtype("<c16"),
}
MAGNITUDE = 1  # the image_type of a magnitude image
BLOCK = 1 << 20  # bytes read at a time: memory is allocated as data arrive, not as a head claims

Read = Callable[[int], bytes]


class WireError(ValueError):
    """Bytes that are no MRD stream, or one that asks for more than the limits allow; the stream is lost from there."""


class HangUp(Exception):
    """The other side has ended the connection, or says nothing any more."""


@final
@dataclass(frozen=True)
class Limits:
    """What a peer may send, in bytes: a text or header, any other message, and a whole scan."""

    text: int = 4 << 20
    message: int = 256 << 20
    scan: int = 64 << 30


def socket_reader(peer: socket.socket) -> Read:
    """Return `read(n)`, which waits for exactly n bytes of the socket.

    What it returns is shorter than n at the end of the stream, as that of a file is. It raises HangUp when the
    connection breaks, or when nothing comes within the socket's timeout.
    """

    def read(count: int) -> bytes:
        content = bytearray()
        while len(content) < count:
            try:
                block = peer.recv(min(count - len(content), BLOCK))
            except OSError as error:
                raise HangUp(f"{type(error).__name__} while reading") from error
            if not block:
                break
            content += block
        return bytes(content)

    return read


def file_reader(file: BinaryIO) -> Read:
    """Return `read(n)` of a file that holds a stream."""
    return file.read


def read_all(read: Read, count: int) -> bytes:
    """Return exactly `count` bytes. Raises HangUp at the end of the stream."""
    content = read(count)
    if len(content) < count:
        raise HangUp(f"the stream ends after {len(content)} of {count} bytes of a message")
    return content


def skip(read: Read, count: int) -> None:
    """Read `count` bytes and forget them. Raises HangUp at the end of the stream."""
    while count > 0:
        count -= len(read_all(read, min(count, BLOCK)))

"""A guard against HDF5 files whose variable-length text or readouts send the HDF5 library into an endless loop."""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

from molrecon.io.volume import UnreadableInput, reading

__all__ = ["check_heaps"]

# Signature, version 1 and three reserved bytes; eight bytes do not turn up in measured data by chance.
COLLECTION = b"GCOL\x01\0\0\0"
ENTRY = 16


def check_heaps(path: Path) -> None:
    """Walk through the global heap collections of an HDF5 file as the library will; UnreadableInput where it gets stuck.

    A collection (HDF5 file format specification 3.0, III.E) is a list of entries: index (2 bytes), reference count (2),
    reserved (4), size (8), data padded to 8 bytes; the size of index 0, free space, includes the entry's own 16. The
    library (seen in HDF5 2.0.0) follows a damaged free entry of size 0 for ever, and cannot be interrupted.
    """
    with (
        reading(path, "a readable HDF5 file"),
        path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
    ):
        start = content.find(COLLECTION)
        while start >= 0:
            _walk(path, content, start)
            start = content.find(COLLECTION, start + len(COLLECTION))


def _walk(path: Path, content: mmap.mmap, start: int) -> None:
    (size,) = struct.unpack_from("<Q", content, start + len(COLLECTION))
    position, end = start + len(COLLECTION) + 8, start + size
    if end > len(content):
        raise UnreadableInput(path, f"a heap of {size} bytes at byte {start} of {len(content)}", "a complete file")
    while position + ENTRY <= end:
        index, _, _, length = struct.unpack_from("<HHIQ", content, position)
        step = length if index == 0 else ENTRY + -(-length // 8) * 8
        if step < ENTRY or position + step > end:
            raise UnreadableInput(path, f"a heap entry of {length} bytes at byte {position}", "one that fits its heap")
        position += step

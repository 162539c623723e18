"""Guards for reading damaged HDF5 files, ways to read records and to write whole files.

On some damaged files the HDF5 library (2.0.0) does not fail but crashes, loops for ever or asks for gigabytes, and with
it a whole run over many volumes. It also crashes when it closes a file that it writes to a full disk, and when it reads
records with arrays from a file that is open twice.
"""

from __future__ import annotations

import io
import mmap
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np

from molrecon.io.atomic import write_atomically
from molrecon.io.volume import UnreadableInput, reading

__all__ = ["check_heaps", "check_size", "hdf5_file", "own_file", "read_text"]

# Signature, version 1 and three reserved bytes; eight bytes do not turn up in measured data by chance.
COLLECTION = b"GCOL\x01\0\0\0"
ENTRY = 16
# Deflate, the strongest of the usual filters, shrinks data at most this much.
LARGEST_COMPRESSION = 1032


@contextmanager
def hdf5_file(path: str | Path) -> Iterator[h5py.File]:
    """A new HDF5 file in memory, whose bytes replace `path` when the block ends without an error.

    HDF5 itself never sees the disk: a failed write leaves the library unable to close the file, and it ends in a
    segmentation fault or a truncated file. Memory holds the whole file.

    Raises:
        OSError: the file cannot be written; `path` is as it was.
    """
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        yield file
    write_atomically(path, buffer.getbuffer())


@contextmanager
def own_file(path: str | Path) -> Iterator[h5py.File]:
    """An HDF5 file, read through a file object of its own.

    The library shares what it knows of a file between all who have opened it in a process. The type of a record keeps
    the first one's handle for its arrays of variable length: once that one has closed the file, others read through a
    dangling pointer (h5py issue 2920), as happens when several threads read one scan. Behind a file object nothing is
    shared.

    Raises:
        OSError: no such file, or none of HDF5.
    """
    with open(path, "rb") as content, h5py.File(content, "r") as file:
        yield file


def check_heaps(path: Path) -> None:
    """Walk through the global heap collections of an HDF5 file; UnreadableInput where the library would never end.

    A collection (HDF5 file format specification 3.0, III.E) is a list of entries: index (2 bytes), reference count (2),
    reserved (4), size (8), data padded to 8 bytes; the size of index 0, free space, includes the entry's own 16. The
    library stays at a free entry of size 0 for ever and cannot be interrupted.
    """
    with (
        reading(path, "a readable HDF5 file"),
        path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
    ):
        start = content.find(COLLECTION)
        while start >= 0:
            for _ in _walk(path, content, start):
                pass
            start = content.find(COLLECTION, start + len(COLLECTION))


def check_size(path: Path, dataset: h5py.Dataset) -> None:
    """Raise UnreadableInput unless the file is large enough to hold as much as the dataset claims."""
    filters = dataset.id.get_create_plist().get_nfilters()
    size = path.stat().st_size
    if dataset.nbytes > size * (LARGEST_COMPRESSION if filters else 1):
        found = f"dataset {dataset.name} of shape {dataset.shape} ({dataset.nbytes} bytes) in {size} bytes"
        raise UnreadableInput(path, found, "a complete file")


def read_text(path: Path, dataset: h5py.Dataset) -> str:
    """The text of a dataset with one string; UnreadableInput for anything else.

    A string of variable length is stored as length (4 bytes), address of a heap collection (8) and index in it (4).
    It is fetched here: the library would allocate any length, up to 4 GiB, before it looks at the heap.
    """
    string = h5py.check_string_dtype(dataset.dtype) if isinstance(dataset, h5py.Dataset) else None
    if string is None or dataset.size != 1:
        raise UnreadableInput(path, f"{dataset!r}", "a dataset with one text")
    check_size(path, dataset)
    offset = dataset.id.get_offset()
    if string.length is not None or offset is None:
        text = np.asarray(dataset[()]).item()
        return text.decode("utf-8") if isinstance(text, bytes) else str(text)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        length, address, entry = struct.unpack_from("<IQI", content, offset)
        start = address + dataset.file.userblock_size
        if content[start : start + len(COLLECTION)] == COLLECTION:
            for index, position, size in _walk(path, content, start):
                if index == entry and length <= size:
                    return content[position : position + length].decode("utf-8")
    raise UnreadableInput(path, f"no heap entry {entry} of {length} bytes for {dataset.name}", "a text")


def _walk(path: Path, content: mmap.mmap, start: int) -> Iterator[tuple[int, int, int]]:
    """Index, position and size of every entry in the collection at byte `start`."""
    (size,) = struct.unpack_from("<Q", content, start + len(COLLECTION))
    position, end = start + len(COLLECTION) + 8, start + size
    if end > len(content):
        raise UnreadableInput(path, f"a heap of {size} bytes at byte {start} of {len(content)}", "a complete file")
    while position + ENTRY <= end:
        index, _, _, length = struct.unpack_from("<HHIQ", content, position)
        step = length if index == 0 else ENTRY + -(-length // 8) * 8
        if step < ENTRY or position + step > end:
            raise UnreadableInput(path, f"a heap entry of {length} bytes at byte {position}", "one that fits its heap")
        if index:
            yield index, position + ENTRY, length
        position += step

"""Arrays larger than the memory they may take: while a reader or a preparation works slice by slice, on disk.

with arrays_on_disk(folder):            # from here on `empty_array` returns arrays in files of the folder
    kspace = empty_array((36, 15, 640, 368), np.complex64)
    for plane in planes(kspace):        # one at a time is in memory
        ...
"""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import final

import numpy as np
from numpy.typing import DTypeLike

SMALLEST = 2**20  # bytes: smaller arrays stay in memory in any case


@final
class _Files:
    """The files of one scan: they have no names, so that they are gone with the process whatever becomes of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.maps: list[mmap.mmap] = []

    def array(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        size = int(np.prod(shape)) * dtype.itemsize
        with tempfile.TemporaryFile(dir=self.folder) as file:
            os.posix_fallocate(file.fileno(), 0, size)  # a full disk is said now, and does not kill the process later
            mapped = mmap.mmap(file.fileno(), size)
        self.maps.append(mapped)
        return np.frombuffer(mapped, dtype).reshape(shape)

    def release(self) -> None:
        for mapped in self.maps:
            mapped.madvise(mmap.MADV_DONTNEED)  # of a shared mapping the content stays, in the file


_FILES: ContextVar[_Files | None] = ContextVar("large arrays", default=None)


@contextmanager
def arrays_on_disk(folder: str | Path) -> Iterator[None]:
    """Let `empty_array` return arrays in files of a folder, here and in what is called from here.

    The arrays can be used after the block for as long as they are referred to; then their space is freed.

    Args:
        folder: on a disk, not in memory (as /tmp may be).

    Raises:
        OSError: the disk is full.
    """
    token = _FILES.set(_Files(Path(folder)))
    try:
        yield
    finally:
        _FILES.reset(token)


def on_disk() -> bool:
    """Tell whether `empty_array` returns arrays on disk."""
    return _FILES.get() is not None


def empty_array(shape: Sequence[int], dtype: DTypeLike) -> np.ndarray:
    """Return an array to be filled: zeros at first on disk, anything in memory. Raises OSError: the disk is full."""
    files, kind = _FILES.get(), np.dtype(dtype)
    shape = tuple(shape)
    if files is None or int(np.prod(shape)) * kind.itemsize < SMALLEST:
        return np.zeros(shape, kind)
    return files.array(shape, kind)


def release() -> None:
    """Take the arrays on disk out of the memory of this process; their content stays."""
    files = _FILES.get()
    if files is not None:
        files.release()


def planes(array: np.ndarray) -> Iterator[np.ndarray]:
    """Yield `array[0]`, `array[1]`, ..., each of which may be written to, and keep one at a time in memory."""
    for plane in array:
        yield plane
        release()

"""Writing files so that a reader sees either nothing, the old file or the whole new one, never a part."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["atomic_path", "write_atomically"]


@contextmanager
def atomic_path(path: str | Path, *, durable: bool = True) -> Iterator[Path]:
    """A temporary path in the folder of `path`: write there; it replaces `path` when the block ends without an error.

    The temporary name is hidden and keeps the suffixes of `path`, since some libraries choose the format by them. When
    the block raises, the temporary file is removed and `path` stays as it was. The folder must exist.

    Args:
        path: the file.
        durable: wait until the disk has it, 3 to 6 ms. False: after a power failure (not after the end of a process,
            however sudden) the file may be empty, for readers that take an empty file for none.
    """
    path = Path(path)
    temporary = path.with_name(f".{uuid.uuid4().hex}.{path.name}")
    try:
        yield temporary
        if durable:  # else a power failure after the rename could leave an empty file under the final name
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomically(path: str | Path, content: bytes | memoryview, *, durable: bool = True) -> None:
    """Replace `path` by a file of these bytes, as `atomic_path` does, and check that all of them arrived.

    For libraries that do not report a full disk, or crash on it: let them write to memory, and this write the bytes.

    Raises:
        OSError: the file cannot be written; `path` is as it was.
    """
    with atomic_path(path, durable=durable) as temporary:
        temporary.write_bytes(content)
        if (size := temporary.stat().st_size) != memoryview(content).nbytes:
            raise OSError(f"{path}: {size} bytes were written, expected {memoryview(content).nbytes}")

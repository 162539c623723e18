"""What a file of scan data holds, and what reading it takes, without reading it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import final

import h5py
import numpy as np

from molrecon.io.arrays import bart_pair
from molrecon.io.hdf5 import own_file, read_text
from molrecon.io.header import parse_header
from molrecon.io.mrd import is_mrd
from molrecon.io.volume import UnreadableInput, reading

SINGLE, DOUBLE = 8, 16  # bytes of a complex number


@final
@dataclass(frozen=True)
class FileSize:
    """How large the k-space of a file is once it is read.

    Attributes:
        kspace: bytes, of all frames, complex64.
        plane: bytes of one slice of one frame.
        transient: bytes that are held besides while it is read.
        by_slice: it can be read slice by slice, to lie on disk.
    """

    kspace: int
    plane: int
    transient: int
    by_slice: bool


def file_size(path: Path) -> FileSize | None:
    """Return the sizes of a fastMRI, ISMRMRD, .npy or BART file; None for other kinds, which only their reader knows.

    Raises:
        UnreadableInput: a file that cannot be used.
    """
    if path.suffix in (".cfl", ".hdr"):
        size = bart_pair(path)[0].stat().st_size if bart_pair(path)[0].is_file() else 0
        return FileSize(size, size, size, False)
    if not path.is_file():
        return None
    with reading(path, "a scan"):
        if h5py.is_hdf5(path):
            return _mrd(path) if is_mrd(path) else _fastmri(path)
        with path.open("rb") as file:
            npy = file.read(6) == b"\x93NUMPY"
        return _planes(np.load(path, mmap_mode="r", allow_pickle=False).shape) if npy else None


def _planes(shape: tuple[int, ...]) -> FileSize:
    """Return the sizes of (slice, coil, rows, cols), or of one slice."""
    slices = shape[0] if len(shape) > 3 else 1
    plane = SINGLE * int(np.prod(shape, dtype=float) / max(1, slices))
    return FileSize(plane * slices, plane, 3 * plane, len(shape) > 3)


def _fastmri(path: Path) -> FileSize | None:
    with h5py.File(path, "r") as file:
        if not isinstance(file.get("kspace"), h5py.Dataset):
            return None
        shape = file["kspace"].shape
    return _planes(shape if len(shape) == 4 else (*shape[:1], 1, *shape[1:]))


def _mrd(path: Path) -> FileSize:
    with own_file(path) as file:
        group = next(file[name] for name in file if isinstance(file[name], h5py.Group) and "data" in file[name])
        heads, xml = group["data"]["head"], read_text(path, group["xml"])
    header, stored = parse_header(path, xml), path.stat().st_size
    rows, cols, depth = header.encoded_matrix
    coils = int(heads["active_channels"].max(initial=1))
    idx = heads["idx"]
    counters = np.stack([idx[name] for name in ("contrast", "set", "phase", "repetition", "slice")], 1)
    keys = np.unique(counters, axis=0)
    if depth > 1:  # each slab is a frame; its readouts are transformed and cut as they are placed
        plane = SINGLE * coils * cols * depth
        return FileSize(len(keys) * min(header.recon_matrix[0], rows) * plane, plane, stored, False)
    plane, slices = SINGLE * coils * rows * cols, int(idx["slice"].max(initial=0)) + 1
    frames = len(np.unique(keys[:, :-1], axis=0))
    # Sorted in double precision, and once more in the order of space.
    return FileSize(frames * slices * plane, plane, stored + 2 * slices * plane * DOUBLE // SINGLE, False)


__all__ = ["FileSize", "UnreadableInput", "file_size"]

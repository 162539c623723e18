"""The records of an MRD file: one head and one array of samples for every readout, guarded against damaged files."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import final

import h5py
import numpy as np

from molrecon.io.hdf5 import check_heaps, check_size, own_file, read_text
from molrecon.io.volume import UnreadableInput, reading

EXPECTED = "raw ISMRMRD data of a Cartesian, radial or spiral scan"


@final
@dataclass(frozen=True, eq=False)
class Records:
    """What one data set of a file holds.

    Attributes:
        path: the file.
        heads: (readouts,) structured, the acquisition headers of the format.
        samples: (readouts,) of float32 arrays (2 coils samples,), real and imaginary parts in turn.
        trajectory: (readouts,) of float32 arrays (samples trajectory_dimensions,), empty where there is none.
        xml: the header.
        other_data_sets: how many more the file has.
    """

    path: Path
    heads: np.ndarray
    samples: np.ndarray
    trajectory: np.ndarray
    xml: str
    other_data_sets: int


def is_mrd(path: Path) -> bool:
    """Whether the HDF5 file has a group with the datasets `xml` and `data`, and no `kspace`. Raises UnreadableInput."""
    with reading(path, "an HDF5 file"), own_file(path) as file:
        return "kspace" not in file and bool(_groups(file))


def read_records(path: Path) -> Records:
    """Read the first data set of an MRD file. Raises UnreadableInput."""
    check_heaps(path)
    with reading(path, EXPECTED), own_file(path) as file:
        names = _groups(file)
        if not names:
            raise UnreadableInput(path, f"no group with xml and data among {sorted(file)}", EXPECTED)
        group = file[names[0]]
        records = _records(path, group["data"])
        heads, samples, xml = records["head"], records["data"], read_text(path, group["xml"])
        trajectory = records["traj"] if "traj" in (records.dtype.names or ()) else np.empty(len(records), object)
        return Records(path, heads, samples, trajectory, xml, len(names) - 1)


def readout(records: Records, k: int, coils: int) -> np.ndarray:
    """Return the samples (coils, samples) complex64 of readout k, those to discard among them.

    Raises:
        UnreadableInput: another amount of numbers than the head says.
    """
    head, values = records.heads[k], records.samples[k]
    length = int(head["number_of_samples"])
    if values.size != 2 * coils * length:
        found = f"a readout of {values.size} numbers, {length} samples centred at {head['center_sample']}"
        raise UnreadableInput(records.path, found, f"2 x {coils} coils x samples")
    return np.ascontiguousarray(values, np.float32).view(np.complex64).reshape(coils, length)


def _groups(file: h5py.File) -> list[str]:
    return [name for name in file if isinstance(file[name], h5py.Group) and {"xml", "data"} <= set(file[name])]


def _records(path: Path, dataset: h5py.Dataset) -> np.ndarray:
    # A damaged compound type, with members that overlap, makes the HDF5 library write past its buffer.
    if not isinstance(dataset, h5py.Dataset) or not sound(dataset.dtype):
        raise UnreadableInput(path, f"{dataset!r}", EXPECTED)
    check_size(path, dataset)
    _check_lengths(path, dataset)
    return np.asarray(dataset[()])


def _check_lengths(path: Path, dataset: h5py.Dataset) -> None:
    """Raise UnreadableInput where the arrays of the records claim more bytes than the file has.

    A record holds the length of each array (4 bytes), the address of a heap collection and an index in it; heaps are
    never compressed. The library would allocate any length before it looks at the heap.
    """
    kind, size = dataset.id.get_type(), path.stat().st_size
    fields = [k for k in range(kind.get_nmembers()) if isinstance(kind.get_member_type(k), h5py.h5t.TypeVlenID)]
    total = 0
    for raw in _stored(path, dataset):
        records = np.frombuffer(raw[: len(raw) // kind.get_size() * kind.get_size()], np.uint8)
        records = records.reshape(-1, kind.get_size())
        for k in fields:
            start, element = kind.get_member_offset(k), kind.get_member_type(k).get_super().get_size()
            lengths = np.ascontiguousarray(records[:, start : start + 4]).view("<u4")
            total += int(lengths.sum(dtype=np.int64)) * element
    if total > size:
        raise UnreadableInput(path, f"records with arrays of {total} bytes in a file of {size} bytes", EXPECTED)


def _stored(path: Path, dataset: h5py.Dataset) -> Iterator[bytes]:
    """Yield the bytes of the records as they lie in the file: one piece, or chunk by chunk, deflated or not."""
    kind = dataset.id.get_type().get_size()
    if dataset.chunks is None:
        pieces, codes, whole = [(dataset.id.get_offset(), dataset.size * kind)], [], dataset.size * kind
    else:
        filters = dataset.id.get_create_plist()
        codes = [filters.get_filter(k)[0] for k in range(filters.get_nfilters())]
        chunks = [dataset.id.get_chunk_info(k) for k in range(dataset.id.get_num_chunks())]
        pieces, whole = [(chunk.byte_offset, chunk.size) for chunk in chunks], dataset.chunks[0] * kind
    if codes not in ([], [h5py.h5z.FILTER_DEFLATE]):
        raise UnreadableInput(path, f"records with the HDF5 filters {codes}", "none, or deflate")
    with path.open("rb") as file:
        for offset, size in pieces:
            if offset is not None:  # nothing was stored of it
                file.seek(offset)
                raw = file.read(size)
                yield zlib.decompressobj().decompress(raw, whole) if codes else raw


def sound(dtype: np.dtype) -> bool:
    """Whether the fields of the type, and of the types of its fields, lie one after the other inside it."""
    end = 0
    for field, offset in sorted((entry[:2] for entry in (dtype.fields or {}).values()), key=lambda entry: entry[1]):
        if offset < end or not sound(field):
            return False
        end = offset + field.itemsize
    return end <= dtype.itemsize

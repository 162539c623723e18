"""The records of an MRD file: one head and one array of samples for every readout, guarded against damaged files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import final

import h5py
import numpy as np

from molrecon.io.hdf5 import check_heaps, check_size, read_text
from molrecon.io.volume import UnreadableInput, reading

EXPECTED = "raw ISMRMRD data of a Cartesian scan"


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
    with reading(path, "an HDF5 file"), h5py.File(path, "r") as file:
        return "kspace" not in file and bool(_groups(file))


def read_records(path: Path) -> Records:
    """Read the first data set of an MRD file. Raises UnreadableInput."""
    check_heaps(path)
    with reading(path, EXPECTED), h5py.File(path, "r") as file:
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
    return np.asarray(dataset[()])


def sound(dtype: np.dtype) -> bool:
    """Whether the fields of the type, and of the types of its fields, lie one after the other inside it."""
    end = 0
    for field, offset in sorted((part[:2] for part in (dtype.fields or {}).values()), key=lambda part: part[1]):
        if offset < end or not sound(field):
            return False
        end = offset + field.itemsize
    return end <= dtype.itemsize

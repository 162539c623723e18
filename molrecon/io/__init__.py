"""Reading scans and writing images.

read_volume     any supported input -> RawVolume, by what the file is
expand_inputs   files and folders -> the volumes they stand for
input_sha256    the hash of an input, without reading it as a volume
read_fastmri    fastMRI HDF5                     read_npy    NumPy array
read_bart       BART .cfl/.hdr k-space           read_mrd    ISMRMRD raw data, Cartesian 2D
read_cfl, write_cfl      BART arrays             write_nifti, write_submission      images
atomic_path, write_atomically    how every writer here writes
center_crop     image -> recon matrix
UnreadableInput what every reader raises
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import h5py

from molrecon.io.arrays import bart_pair, read_bart, read_cfl, read_npy, write_cfl
from molrecon.io.atomic import atomic_path, write_atomically
from molrecon.io.crop import center_crop
from molrecon.io.fastmri import read_fastmri
from molrecon.io.mrd import is_mrd, read_mrd
from molrecon.io.nifti import write_nifti
from molrecon.io.submission import write_submission
from molrecon.io.volume import RawVolume, UnreadableInput, file_sha256, reading

__all__ = [
    "RawVolume",
    "UnreadableInput",
    "atomic_path",
    "center_crop",
    "expand_inputs",
    "input_sha256",
    "read_bart",
    "read_cfl",
    "read_fastmri",
    "read_mrd",
    "read_npy",
    "read_volume",
    "write_atomically",
    "write_cfl",
    "write_nifti",
    "write_submission",
]

SUFFIXES = (".h5", ".hdf5", ".mrd", ".npy", ".cfl")
FORMATS = "fastMRI or ISMRMRD HDF5, .npy, or a BART .cfl/.hdr pair"


def read_volume(path: str | Path) -> RawVolume:
    """Read one scan. The first bytes decide between HDF5 and .npy, not the suffix; HDF5 with the datasets of raw
    ISMRMRD data is read as such, any other as fastMRI. BART files have no signature and go by name: .cfl, .hdr, or
    a name without suffix beside which `name.hdr` lies.

    Raises UnreadableInput: the message names the file, what was found and what was expected.
    """
    path = Path(path)
    if _is_bart(path):
        return read_bart(path)
    if not path.is_file():
        raise UnreadableInput(path, "a folder" if path.is_dir() else "no such file", FORMATS)
    with reading(path, FORMATS), path.open("rb") as file:
        start = file.read(8)
    if start.startswith(b"\x93NUMPY"):
        return read_npy(path)
    with reading(path, FORMATS):
        hdf5 = h5py.is_hdf5(path)
    if not hdf5:
        found = "an empty file" if not start else f"a file that starts with {start!r}"
        raise UnreadableInput(path, found, FORMATS)
    return read_mrd(path) if is_mrd(path) else read_fastmri(path)


def input_sha256(path: str | Path) -> str:
    """The `sha256` of the volume that `read_volume` would return, from the bytes alone. Raises UnreadableInput."""
    path = Path(path)
    data, header = bart_pair(path)
    return file_sha256(header, data) if _is_bart(path) else file_sha256(path)


def _is_bart(path: Path) -> bool:
    return path.suffix in (".cfl", ".hdr") or (not path.exists() and bart_pair(path)[1].exists())


def expand_inputs(paths: Iterable[str | Path]) -> list[Path]:
    """The volumes that `paths` stand for, in order and without repetition; a BART pair counts once, as its .cfl.

    A folder gives the files directly inside it (not in its sub-folders, not hidden) ending in .h5, .hdf5, .mrd, .npy
    or .cfl, sorted by name. A path that is no folder is kept, whether it exists or not: `read_volume` says what is
    wrong with it, and the other volumes go on. Raises UnreadableInput for a folder without any volume.
    """
    volumes: dict[Path, None] = {}
    for path in map(Path, paths):
        inside = [path]
        if path.is_dir():
            inside = sorted(
                item for item in path.iterdir() if item.suffix in SUFFIXES and not item.name.startswith(".")
            )
            if not inside:
                raise UnreadableInput(
                    path, "a folder without volumes (sub-folders are not searched)", " ".join(SUFFIXES)
                )
        volumes |= {bart_pair(item)[0] if item.suffix == ".hdr" else item: None for item in inside}
    return list(volumes)

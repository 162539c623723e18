"""Reading scans and writing images.

read_volume     any supported input -> RawVolume, by what the file is
read_frames     any supported input -> all its volumes, each a Frame
READERS         what is supported; a Reader of your own joins by READERS.insert(0, Reader(...))
expand_inputs   files and folders -> the volumes they stand for
input_sha256    the hash of an input, without reading it as a volume
read_fastmri    fastMRI HDF5                     read_npy    NumPy array
read_bart       BART .cfl/.hdr k-space           read_mrd    ISMRMRD raw data
read_cfl, write_cfl      BART arrays             write_nifti, write_submission      images
atomic_path, write_atomically    how every writer here writes
center_crop     image -> recon matrix
read_placed_image, borrow_geometry    a place in the patient, from an image of the same exam
UnreadableInput what every reader raises
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import final

import h5py

from molrecon.io.arrays import bart_pair, read_bart, read_cfl, read_npy, write_cfl
from molrecon.io.atomic import atomic_path, write_atomically
from molrecon.io.crop import center_crop
from molrecon.io.fastmri import read_fastmri
from molrecon.io.frame import Frame
from molrecon.io.geometry import Geometry
from molrecon.io.mrd import is_mrd, read_mrd, read_mrd_frames
from molrecon.io.nifti import write_nifti
from molrecon.io.placed import PlacedImage, borrow_geometry, read_placed_image
from molrecon.io.submission import write_submission
from molrecon.io.volume import RawVolume, UnreadableInput, file_sha256, reading

log = logging.getLogger(__name__)

__all__ = [
    "READERS",
    "Frame",
    "Geometry",
    "PlacedImage",
    "RawVolume",
    "Reader",
    "UnreadableInput",
    "atomic_path",
    "borrow_geometry",
    "center_crop",
    "expand_inputs",
    "input_sha256",
    "read_bart",
    "read_cfl",
    "read_fastmri",
    "read_frames",
    "read_mrd",
    "read_mrd_frames",
    "read_npy",
    "read_placed_image",
    "read_volume",
    "write_atomically",
    "write_cfl",
    "write_nifti",
    "write_submission",
]

FORMATS = "fastMRI or ISMRMRD HDF5, .npy, or a BART .cfl/.hdr pair"


@final
@dataclass(frozen=True)
class Reader:
    """How one kind of file is recognised and read.

    Attributes:
        suffixes: of such files, by which a folder is searched.
        recognises: whether a path is of this kind; asked in the order of READERS, the first to say yes reads it.
        read: path -> RawVolume, the first image volume.
        read_all: path -> [Frame], every image volume; None where files hold a single one.
        conjugates: whether `read` and `read_all` take a keyword `conjugate`, True, False or None, as `read_mrd` does.
    """

    suffixes: tuple[str, ...]
    recognises: Callable[[Path], bool]
    read: Callable[..., RawVolume]
    read_all: Callable[..., list[Frame]] | None = None
    conjugates: bool = False


def _is_bart(path: Path) -> bool:
    return path.suffix in (".cfl", ".hdr") or (not path.exists() and bart_pair(path)[1].exists())


def _is_npy(path: Path) -> bool:
    with reading(path, FORMATS), path.open("rb") as file:
        return file.read(6) == b"\x93NUMPY"


def _is_hdf5(path: Path) -> bool:
    with reading(path, FORMATS):
        return bool(h5py.is_hdf5(path))


READERS = [
    Reader((".cfl",), _is_bart, read_bart),
    Reader((".npy",), _is_npy, read_npy),
    Reader((".h5", ".hdf5", ".mrd"), lambda path: _is_hdf5(path) and is_mrd(path), read_mrd, read_mrd_frames, True),
    Reader((".h5", ".hdf5"), _is_hdf5, read_fastmri),
]


def read_volume(path: str | Path, *, conjugate: bool | None = None) -> RawVolume:
    """Read the first image volume of a scan. The first bytes decide between HDF5 and .npy, not the suffix; HDF5 with
    the datasets of raw ISMRMRD data is read as such, any other as fastMRI. BART files have no signature and go by name:
    .cfl, .hdr, or a name without suffix beside which `name.hdr` lies.

    `conjugate` is that of `read_mrd`; files of other kinds are never conjugated, and refused where it is True.

    Raises UnreadableInput: the message names the file, what was found and what was expected.
    """
    path = Path(path)
    reader = _reader(path)
    return reader.read(path, **_conjugation(reader, path, conjugate))


def read_frames(path: str | Path, *, conjugate: bool | None = None) -> list[Frame]:
    """Read every image volume of a scan, in the order of contrasts, sets, phases and repetitions.

    Raises UnreadableInput, as `read_volume`.
    """
    path = Path(path)
    reader = _reader(path)
    keywords = _conjugation(reader, path, conjugate)
    if reader.read_all is None:
        return [Frame(reader.read(path, **keywords))]
    return reader.read_all(path, **keywords)


def _conjugation(reader: Reader, path: Path, conjugate: bool | None) -> dict[str, bool | None]:
    if conjugate and not reader.conjugates:
        raise UnreadableInput(path, "a file of another kind", "ISMRMRD (MRD) data where they are to be conjugated")
    return {"conjugate": conjugate} if reader.conjugates else {}


def _reader(path: Path) -> Reader:
    for reader in READERS:
        # A path that is no file is nothing that a reader could open; a BART pair may go by a name without suffix.
        if (path.is_file() or reader.recognises is _is_bart) and reader.recognises(path):
            return reader
    if not path.is_file():
        raise UnreadableInput(path, "a folder" if path.is_dir() else "no such file", FORMATS)
    with reading(path, FORMATS), path.open("rb") as file:
        start = file.read(8)
    raise UnreadableInput(path, f"a file that starts with {start!r}" if start else "an empty file", FORMATS)


def input_sha256(path: str | Path) -> str:
    """The `sha256` of the volume that `read_volume` would return, from the bytes alone. Raises UnreadableInput."""
    path = Path(path)
    data, header = bart_pair(path)
    return file_sha256(header, data) if _is_bart(path) else file_sha256(path)


def expand_inputs(paths: Iterable[str | Path]) -> list[Path]:
    """The volumes that `paths` stand for, in order and without repetition; a BART pair counts once, as its .cfl.

    A folder gives the files directly inside it (not in its sub-folders, not hidden) with a suffix of READERS, in upper
    or lower case, sorted by name; the log says how many others it holds. A path that is no folder is kept, whether it
    exists or not: `read_volume` says what is wrong with it, and the other volumes go on; so is a folder that cannot be
    listed or has no volume, beside others. Raises UnreadableInput for such a folder alone.
    """
    paths = list(paths)
    volumes: dict[Path, None] = {}
    suffixes = sorted({suffix for reader in READERS for suffix in reader.suffixes})
    for path in map(Path, paths):
        inside = [path]
        if path.is_dir():
            try:
                shown = sorted(item for item in path.iterdir() if not item.name.startswith("."))
            except OSError as error:
                shown, why = [], f"a folder that cannot be listed ({error.strerror})"
            else:
                why = "a folder without volumes (sub-folders are not searched)"
            inside = [item for item in shown if item.suffix.lower() in suffixes]
            if not inside and len(paths) == 1:
                raise UnreadableInput(path, why, " ".join(suffixes))
            taken = {*inside, *(bart_pair(item)[1] for item in inside if item.suffix == ".cfl")}
            others = [item.is_dir() for item in shown if item not in taken]
            if inside and others:
                log.warning("%s: left out: %d other files, %d sub-folders", path, others.count(False), sum(others))
            inside = inside or [path]
        volumes |= {bart_pair(item)[0] if item.suffix == ".hdr" else item: None for item in inside}
    return list(volumes)

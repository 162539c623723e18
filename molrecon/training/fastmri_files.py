"""fastMRI files to train on: a look at shape and header, and the reading of a single slice."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import final

import h5py
import numpy as np

from molrecon.io import UnreadableInput
from molrecon.io.hdf5 import check_size, read_text
from molrecon.io.header import parse_header
from molrecon.io.masks import infer_sampling_mask
from molrecon.io.volume import reading

logger = logging.getLogger(__name__)

EXPECTED = "a multi-coil fastMRI file"
FULLY_SAMPLED = "fully sampled data"
SMALLEST = 32  # rows and columns


@final
@dataclass(frozen=True)
class FastMRIFile:
    """A file as it was found: the sizes of its k-space (slices, coils, full_rows, cols), and the rows of its image."""

    path: Path
    slices: int
    coils: int
    full_rows: int
    rows: int
    cols: int


def scan_folder(folder: Path, *, as_measured: bool = False) -> tuple[list[FastMRIFile], list[tuple[Path, str]]]:
    """Return the usable .h5 and .hdf5 files directly inside a folder, by name, and the others with the reason.

    Raises:
        UnreadableInput: no folder, or one without such files.
    """
    if not folder.is_dir():
        raise UnreadableInput(folder, "a file" if folder.exists() else "no such folder", "a folder of fastMRI files")
    paths = [path for path in sorted(folder.iterdir()) if path.suffix in (".h5", ".hdf5") and path.name[0] != "."]
    if not paths:
        raise UnreadableInput(folder, "no .h5 files (sub-folders are not searched)", "a folder of fastMRI files")
    files, rejected = [], []
    for path in paths:
        try:
            files.append(inspect_file(path, as_measured=as_measured))
        except UnreadableInput as error:
            rejected.append((path, reason(error)))
            logger.warning("%s, not used", error)
    return files, rejected


def reason(error: UnreadableInput) -> str:
    """Return the message without the path."""
    return f"found {error.found}, expected {error.expected}"


def inspect_file(path: Path, *, as_measured: bool = False) -> FastMRIFile:
    """Return the sizes of a multi-coil file from its header; of the data only a line of each coil is read.

    The image has the rows of the header's recon matrix; without a header those of the reference, or of k-space.

    Args:
        path: the file.
        as_measured: accept undersampled files too.

    Raises:
        UnreadableInput: anything else than a complete multi-coil file, fully sampled but for columns at the edges that
            were never acquired (asymmetric phase encoding).
    """
    with reading(path, EXPECTED), h5py.File(path, "r") as file:
        kspace = _checked(path, file)
        slices, coils, full_rows, cols = kspace.shape
        rows = full_rows
        if "ismrmrd_header" in file:
            rows = parse_header(path, read_text(path, file["ismrmrd_header"])).recon_matrix[0]
        elif "reconstruction_rss" in file:
            rows = file["reconstruction_rss"].shape[-2]
        line = np.asarray(kspace[slices // 2, :, full_rows // 2])
    rows = min(rows, full_rows)
    if rows < SMALLEST:
        raise UnreadableInput(path, f"an image of {rows} rows", f"{SMALLEST} or more")
    if not line.any():
        raise UnreadableInput(path, "no data in the middle of k-space", EXPECTED)
    if not as_measured:
        check_fully_sampled(path, np.asarray(line.any(axis=0)))
    return FastMRIFile(path, slices, coils, full_rows, rows, cols)


def read_slice(file: FastMRIFile, number: int) -> np.ndarray:
    """Return the k-space (coils, full_rows, cols) complex64 of a slice; nothing else is read.

    The file is opened and closed for it: nothing is shared between threads or processes.

    Raises:
        UnreadableInput: the file is not what it was, or the slice has no data, NaN or infinity.
    """
    with reading(file.path, EXPECTED), h5py.File(file.path, "r") as opened:
        stored = _checked(file.path, opened)
        if stored.shape != (file.slices, file.coils, file.full_rows, file.cols):
            raise UnreadableInput(file.path, f"kspace of shape {stored.shape}, another than before", EXPECTED)
        with np.errstate(over="ignore", invalid="ignore"):
            kspace = np.asarray(stored[number]).astype(np.complex64, copy=False)
    if not np.isfinite(kspace.view(np.float32)).all():
        raise UnreadableInput(file.path, f"NaN or infinity in slice {number}", "finite numbers")
    if not kspace.any():
        raise UnreadableInput(file.path, f"slice {number} that is zero everywhere", "measured samples")
    return kspace


def measured_columns(file: FastMRIFile, number: int, kspace: np.ndarray) -> np.ndarray:
    """Return which columns of a slice (coils, full_rows, cols) were measured, (cols,) bool.

    Raises:
        UnreadableInput: samples are missing within columns.
    """
    mask = infer_sampling_mask(kspace[None])
    if mask.shape[1] != 1:
        raise UnreadableInput(file.path, f"slice {number} with samples missing within columns", "whole columns")
    return np.asarray(mask[0, 0])


def check_fully_sampled(path: Path, columns: np.ndarray) -> None:
    """Raise UnreadableInput unless the measured columns (cols,) are one run of at least half of all."""
    measured = np.flatnonzero(columns)
    if len(measured) != measured[-1] - measured[0] + 1 or 2 * len(measured) < len(columns):
        raise UnreadableInput(path, f"undersampled data, {len(measured)} of {len(columns)} columns", FULLY_SAMPLED)


def _checked(path: Path, file: h5py.File) -> h5py.Dataset:
    if "kspace" not in file:
        raise UnreadableInput(path, f"no kspace among {sorted(file)}", EXPECTED)
    kspace = file["kspace"]
    if not isinstance(kspace, h5py.Dataset) or kspace.dtype.kind != "c":
        raise UnreadableInput(path, f"kspace that is {kspace!r}", "a complex dataset")
    if kspace.ndim != 4 or kspace.shape[1] < 2:
        raise UnreadableInput(path, f"kspace of shape {kspace.shape}", "(slices, coils, rows, cols), two coils or more")
    if kspace.shape[0] < 1 or min(kspace.shape[2:]) < SMALLEST:
        raise UnreadableInput(path, f"kspace of shape {kspace.shape}", f"slices of {SMALLEST} x {SMALLEST} or more")
    check_size(path, kspace)
    return kspace

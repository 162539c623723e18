"""k-space without a header: NumPy `.npy` files and BART `.cfl`/`.hdr` pairs."""

from __future__ import annotations

import logging
import math
import warnings
from pathlib import Path

import numpy as np

from molrecon.io.atomic import atomic_path
from molrecon.io.axes import check_coil_axis
from molrecon.io.large_arrays import empty_array, on_disk, planes
from molrecon.io.masks import describe_zero_padding, infer_sampling_mask, mask_kspace
from molrecon.io.volume import RawVolume, UnreadableInput, check_kspace, file_sha256, reading

__all__ = ["bart_pair", "read_bart", "read_cfl", "read_npy", "write_cfl"]

log = logging.getLogger(__name__)

NPY_EXPECTED = "a complex .npy array (coil, rows, cols) or (slice, coil, rows, cols)"
BART_DIMS = 16
READOUT, PHASE_1, PHASE_2, COIL, MAPS, SLICE = 0, 1, 2, 3, 4, 13


def read_npy(path: str | Path) -> RawVolume:
    """Read complex, centred kspace (coil, rows, cols) or (slice, coil, rows, cols), undersampled in cols or in both.

    The sampling mask of each slice is taken from its samples that are zero in all coils; a remark says so where it
    looks as if k-space had been zero-padded. There is no header: recon_shape is that of kspace and the voxel size
    unknown. Arrays of Python objects are refused, never unpickled. Raises UnreadableInput, also for axes that look like
    those of an array with coils last.
    """
    path = Path(path)
    array = _load_npy(path)
    if array.ndim == 2:
        hint = "; one slice of a single coil is array[numpy.newaxis]"
        raise UnreadableInput(path, f"an array of shape {array.shape}", NPY_EXPECTED + hint)
    if array.ndim not in (3, 4):
        raise UnreadableInput(path, f"an array of shape {array.shape}", NPY_EXPECTED)
    check_coil_axis(path, array.shape)
    return _volume(path, array if array.ndim == 4 else array[None], file_sha256(path))


def read_bart(path: str | Path) -> RawVolume:
    """Read kspace from a BART pair; `path` is the .cfl, the .hdr or their common name without suffix.

    BART has 16 dimensions: 0 readout, 1 and 2 phase encodes, 3 coils, 13 slices. How they become (slices, coils, rows,
    cols), all other dimensions having size 1:

    - dimension 0 is 1, and 1 and 2 are both larger (one plane of a 3D scan, the readout already transformed):
      rows = 1, cols = 2, slices = 13;
    - otherwise rows = 0, cols = 1, and slices = 13 if that is larger than 1, else 2. Dimension 2 is then taken as a
      stack of slices: the second phase encode of a 3D scan has to be transformed first (`bart fft -iu 4`).

    Raises UnreadableInput, also when dimensions 2 and 13 are both larger than 1 and the readout is too, and for more
    than one set of sensitivity maps (dimension 4).
    """
    data, header = bart_pair(path)
    array = read_cfl(path)
    dims = array.shape + (1,) * (BART_DIMS - array.ndim)
    plane = dims[READOUT] == 1 and dims[PHASE_1] > 1 and dims[PHASE_2] > 1
    rows, cols = (PHASE_1, PHASE_2) if plane else (READOUT, PHASE_1)
    slices = SLICE if plane or dims[SLICE] > 1 else PHASE_2
    excess = [dim for dim, size in enumerate(dims) if size > 1 and dim not in (slices, COIL, rows, cols)]
    if excess:
        expected = (
            f"dimensions {sorted((slices, COIL, rows, cols))} only (0 readout, 1 and 2 phase, 3 coils, 13 slices)"
        )
        found = f"dimensions {dims}, more than 1 in {excess}"
        if excess == [MAPS]:
            found += f": dimension {MAPS} counts sets of sensitivity maps, here {dims[MAPS]}"
            expected = (
                "one set, as `bart ecalib -m 1` estimates; the first of several is"
                f" `bart slice {MAPS} 0 {data.stem} {data.stem}-1`"
            )
        raise UnreadableInput(data, found, expected)
    kspace = array.reshape(dims).transpose(
        slices, COIL, rows, cols, *set(range(BART_DIMS)) - {slices, COIL, rows, cols}
    )
    return _volume(data, kspace[(...,) + (0,) * (BART_DIMS - 4)], file_sha256(header, data))


def bart_pair(path: str | Path) -> tuple[Path, Path]:
    """The (.cfl, .hdr) paths that `path` stands for: either of them, or their common name without suffix."""
    path = Path(path)
    base = path.name[:-4] if path.suffix in (".cfl", ".hdr") else path.name
    return path.with_name(base + ".cfl"), path.with_name(base + ".hdr")


def read_cfl(path: str | Path) -> np.ndarray:
    """The array of a BART pair: complex64, axis n is BART dimension n, axes of size 1 at the end left out (one stays).

    Raises UnreadableInput for a missing file, a malformed header, and a .cfl whose size is not 8 bytes a number.
    """
    data, header = bart_pair(path)
    expected = "'# Dimensions' and a line of 1 to 16 positive sizes"
    with reading(header, expected):
        lines = [line.strip() for line in header.read_text("ascii").splitlines()]
        text = lines[lines.index("# Dimensions") + 1]
        dims = [int(word) for word in text.split()]
    if not 1 <= len(dims) <= BART_DIMS or min(dims) < 1:
        raise UnreadableInput(header, f"dimensions {text!r}", expected)
    with reading(data, f"the data of {header}"):
        size, needed = data.stat().st_size, 8 * math.prod(dims)
        if size != needed:
            found = f"{size} bytes"
            raise UnreadableInput(data, found, f"{needed} bytes for the dimensions {dims} of {header.name}")
        array = np.fromfile(data, "<c8").astype(np.complex64, copy=False)
    while len(dims) > 1 and dims[-1] == 1:
        dims.pop()
    return array.reshape(dims, order="F")


def write_cfl(path: str | Path, array: np.ndarray) -> None:
    """Write an array whose axis n is BART dimension n as a .cfl/.hdr pair, complex64, column-major.

    The .hdr is renamed last, so that a new pair is complete as soon as it has a header. Raises ValueError for more
    than 16 or no axes, or an empty array.
    """
    data, header = bart_pair(path)
    if not 1 <= array.ndim <= BART_DIMS or array.size == 0:
        raise ValueError(f"write_cfl: array of shape {array.shape}, expected 1 to 16 axes, none empty")
    dims = array.shape + (1,) * (BART_DIMS - array.ndim)
    with atomic_path(header) as new_header, atomic_path(data) as new_data:
        new_header.write_text("# Dimensions\n" + " ".join(map(str, dims)) + "\n", "ascii")
        # Not tofile, which leaves the last part to a close that does not tell of a full disk.
        new_data.write_bytes(np.ascontiguousarray(array.T, "<c8").data)


def _load_npy(path: Path) -> np.ndarray:
    # np.load would believe the shape in the header and allocate it; here the file's size has to agree first.
    with reading(path, NPY_EXPECTED), path.open("rb") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        version = np.lib.format.read_magic(file)
        if version == (1, 0):
            shape, column_major, dtype = np.lib.format.read_array_header_1_0(file)
        elif version == (2, 0):
            shape, column_major, dtype = np.lib.format.read_array_header_2_0(file)
        else:
            raise UnreadableInput(path, f".npy version {version}", "version (1, 0) or (2, 0)")
        if dtype.kind != "c":
            raise UnreadableInput(path, f"an array of dtype {dtype}, shape {shape}", NPY_EXPECTED)
        needed, size = file.tell() + math.prod(shape) * dtype.itemsize, path.stat().st_size
        if size != needed:
            raise UnreadableInput(path, f"{size} bytes", f"{needed} bytes for {dtype} of shape {shape}")
        if on_disk() and dtype == np.complex64 and len(shape) > 3 and not column_major:
            array = empty_array(shape, dtype)
            for one in planes(array):
                one[...] = np.fromfile(file, dtype, one.size).reshape(one.shape)
            return array
        array = np.fromfile(file, dtype, math.prod(shape))
        return array.reshape(shape, order="F" if column_major else "C")


def _volume(path: Path, stored: np.ndarray, sha256: str) -> RawVolume:
    kspace = check_kspace(path, stored)
    sampling_mask = infer_sampling_mask(kspace)
    mask_kspace(kspace, sampling_mask)
    remarks = tuple(describe_zero_padding(sampling_mask, kspace.shape[-2]))
    for remark in remarks:
        log.warning("%s: %s", path, remark)
    return RawVolume(path, kspace, sampling_mask, kspace.shape[-2:], sha256, remarks=remarks)

"""Raw scanner data in ISMRMRD (MRD) HDF5: Cartesian 2D scans.

Format: Inati et al., "ISMRM Raw data format: A proposed standard for MRI raw datasets", Magn Reson Med 77:411 (2017);
every readout is a record of its own with a header that says where in kspace it belongs.
"""

from __future__ import annotations

import logging
from pathlib import Path

import h5py
import numpy as np

from molrecon.io.hdf5 import check_heaps, check_size, read_text
from molrecon.io.header import Header, padding_attributes, parse_header, voxel_size
from molrecon.io.masks import mask_kspace
from molrecon.io.mrd.geometry import mrd_geometry, slice_order
from molrecon.io.volume import RawVolume, UnreadableInput, check_kspace, file_sha256, left_out_text, reading

__all__ = ["is_mrd", "read_mrd"]

log = logging.getLogger(__name__)

EXPECTED = "raw ISMRMRD data of a Cartesian 2D scan"
# Flag n of the format is bit n - 1.
CALIBRATION, CALIBRATION_AND_IMAGING, REVERSE = (1 << (flag - 1) for flag in (20, 21, 22))
# The flags of readouts that serve other purposes than the image, in plain words.
OTHER_PURPOSES = {
    19: "noise readouts",
    23: "navigator readouts",
    24: "phase correction readouts",
    26: "feedback readouts",
    27: "dummy readouts",
    28: "feedback readouts",
    29: "surface coil correction readouts",
    30: "phase stabilisation readouts",
    31: "phase stabilisation readouts",
}
NOISE = 1 << (19 - 1)
# The counters of which one value is read, in plain words.
SINGLE_FRAME = {
    "contrast": "contrasts",
    "phase": "cardiac phases",
    "repetition": "repetitions",
    "set": "sets",
    "kspace_encode_step_2": "second phase encodes",
}


def is_mrd(path: Path) -> bool:
    """Whether the HDF5 file has a group with the datasets `xml` and `data`, and no `kspace`. Raises UnreadableInput."""
    with reading(path, "an HDF5 file"), h5py.File(path, "r") as file:
        return "kspace" not in file and bool(_groups(file))


def read_mrd(path: str | Path, *, conjugate: bool = False) -> RawVolume:
    """Read the first image series of a Cartesian 2D ISMRMRD file into kspace (slices, coils, rows, cols).

    A readout is placed with its center_sample at rows // 2, in column encoded_y // 2 - center + kspace_encode_step_1;
    where several averages hit the same place, their mean is taken. Each slice has a sampling mask of its own, the
    columns in which it has a readout. Of several contrasts, phases, repetitions, sets, encoding spaces or data sets the
    first is read: `left_out` counts the others, and the readouts that are flagged as something else than image data
    (noise, navigators, separate calibration, ...); the log says so too. Of noise readouts attributes["noise_readouts"]
    is the number and attributes["noise_scan_level"] sqrt(E|n|^2) of their samples, not corrected for a dwell time that
    differs from that of the image. `conjugate` conjugates the data, which Siemens raw data need to agree with the
    scanner's own images (fastMRI data are not conjugated).

    Raises UnreadableInput, also for 3D encodings, other trajectories and reversed readouts (EPI).
    """
    path = Path(path)
    check_heaps(path)
    with reading(path, EXPECTED), h5py.File(path, "r") as file:
        names = _groups(file)
        if not names:
            raise UnreadableInput(path, f"no group with xml and data among {sorted(file)}", EXPECTED)
        name = names[0]
        xml = read_text(path, file[name]["xml"])
        records = _records(path, file[name]["data"])
        heads, samples = records["head"], records["data"]
        header = parse_header(path, xml)
        _check_encoding(path, header)
        attributes = _noise_attributes(samples[(heads["flags"] & NOISE) != 0])
        keep, left_out = _imaging(path, heads, header)
        if len(names) > 1:
            left_out["data sets"] = len(names) - 1
        kspace, sampling_mask = _place(path, heads[keep], samples[keep], header)
        order = slice_order(heads[keep], len(kspace))
        kspace, sampling_mask = kspace[order], sampling_mask[order]
    kspace = check_kspace(path, np.conj(kspace) if conjugate else kspace)
    mask_kspace(kspace, sampling_mask)
    rows, cols = kspace.shape[-2:]
    recon_shape = (min(header.recon_matrix[0], rows), min(header.recon_matrix[1], cols))
    spacing, remarks = voxel_size(header, rows, cols), []
    if (order != np.arange(len(order))).any():
        remarks.append("the slices are numbered in another order than they lie in, and are delivered as they lie")
    from_centre = np.abs(_columns(heads[keep], header) - cols // 2)
    geometry, remark = mrd_geometry(heads[keep], from_centre, order, spacing, (rows, cols), recon_shape)
    if geometry is not None:
        through, row, column = geometry.voxel_size
        spacing = (row, column, through)
    if remark is not None:
        remarks.append(remark)
    volume = RawVolume(
        path=path,
        kspace=kspace,
        sampling_mask=sampling_mask,
        recon_shape=recon_shape,
        sha256=file_sha256(path),
        voxel_size=spacing,
        attributes=attributes | padding_attributes(header, sampling_mask),
        header=xml,
        left_out=left_out,
        remarks=tuple(remarks),
        geometry=geometry,
    )
    if left_out:
        log.log(
            logging.WARNING if volume.incomplete else logging.INFO, "%s: left out: %s", path, left_out_text(left_out)
        )
    return volume


def _groups(file: h5py.File) -> list[str]:
    return [name for name in file if isinstance(file[name], h5py.Group) and {"xml", "data"} <= set(file[name])]


def _records(path: Path, dataset: h5py.Dataset) -> np.ndarray:
    # A damaged compound type, with members that overlap, makes the HDF5 library write past its buffer.
    if not isinstance(dataset, h5py.Dataset) or not _sound(dataset.dtype):
        raise UnreadableInput(path, f"{dataset!r}", EXPECTED)
    check_size(path, dataset)
    return np.asarray(dataset[()])


def _sound(dtype: np.dtype) -> bool:
    """Whether the fields of the type, and of the types of its fields, lie one after the other inside it."""
    end = 0
    for field, offset in sorted((part[:2] for part in (dtype.fields or {}).values()), key=lambda part: part[1]):
        if offset < end or not _sound(field):
            return False
        end = offset + field.itemsize
    return end <= dtype.itemsize


def _check_encoding(path: Path, header: Header) -> None:
    if header.trajectory.lower() != "cartesian":
        raise UnreadableInput(path, f"a {header.trajectory} trajectory", EXPECTED)
    if header.encoded_matrix[2] > 1:
        raise UnreadableInput(path, f"a 3D encoding {header.encoded_matrix}", EXPECTED)


def _noise_attributes(samples: np.ndarray) -> dict[str, str | float | int]:
    if not len(samples):
        return {}
    values = np.concatenate(list(samples)).astype(np.float64)
    return {"noise_readouts": len(samples), "noise_scan_level": float(np.sqrt(2 * np.mean(values**2)))}


def _imaging(path: Path, heads: np.ndarray, header: Header) -> tuple[np.ndarray, dict[str, int]]:
    """Which readouts form the image, those of the first series, and how much of what is left out."""
    flags, idx, spaces = heads["flags"], heads["idx"], heads["encoding_space_ref"]
    keep = np.ones(len(heads), bool)
    left_out: dict[str, int] = {}

    def drop(readouts: np.ndarray, words: str) -> None:
        count = int(np.count_nonzero(keep & readouts))
        if count:
            left_out[words] = left_out.get(words, 0) + count
        keep[readouts] = False

    for flag, words in OTHER_PURPOSES.items():
        drop((flags & (1 << (flag - 1))) != 0, words)
    if header.calibration_mode in ("separate", "external"):
        calibration = ((flags & CALIBRATION) != 0) & ((flags & CALIBRATION_AND_IMAGING) == 0)
        drop(calibration, "separate calibration readouts")
    others = len(np.unique(spaces[keep & (spaces != 0)]))
    keep &= spaces == 0
    if not keep.any():
        raise UnreadableInput(path, f"{len(heads)} readouts, none of an image", EXPECTED)
    if others:
        left_out["encoding spaces"] = others
    for name, words in SINGLE_FRAME.items():
        numbers = np.unique(idx[name][keep])
        if len(numbers) > 1:
            left_out[words] = len(numbers) - 1
        keep &= idx[name] == numbers[0]
    if (flags[keep] & REVERSE).any():
        raise UnreadableInput(path, "reversed readouts (EPI)", EXPECTED)
    return keep, left_out


def _place(path: Path, heads: np.ndarray, samples: np.ndarray, header: Header) -> tuple[np.ndarray, np.ndarray]:
    """Sort readouts into kspace (slices, coils, rows, cols) complex128; mask (slices, 1, cols) of those present."""
    rows, cols, _ = header.encoded_matrix
    columns = _columns(heads, header)
    slices = heads["idx"]["slice"].astype(int)
    coils = np.unique(heads["active_channels"])
    shape = (int(slices.max()) + 1, int(coils[0]), rows, cols)
    if len(coils) > 1 or columns.min() < 0 or columns.max() >= cols:
        found = f"readouts of {coils.tolist()} coils in columns {columns.min()} to {columns.max()}"
        raise UnreadableInput(path, found, f"one number of coils, columns 0 to {cols - 1} of the encoded matrix")
    # Far above what undersampling and partial echoes explain: the sizes, not the data, are wrong.
    if 8 * np.prod(shape, dtype=float) > 64 * path.stat().st_size:
        raise UnreadableInput(path, f"kspace of shape {shape} in a file of {path.stat().st_size} bytes", EXPECTED)

    kspace, count = np.zeros(shape, np.complex128), np.zeros((shape[0], cols), int)
    for head, values, number, column in zip(heads, samples, slices, columns, strict=True):
        length, pre, post = (int(head[name]) for name in ("number_of_samples", "discard_pre", "discard_post"))
        start = rows // 2 - int(head["center_sample"])
        if (
            values.size != 2 * shape[1] * length
            or start + pre < 0
            or start + length - post > rows
            or pre + post >= length
        ):
            found = f"a readout of {values.size} numbers, {length} samples centred at {head['center_sample']}"
            raise UnreadableInput(path, found, f"2 x {shape[1]} coils x samples inside {rows} rows")
        readout = np.ascontiguousarray(values, np.float32).view(np.complex64).reshape(shape[1], length)
        kspace[number, :, start + pre : start + length - post, column] += readout[:, pre : length - post]
        count[number, column] += 1
    kspace /= np.maximum(count, 1)[:, None, None, :]
    return kspace, _mask(count > 0)


def _columns(heads: np.ndarray, header: Header) -> np.ndarray:
    cols = header.encoded_matrix[1]
    shift = cols // 2 - header.phase_limits[2] if header.phase_limits else 0
    columns: np.ndarray = heads["idx"]["kspace_encode_step_1"].astype(int) + shift
    return columns


def _mask(measured: np.ndarray) -> np.ndarray:
    """Columns measured (slices, cols) -> the mask (slices, 1, cols); a slice without readouts follows the others."""
    filled = measured.any(axis=1)
    if (measured[filled] == measured[filled][:1]).all():
        measured = np.broadcast_to(measured[filled][:1], measured.shape)
    return measured[:, None]

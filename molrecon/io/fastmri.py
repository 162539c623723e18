"""fastMRI volumes: HDF5 with `kspace`, an ISMRMRD header, and for training files the reference reconstructions.

Format: https://fastmri.med.nyu.edu and Zbontar et al., "fastMRI: An Open Dataset and Benchmarks for Accelerated MRI",
arXiv:1811.08839. kspace is (slices, coils, rows, cols), or (slices, rows, cols) for a single coil; rows are the readout
with its twofold oversampling; the data are not conjugated.
"""

from __future__ import annotations

import logging
from pathlib import Path

import h5py
import numpy as np

from molrecon.io.axes import check_coil_axis
from molrecon.io.crop import center_crop
from molrecon.io.hdf5 import check_heaps, check_size, read_text
from molrecon.io.header import describe_matrix, padding_attributes, parse_header, voxel_size
from molrecon.io.large_arrays import empty_array, on_disk, planes
from molrecon.io.masks import canonical_mask, describe_zero_padding, infer_sampling_mask, mask_kspace, masked_samples
from molrecon.io.volume import RawVolume, UnreadableInput, check_kspace, file_sha256, reading

__all__ = ["read_fastmri"]

log = logging.getLogger(__name__)

EXPECTED = "a fastMRI HDF5 file"
SINGLE_COIL_REFERENCES = ("esc", "rss")
MULTI_COIL_REFERENCES = ("rss",)


def read_fastmri(path: str | Path) -> RawVolume:
    """Read a multi-coil or single-coil fastMRI file.

    Sampling mask: that of the file (`mask`, length cols, or (rows, cols), or (slices or 1, rows or 1, cols)), less the
    columns that hold no data in a slice; without one, the samples of each slice that are not zero in all coils. Data
    outside the mask are set to zero, and counted in `left_out` as masked samples. Columns outside
    the acquired range of the header (asymmetric phase encoding, padded with zeros) are reported in the attributes
    padding_left and padding_right. Image shape: the recon matrix of the header, along each axis limited to what kspace
    and reference have. The reference of a multi-coil file is `reconstruction_rss`, of a single-coil file
    `reconstruction_esc`, or rss where that is missing.

    Raises UnreadableInput.
    """
    path = Path(path)
    check_heaps(path)
    with reading(path, EXPECTED), h5py.File(path, "r") as file:
        if "kspace" not in file:
            raise UnreadableInput(path, f"no kspace among {sorted(file)}", EXPECTED)
        stored = _kspace(path, file["kspace"])
        mask = _numbers(path, file["mask"]) if "mask" in file else None
        xml = read_text(path, file["ismrmrd_header"]) if "ismrmrd_header" in file else None
        kinds = MULTI_COIL_REFERENCES if stored.ndim == 4 else SINGLE_COIL_REFERENCES
        kind = next((kind for kind in kinds if f"reconstruction_{kind}" in file), None)
        reference = _numbers(path, file[f"reconstruction_{kind}"]) if kind else None
        attributes = _attributes(file)
    if stored.ndim not in (3, 4):
        expected = "(slices, coils, rows, cols) or (slices, rows, cols)"
        if stored.ndim == 2:
            expected += "; one slice of a single coil is kspace[numpy.newaxis]"
        raise UnreadableInput(path, f"kspace of shape {stored.shape}", expected)
    if stored.ndim == 4:
        check_coil_axis(path, stored.shape, "kspace")

    kspace = check_kspace(path, stored if stored.ndim == 4 else stored[:, None])
    rows, cols = kspace.shape[-2:]
    sampling_mask, masked = _sampling_mask(path, kspace, mask)
    mask_kspace(kspace, sampling_mask)
    recon_shape, spacing = (rows, cols), None
    remarks: list[str] = []
    if xml is not None:
        header = parse_header(path, xml)
        recon_shape = min(header.recon_matrix[0], rows), min(header.recon_matrix[1], cols)
        spacing = voxel_size(header, rows, cols)
        attributes |= padding_attributes(header, sampling_mask)
        remarks += describe_matrix(header, rows, cols) if spacing is not None else []
    if mask is None and "padding_left" not in attributes:
        remarks += describe_zero_padding(sampling_mask, rows)
    for remark in remarks:
        log.warning("%s: %s", path, remark)
    if reference is not None:
        reference = _reference(path, reference, kspace.shape[0])
        recon_shape = min(recon_shape[0], reference.shape[1]), min(recon_shape[1], reference.shape[2])
        reference = np.ascontiguousarray(center_crop(reference, recon_shape))
    return RawVolume(
        path=path,
        kspace=kspace,
        sampling_mask=sampling_mask,
        recon_shape=recon_shape,
        sha256=file_sha256(path),
        voxel_size=spacing,
        reference=reference,
        reference_kind=kind,
        attributes=attributes,
        header=xml,
        left_out={"masked samples": masked} if masked else {},
        remarks=tuple(remarks),
    )


def _numbers(path: Path, dataset: h5py.Dataset) -> np.ndarray:
    if not isinstance(dataset, h5py.Dataset) or dataset.dtype.kind not in "biufc":
        raise UnreadableInput(path, f"{dataset!r}", "a dataset of numbers")
    check_size(path, dataset)
    return np.asarray(dataset[()])


def _kspace(path: Path, dataset: h5py.Dataset) -> np.ndarray:
    """Return the dataset, slice by slice where it shall lie on disk."""
    if not on_disk() or not isinstance(dataset, h5py.Dataset) or dataset.dtype.kind != "c" or dataset.ndim < 3:
        return _numbers(path, dataset)
    check_size(path, dataset)
    kspace = empty_array(dataset.shape, np.complex64)
    with np.errstate(over="ignore", invalid="ignore"):
        for number, one in enumerate(planes(kspace)):
            one[...] = dataset[number]
    return kspace


def _attributes(file: h5py.File) -> dict[str, str | float | int]:
    scalars: dict[str, str | float | int] = {}
    for name, value in file.attrs.items():
        if isinstance(value, (np.ndarray, np.generic)) and value.size == 1:
            value = value.item()
        if isinstance(value, bytes):
            value = value.decode("utf-8", "replace")
        if isinstance(value, (str, float, int)):
            scalars[str(name)] = value
    return scalars


def _sampling_mask(path: Path, kspace: np.ndarray, stored: np.ndarray | None) -> tuple[np.ndarray, int]:
    """Return the mask, and how many measured samples of all slices, in some coil not zero, are outside it."""
    measured = infer_sampling_mask(kspace)
    if stored is None:
        return measured, 0
    slices, _, rows, cols = kspace.shape
    shapes = tuple((n, m, cols) for n in (1, slices) for m in (1, rows))
    if stored.shape not in ((cols,), (rows, cols), *shapes):
        expected = f"({cols},), one value per column of kspace, ({rows}, {cols}) or ({slices}, {rows} or 1, {cols})"
        raise UnreadableInput(path, f"mask of shape {stored.shape}", expected)
    if stored.dtype.kind not in "biuf" or not np.isin(stored, (0, 1)).all():
        raise UnreadableInput(path, f"mask of dtype {stored.dtype} with values other than 0 and 1", "only 0 and 1")
    mask = canonical_mask(stored.astype(bool), kspace.shape)
    # A mask may be that of all slices together, or name columns of zero padding: what holds no data is not measured.
    mask = canonical_mask(mask & measured.any(axis=1, keepdims=True), kspace.shape)
    if not (mask & measured).any():
        raise UnreadableInput(path, "a mask that keeps no measured sample", "one that keeps some")
    masked = masked_samples(kspace, mask)
    if masked:
        log.warning("%s: samples outside the mask of the file are not zero; they are left out", path)
    return mask, masked


def _reference(path: Path, reference: np.ndarray, slices: int) -> np.ndarray:
    expected = f"({slices}, rows, cols) real and finite"
    if reference.ndim != 3 or reference.shape[0] != slices or 0 in reference.shape or reference.dtype.kind not in "iuf":
        raise UnreadableInput(path, f"reference of shape {reference.shape}, dtype {reference.dtype}", expected)
    with np.errstate(over="ignore"):
        reference = reference.astype(np.float32)
    if not np.isfinite(reference).all():
        raise UnreadableInput(path, "NaN or infinity in the reference", expected)
    return reference

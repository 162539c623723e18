"""A 3D scan as independent 2D problems: a transform along its readout, which is fully sampled, takes it apart."""

from __future__ import annotations

import numpy as np
import torch

from molrecon.io.geometry import Geometry
from molrecon.io.header import Header
from molrecon.io.masks import mask_kspace
from molrecon.io.mrd.geometry import mrd_geometry
from molrecon.io.mrd.placing import Placed, columns, partitions
from molrecon.io.mrd.records import Records
from molrecon.io.volume import RawVolume, UnreadableInput, check_kspace
from operators.fourier import centred_ifft


def slab(
    records: Records,
    placed: Placed,
    heads: np.ndarray,
    header: Header,
    conjugated: bool,
) -> RawVolume:
    """Return a 3D scan as a volume whose slices are readout positions, rows first and columns second phase encodes.

    Its sha256 and what else all volumes of a file share is left to the caller.

    The readout is transformed with the orthonormal Fourier transform, which leaves the noise level as it is, and
    cropped to the image.

    Raises:
        UnreadableInput: partial echoes, several slabs, fewer than two partitions.
    """
    path, (full, rows, cols) = records.path, header.encoded_matrix
    expected = "a 3D scan of one slab with full echoes in two or more partitions"
    measured = placed.count.any(axis=(0, 2))
    if measured.sum() < 2:
        raise UnreadableInput(path, f"a 3D encoding {header.encoded_matrix} with {measured.sum()} partition", expected)
    if len(placed.kspace) > 1:
        raise UnreadableInput(path, f"a 3D encoding {header.encoded_matrix} of {len(placed.kspace)} slabs", expected)
    if not placed.rows_measured.all():
        missing = int((~placed.rows_measured).sum())
        raise UnreadableInput(path, f"a 3D encoding with {missing} of {full} samples of each readout missing", expected)
    kept = min(header.recon_matrix[0], full)
    first = (full - kept) // 2
    kspace = placed.kspace[0]  # (coils, partitions, readout, phase)
    if conjugated:
        kspace = kspace.conj()
    hybrid = centred_ifft(torch.from_numpy(np.ascontiguousarray(kspace)), (2,))[:, :, first : first + kept]
    # (readout, coils, phase, partition)
    kspace = check_kspace(path, np.ascontiguousarray(hybrid.numpy().transpose(2, 0, 3, 1)))
    mask = (placed.count[0] > 0).T[None]
    mask_kspace(kspace, mask)
    recon_shape = (min(header.recon_matrix[1], rows), min(header.recon_matrix[2], cols))
    geometry, remark = _geometry(heads, header, kept, recon_shape)
    return RawVolume(
        path=path,
        kspace=kspace,
        sampling_mask=mask,
        recon_shape=recon_shape,
        sha256="",
        voxel_size=(mm[1], mm[2], mm[0]) if (mm := _spacing(header)) is not None else None,
        header=records.xml,
        remarks=() if remark is None else (remark,),
        geometry=geometry,
        volumetric=True,
    )


def _spacing(header: Header) -> tuple[float, float, float] | None:
    """Return the distances of voxels (readout, phase, partition) in mm; a crop leaves them as they are."""
    if header.encoded_fov is None:
        return None
    x, y, z = (mm / n for mm, n in zip(header.encoded_fov, header.encoded_matrix, strict=True))
    return x, y, z


def _geometry(
    heads: np.ndarray, header: Header, kept: int, recon_shape: tuple[int, int]
) -> tuple[Geometry | None, str | None]:
    full, rows, cols = header.encoded_matrix
    from_centre = np.hypot(columns(heads, header) - rows // 2, partitions(heads, header) - cols // 2)
    # As partitions of (readout, phase) images first, whose axes are then named anew.
    stack, remark = mrd_geometry(
        heads,
        from_centre,
        np.arange(1),
        _spacing(header),
        (full, rows),
        (kept, recon_shape[0]),
        partitions=(cols, recon_shape[1]),
    )
    if stack is None:
        return None, remark
    readout, phase, partition = stack.row_step, stack.column_step, stack.slice_step
    return Geometry(stack.origin, readout, phase, partition, float(np.linalg.norm(readout))), None

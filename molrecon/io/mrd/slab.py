"""A 3D scan as 2D problems: a transform along its readout takes it apart, exactly where full echoes were measured."""

from __future__ import annotations

import numpy as np

from molrecon.io.geometry import Geometry
from molrecon.io.header import Header
from molrecon.io.masks import mask_kspace
from molrecon.io.mrd.geometry import mrd_geometry
from molrecon.io.mrd.placing import HybridKSpace, columns, partitions, place_hybrid
from molrecon.io.mrd.records import Records
from molrecon.io.volume import RawVolume, UnreadableInput, check_kspace

COMPLETE = 0.5  # share of the readouts that reach a sample, for it to count as measured


def slab(records: Records, chosen: np.ndarray, header: Header, conjugated: bool) -> tuple[RawVolume, HybridKSpace]:
    """Return a 3D scan as a volume whose slices are readout positions, rows first and columns second phase encodes.

    Its sha256 and what else all volumes of a file share is left to the caller. A partial echo is completed by zeros
    before the transform: its image is that of the scan, at the resolution along the readout that was measured.

    Args:
        records: the file.
        chosen: (readouts,) bool, those of one slab.
        header: of their encoding space.
        conjugated: the data are to be conjugated.

    Raises:
        UnreadableInput: fewer than two partitions, readouts that do not fit.
    """
    path, (full, rows, cols) = records.path, header.encoded_matrix
    positions = min(header.recon_matrix[0], full)
    hybrid = place_hybrid(records, chosen, header, positions, conjugated)
    measured = hybrid.count.any(axis=0)
    if measured.sum() < 2:
        expected = "a 3D scan in two or more partitions"
        raise UnreadableInput(path, f"a 3D encoding {header.encoded_matrix} with {measured.sum()} partition", expected)
    kspace = check_kspace(path, hybrid.kspace)
    mask = (hybrid.count > 0)[None]
    mask_kspace(kspace, mask)
    recon_shape = (min(header.recon_matrix[1], rows), min(header.recon_matrix[2], cols))
    heads = records.heads[chosen].copy()
    heads["idx"]["slice"] = 0  # the number of the slab: each is a volume by itself
    geometry, remark = _geometry(heads, header, positions, recon_shape)
    remarks = [] if remark is None else [remark]
    missing = int((hybrid.measured < COMPLETE).sum())
    if missing > 1:  # reversed readouts lack one on an even grid
        remarks.append(
            f"{missing} of {full} samples of each readout were not measured (partial echo) and count as zero: along the"
            " readout the image is as sharp as the measured part allows, and its edges ring"
        )
    mm = _spacing(header)
    volume = RawVolume(
        path=path,
        kspace=kspace,
        sampling_mask=mask,
        recon_shape=recon_shape,
        sha256="",
        voxel_size=None if mm is None else (mm[1], mm[2], mm[0]),
        header=records.xml,
        remarks=tuple(remarks),
        geometry=geometry,
        volumetric=True,
    )
    return volume, hybrid


def _spacing(header: Header) -> tuple[float, float, float] | None:
    """Return the distances of voxels (readout, phase, partition) in mm; a crop leaves them as they are."""
    if header.encoded_fov is None:
        return None
    x, y, z = (mm / n for mm, n in zip(header.encoded_fov, header.encoded_matrix, strict=True))
    return x, y, z


def _geometry(
    heads: np.ndarray, header: Header, positions: int, recon_shape: tuple[int, int]
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
        (positions, recon_shape[0]),
        partitions=(cols, recon_shape[1]),
    )
    if stack is None:
        return None, remark
    readout, phase, partition = stack.row_step, stack.column_step, stack.slice_step
    return Geometry(stack.origin, readout, phase, partition, float(np.linalg.norm(readout))), None

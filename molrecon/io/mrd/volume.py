"""From the readouts of one image to a `RawVolume`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import final

import numpy as np

from molrecon.io.geometry import Geometry
from molrecon.io.header import Header, padding_attributes, voxel_size
from molrecon.io.masks import mask_kspace
from molrecon.io.mrd.geometry import mrd_geometry, slice_order, slices_lacking, with_all_slices
from molrecon.io.mrd.placing import Placed, columns, place
from molrecon.io.mrd.records import Records
from molrecon.io.mrd.slab import slab
from molrecon.io.volume import RawVolume, UnreadableInput, check_kspace

REORDERED = "the slices are numbered in another order than they lie in, and are delivered as they lie"


@final
@dataclass(frozen=True, eq=False)
class Shared:
    """What all volumes of a file have in common.

    Attributes:
        sha256: of the file.
        conjugated: the data are to be conjugated.
        attributes: for `RawVolume.attributes`.
        noise_covariance: (coils, coils) of one average, or None.
        calibration: (readouts,) bool, those measured for the coil maps alone.
        imaging: (readouts,) bool, those of images.
    """

    sha256: str
    conjugated: bool
    attributes: dict[str, str | float | int]
    noise_covariance: np.ndarray | None
    calibration: np.ndarray
    imaging: np.ndarray

    def of_space(self, records: Records, heads: np.ndarray) -> np.ndarray:
        """Return the readouts of all images of the encoding space that these are of."""
        spaces = records.heads["encoding_space_ref"]
        return records.heads[self.imaging & (spaces == heads["encoding_space_ref"][0])]


def make_volume(
    records: Records, keep: np.ndarray, header: Header, shared: Shared, left_out: Mapping[str, int]
) -> RawVolume:
    """Return the image volume of the readouts `keep` (readouts,) bool, of one slab in 3D. Raises UnreadableInput."""
    path, left_out = records.path, dict(left_out)
    rows, cols, depth = header.encoded_matrix
    if depth == 1:
        numbers = np.unique(records.heads["idx"]["kspace_encode_step_2"][keep])
        if len(numbers) > 1:
            left_out["second phase encodes"] = len(numbers) - 1
        keep = keep & (records.heads["idx"]["kspace_encode_step_2"] == numbers[0])
    heads = records.heads[keep]
    if depth > 1:
        volume, hybrid = slab(records, keep, header, shared.conjugated)
        # The transform of a partial echo spreads the noise of its samples over all positions.
        share = float(hybrid.measured.mean()) / float(hybrid.count[hybrid.count > 0].mean())
        return replace(
            volume,
            sha256=shared.sha256,
            attributes=shared.attributes,
            left_out=left_out,
            noise_covariance=None if shared.noise_covariance is None else share * shared.noise_covariance,
        )
    of_all = with_all_slices(heads, shared.of_space(records, heads))
    slices = int(of_all["idx"]["slice"].max()) + 1
    placed = place(records, keep, header, slices)
    averages = placed.count[placed.count > 0]
    covariance = None if shared.noise_covariance is None else shared.noise_covariance / float(averages.mean())
    order = slice_order(of_all, slices)
    kspace, mask = _planes(records, placed, order, shared.conjugated)
    recon_shape = (min(header.recon_matrix[0], rows), min(header.recon_matrix[1], cols))
    from_centre = np.abs(columns(of_all, header) - cols // 2)
    spacing = voxel_size(header, rows, cols)
    geometry, remark = mrd_geometry(of_all, from_centre, order, spacing, (rows, cols), recon_shape)
    remarks = [REORDERED] if (order != np.arange(slices)).any() else []
    remarks += slices_lacking(heads, order)
    if averages.min() < averages.max():
        times = f"{averages.min()} to {averages.max()} times"
        remarks.append(f"columns were averaged {times}: their noise differs, and counts as equal")
    return RawVolume(
        path=path,
        kspace=kspace,
        sampling_mask=mask,
        recon_shape=recon_shape,
        sha256=shared.sha256,
        voxel_size=spacing_of(geometry, spacing),
        attributes=shared.attributes | padding_attributes(header, mask),
        header=records.xml,
        left_out=left_out,
        remarks=(*remarks, *([remark] if remark else [])),
        geometry=geometry,
        noise_covariance=covariance,
        calibration=_calibration(records, header, shared, kspace.shape, order),
    )


def spacing_of(
    geometry: Geometry | None, otherwise: tuple[float, float, float] | None
) -> tuple[float, float, float] | None:
    """Return the voxel size (row, column, slice) of a geometry, whose slices have their gaps."""
    if geometry is None:
        return otherwise
    through, row, column = geometry.voxel_size
    return row, column, through


def _planes(records: Records, placed: Placed, order: np.ndarray, conjugated: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return kspace (slices, coils, rows, cols) complex64 and its mask (slices, 1, cols), in the order of space."""
    kspace, measured = placed.kspace[order][:, :, 0], placed.count[order][:, 0] > 0
    kspace = check_kspace(records.path, np.conj(kspace) if conjugated else kspace)
    mask = _mask(measured)
    mask_kspace(kspace, mask)
    return kspace, mask


def _mask(measured: np.ndarray) -> np.ndarray:
    """Columns measured (slices, cols) -> the mask (slices, 1, cols); a slice without readouts follows the others."""
    filled = measured.any(axis=1)
    if (measured[filled] == measured[filled][:1]).all():
        measured = np.broadcast_to(measured[filled][:1], measured.shape)
    return measured[:, None]


def _calibration(
    records: Records, header: Header, shared: Shared, shape: tuple[int, ...], order: np.ndarray
) -> np.ndarray | None:
    """Return the separate calibration as k-space on the grid of the image, zero where it holds nothing; or None."""
    chosen = shared.calibration & (records.heads["idx"]["slice"] < shape[0])
    if not chosen.any():
        return None
    try:
        placed = place(records, chosen, header, shape[0])
        return _planes(records, placed, order, shared.conjugated)[0] if placed.kspace.shape[1] == shape[1] else None
    except UnreadableInput:  # it is not on this grid: the image's own lines have to do
        return None

"""From the readouts of one radial, spiral or other 2D trajectory to a `RawVolume`."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from molrecon.io.header import Header, voxel_size
from molrecon.io.mrd.geometry import mrd_geometry, slice_order
from molrecon.io.mrd.records import EXPECTED, Records, readout
from molrecon.io.mrd.volume import REORDERED, Shared, spacing_of
from molrecon.io.volume import RawVolume, UnreadableInput, check_kspace

TRAJECTORIES = ("radial", "goldenangle", "spiral", "other")  # of the header, that bring their coordinates
HALF = 0.51  # of the encoded matrix: what a coordinate may reach, with a little for how it was computed
SMALLEST_REACH = 1 / 4  # of the matrix: coordinates that reach less than this are in neither unit


def make_trajectory_volume(
    records: Records, keep: np.ndarray, header: Header, shared: Shared, left_out: Mapping[str, int]
) -> RawVolume:
    """Return the image volume of the readouts `keep` (readouts,) bool, with the coordinates of their samples.

    The grid of the image is the encoded matrix, and the recon matrix is delivered, as for Cartesian scans. The first
    coordinate is that of rows (read_dir), the second that of columns (phase_dir). The format leaves the unit open; both
    that are met are told apart by how far the coordinates reach: 1 / pixel, at most 0.5, and cycles per field of view,
    at most half of the encoded matrix. A third coordinate is zero, or a weight for the density, which is not used.

    Averages stay readouts of their own, which least squares weigh as it should be. Samples that the head says to
    discard are left out.

    Raises:
        UnreadableInput: no coordinates, coordinates of other than two axes or in another unit, a 3D encoding, readouts
            of different coils or lengths, slices of different numbers of readouts.
    """
    path, name = records.path, header.trajectory
    if header.encoded_matrix[2] > 1:
        found = f"a 3D {name} scan, with an encoded matrix of {' x '.join(map(str, header.encoded_matrix))}"
        raise UnreadableInput(path, found, "a 2D one")
    heads, chosen = records.heads[keep], np.flatnonzero(keep)
    coils, first, last = _common_shape(records, heads)
    points, weighted = _coordinates(records, heads, chosen, name)
    points = points[:, first:last]
    grid = header.encoded_matrix[:2]
    points = _in_cycles(records, points, grid, name)
    samples = np.stack([readout(records, int(k), coils)[:, first:last] for k in chosen])  # (readouts, coils, samples)
    number = heads["idx"]["slice"].astype(int)
    slices = int(number.max()) + 1
    counts = np.bincount(number, minlength=slices)
    if len(set(counts[counts > 0].tolist())) > 1:
        found = f"slices of {counts.min()} to {counts.max()} {name} readouts"
        raise UnreadableInput(path, found, "as many in each slice")
    order = slice_order(heads, slices)
    kspace = np.zeros((slices, coils, int(counts.max()), last - first), np.complex64)
    trajectory = np.zeros((slices, int(counts.max()), last - first, 2))
    if kspace.nbytes > 64 * path.stat().st_size:
        raise UnreadableInput(
            path, f"kspace of shape {kspace.shape} in a file of {path.stat().st_size} bytes", EXPECTED
        )
    measured = int(number[0])  # a slice without readouts gets the coordinates of this one
    for place, slice_number in enumerate(order):
        readouts = number == (slice_number if counts[slice_number] else measured)
        trajectory[place] = points[readouts]
        if counts[slice_number]:
            kspace[place] = samples[readouts].transpose(1, 0, 2)
    if (trajectory == trajectory[:1]).all():
        trajectory = trajectory[:1].copy()
    spacing = voxel_size(header, *grid)
    recon_shape = (min(header.recon_matrix[0], grid[0]), min(header.recon_matrix[1], grid[1]))
    geometry, remark = mrd_geometry(heads, np.zeros(len(heads)), order, spacing, grid, recon_shape)
    remarks = [REORDERED] if (order != np.arange(slices)).any() else []
    if weighted:
        remarks.append("the weights that the file gives for the density of its samples are not used: they are computed")
    return RawVolume(
        path=path,
        kspace=check_kspace(path, kspace.conj() if shared.conjugated else kspace),
        sampling_mask=np.ones(kspace.shape[-1], bool),
        recon_shape=recon_shape,
        sha256=shared.sha256,
        voxel_size=spacing_of(geometry, spacing),
        attributes={**shared.attributes, "trajectory": name.lower()},
        header=records.xml,
        left_out=dict(left_out),
        remarks=(*remarks, *([remark] if remark else [])),
        geometry=geometry,
        noise_covariance=shared.noise_covariance,
        trajectory=trajectory,
        grid=grid,
    )


def _common_shape(records: Records, heads: np.ndarray) -> tuple[int, int, int]:
    """Return the number of coils, and the range of samples, that all readouts have."""
    lengths, pre = heads["number_of_samples"].astype(int), heads["discard_pre"].astype(int)
    shapes = np.unique(np.stack([heads["active_channels"], lengths, pre, lengths - heads["discard_post"]], 1), axis=0)
    coils, _, first, last = map(int, shapes[0])
    if len(shapes) > 1 or last <= first or coils < 1:
        described = ", ".join(f"{c} coils x samples {a} to {b - 1} of {n}" for c, n, a, b in shapes[:3].tolist())
        raise UnreadableInput(records.path, f"readouts of {described}", "one or more samples, as many in each readout")
    return coils, first, last


def _coordinates(records: Records, heads: np.ndarray, chosen: np.ndarray, name: str) -> tuple[np.ndarray, bool]:
    """Return the coordinates (readouts, samples, 2) float64 as the file has them, and whether it has weights too."""
    axes = np.unique(heads["trajectory_dimensions"]).tolist()
    length = int(heads["number_of_samples"][0])
    stored = [records.trajectory[k] for k in chosen]
    sizes = sorted({0 if one is None else int(np.size(one)) for one in stored})
    if axes == [0] or sizes == [0]:
        found = f"a {name} trajectory, whose coordinates no readout holds"
        raise UnreadableInput(records.path, found, "two coordinates for every sample, in the readouts")
    if axes not in ([2], [3]) or sizes != [axes[0] * length]:
        found = (
            f"a {name} trajectory of {axes} coordinates for each of {length} samples, in readouts of {sizes} numbers"
        )
        raise UnreadableInput(records.path, found, "two coordinates for every sample")
    points = np.stack([np.asarray(one, np.float64).reshape(length, axes[0]) for one in stored])
    if not np.isfinite(points).all():
        raise UnreadableInput(records.path, f"NaN or infinity in a {name} trajectory", "finite coordinates")
    return points[..., :2], bool(axes == [3] and points[..., 2].any())


def _in_cycles(records: Records, points: np.ndarray, grid: tuple[int, int], name: str) -> np.ndarray:
    """Return coordinates in cycles per field of view, each within half of the grid."""
    matrix = np.array(grid, float)
    reach = np.abs(points).max(axis=(0, 1))
    if (reach <= HALF).all() and reach.max() >= SMALLEST_REACH * HALF:
        points = points * matrix
    elif not ((reach <= HALF * matrix).all() and (reach >= SMALLEST_REACH * matrix).any()):
        found = f"a {name} trajectory that reaches {reach[0]:.4g} and {reach[1]:.4g}"
        expected = f"0.5 / pixel, or {grid[0] / 2:g} and {grid[1] / 2:g} cycles per field of view, at most"
        raise UnreadableInput(records.path, found, expected)
    # Images of pixels are periodic in k-space: what is a little outside it is the same on the other side.
    return points - matrix * np.round(points / matrix * (1 - 1e-9))

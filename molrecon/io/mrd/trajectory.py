"""From the readouts of one radial, spiral or other 2D trajectory, or of a stack of such, to a `RawVolume`."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import numpy as np

from molrecon.io.geometry import Geometry
from molrecon.io.header import Header, voxel_size
from molrecon.io.mrd.geometry import mrd_geometry, slice_order, slices_lacking, with_all_slices
from molrecon.io.mrd.placing import partitions
from molrecon.io.mrd.records import EXPECTED, Records, readout
from molrecon.io.mrd.stack import taken_apart
from molrecon.io.mrd.volume import REORDERED, Shared, spacing_of
from molrecon.io.volume import RawVolume, UnreadableInput, check_kspace

TRAJECTORIES = ("radial", "goldenangle", "spiral", "other")  # of the header, that bring their coordinates
HALF = 0.51  # of the encoded matrix: what a coordinate may reach, with a little for how it was computed
LARGEST = 64  # k-space or coil images of so many sizes of the file: its numbers, not its data, are wrong beyond it
SMALLEST_REACH = 1 / 4  # of the matrix: coordinates that reach less than this are in neither unit


def make_trajectory_volume(
    records: Records, keep: np.ndarray, header: Header, shared: Shared, left_out: Mapping[str, int]
) -> RawVolume:
    """Return the image volume of the readouts `keep` (readouts,) bool, with the coordinates of their samples.

    The grid of the image is the encoded matrix, and the recon matrix is delivered, as for Cartesian scans. The first
    coordinate is that of rows (read_dir), the second that of columns (phase_dir). The format leaves the unit open; both
    that are met are told apart by how far the coordinates reach: 1 / pixel, at most 0.5, and cycles per field of view,
    at most half of the encoded matrix. A third coordinate is zero, or a weight for the density, which is not used.

    A 3D scan has to be a stack, the same 2D trajectory in every partition: a transform along the partitions takes it
    apart into slices, see `taken_apart`. The third coordinate is then zero or that of the partition.

    Averages stay readouts of their own, which least squares weigh as it should be. Samples that the head says to
    discard are left out.

    Raises:
        UnreadableInput: no coordinates, coordinates of other than two axes or in another unit, a 3D encoding that is
            no stack, readouts of different coils or lengths, slices of different numbers of readouts.
    """
    path, name = records.path, header.trajectory
    depth = header.encoded_matrix[2]
    heads, chosen = records.heads[keep], np.flatnonzero(keep)
    coils, first, last = _common_shape(records, heads)
    points, third = _coordinates(records, heads, chosen, name, first, last)
    grid = header.encoded_matrix[:2]
    if 8 * coils * prod(grid) > LARGEST * path.stat().st_size:
        found = f"an encoded matrix of {grid[0]} x {grid[1]} and {coils} coils in a file of {path.stat().st_size} bytes"
        raise UnreadableInput(path, found, EXPECTED)
    points = _in_cycles(records, points, grid, name)
    samples = np.stack([readout(records, int(k), coils)[:, first:last] for k in chosen])  # (readouts, coils, samples)
    samples = samples.conj() if shared.conjugated else samples
    recon_shape = (min(header.recon_matrix[0], grid[0]), min(header.recon_matrix[1], grid[1]))
    spacing = voxel_size(header, *grid)
    if depth > 1:
        kspace, trajectory = taken_apart(records, heads, header, points, third, samples)
        spacing = _with_partitions(spacing, header)
        geometry, remark = _slab_geometry(heads, header, spacing, recon_shape, len(kspace))
        remarks = []
    else:
        of_all = with_all_slices(heads, shared.of_space(records, heads))
        slices = int(of_all["idx"]["slice"].max()) + 1
        order = slice_order(of_all, slices)
        kspace, trajectory = _by_slice(records, heads, order, points, samples, name)
        geometry, remark = mrd_geometry(of_all, np.zeros(len(of_all)), order, spacing, grid, recon_shape)
        remarks = [REORDERED] if (order != np.arange(slices)).any() else []
        remarks += slices_lacking(heads, order)
    if depth == 1 and third.any():
        remarks.append("the weights that the file gives for the density of its samples are not used: they are computed")
    return RawVolume(
        path=path,
        kspace=check_kspace(path, kspace),
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


def _by_slice(
    records: Records, heads: np.ndarray, order: np.ndarray, points: np.ndarray, samples: np.ndarray, name: str
) -> tuple[np.ndarray, np.ndarray]:
    """Return k-space (slices, coils, readouts, samples), in the order of space, and the trajectory of each slice.

    A slice without readouts is zero, on the trajectory of another. There is one trajectory where all have the same.
    """
    path, number = records.path, heads["idx"]["slice"].astype(int)
    counts = np.bincount(number, minlength=len(order))
    if len(set(counts[counts > 0].tolist())) > 1:
        found = f"slices of {counts.min()} to {counts.max()} {name} readouts"
        raise UnreadableInput(path, found, "as many in each slice")
    _, coils, length = samples.shape
    shape = (len(order), coils, int(counts.max()), length)
    if 8 * prod(shape) > LARGEST * path.stat().st_size:
        raise UnreadableInput(path, f"kspace of shape {shape} in a file of {path.stat().st_size} bytes", EXPECTED)
    kspace, trajectory = np.zeros(shape, np.complex64), np.zeros((len(order), shape[2], length, 2))
    anywhere = int(number[0])
    for place, own in enumerate(order):
        mine = number == (own if counts[own] else anywhere)
        trajectory[place] = points[mine]
        if counts[own]:
            kspace[place] = samples[mine].transpose(1, 0, 2)
    return kspace, trajectory[:1].copy() if (trajectory == trajectory[:1]).all() else trajectory


def _with_partitions(spacing: tuple[float, float, float] | None, header: Header) -> tuple[float, float, float] | None:
    """Return the distances (row, column, slice) in mm with that of the partitions, which a crop leaves as it is."""
    if spacing is None or header.encoded_fov is None:
        return spacing
    return spacing[0], spacing[1], header.encoded_fov[2] / header.encoded_matrix[2]


def _slab_geometry(
    heads: np.ndarray,
    header: Header,
    spacing: tuple[float, float, float] | None,
    recon_shape: tuple[int, int],
    kept: int,
) -> tuple[Geometry | None, str | None]:
    depth, slab = header.encoded_matrix[2], heads.copy()
    slab["idx"]["slice"] = 0  # the number of the slab: each is a volume by itself
    from_centre = np.abs(partitions(heads, header) - depth // 2).astype(float)
    grid = header.encoded_matrix[:2]
    return mrd_geometry(slab, from_centre, np.arange(1), spacing, grid, recon_shape, partitions=(depth, kept))


def _coordinates(
    records: Records, heads: np.ndarray, chosen: np.ndarray, name: str, first: int, last: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the coordinates of samples `first` to `last` as the file has them, float64: the first two (readouts,
    samples, 2), and the third (readouts, samples), zeros where there is none.
    """
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
    points = points[:, first:last]
    return points[..., :2], points[..., 2] if axes == [3] else np.zeros(points.shape[:2])


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

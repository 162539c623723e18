"""Where the image of an MRD scan lies in the patient, from the headers of its readouts."""

from __future__ import annotations

import numpy as np

from molrecon.io.geometry import Geometry, vector

# Directions in headers are single precision, and some converters round them to four digits.
ANGLE_TOLERANCE = 5e-3
# Of the distance of two slices: what positions may depart from equal steps by.
STEP_TOLERANCE = 0.01


def with_all_slices(heads: np.ndarray, of_scan: np.ndarray) -> np.ndarray:
    """Return readouts of an image, and those of slices of the scan that it lacks.

    All images of a scan have the same slices in the same order, also one that was broken off.
    """
    lacking = ~np.isin(of_scan["idx"]["slice"], heads["idx"]["slice"])
    return np.concatenate([heads, of_scan[lacking]])


def slices_lacking(heads: np.ndarray, order: np.ndarray) -> list[str]:
    """Return a remark on the slices, in the order of space, of which the readouts of an image hold none."""
    lacking = np.flatnonzero(~np.isin(order, heads["idx"]["slice"])).tolist()
    return [f"no readouts of the slices {lacking}, which are empty"] if lacking else []


def slice_order(heads: np.ndarray, slices: int) -> np.ndarray:
    """Return the slice numbers (slices,) in the order in which the slices lie in space.

    The numbers themselves, unless all slices are there, their positions do not advance in equal steps from number to
    number, and do when sorted along the slice direction (numbers that follow the time of acquisition).

    Args:
        heads: of readouts that form the image, with position, slice_dir, and idx.
        slices: how many there are, by the largest number.
    """
    order = np.arange(slices)
    numbers, positions, _ = _by_slice(heads, np.zeros(len(heads)))
    normal = _unit(heads["slice_dir"][0].astype(float))
    if len(numbers) < slices or slices < 3 or normal is None or _step(numbers, positions) is not None:
        return order
    sorted_ = np.argsort(positions @ normal, kind="stable")
    return sorted_ if _step(order, positions[sorted_]) is not None else order


def mrd_geometry(
    heads: np.ndarray,
    from_centre: np.ndarray,
    order: np.ndarray,
    voxel_size: tuple[float, float, float] | None,
    kspace_shape: tuple[int, int],
    recon_shape: tuple[int, int],
    partitions: tuple[int, int] | None = None,
) -> tuple[Geometry | None, str | None]:
    """Return the geometry of the image volume, or None and a sentence that says why it is unknown.

    An MRD header has, in millimetres of LPS, the position of the centre of the slice (of the slab, in 3D) and the unit
    vectors of readout, phase encoding and slice. The centre is where the phase of k-space does not vary: the voxel
    n // 2 of the n voxels of the Fourier transform, thus voxel `n // 2 - (n - m) // 2` of the m that a central crop
    leaves. The readout numbers rows, the phase encoding columns.

    Args:
        heads: of the readouts that form the image.
        from_centre: (readouts,), distance from the centre of k-space: the nearest one speaks for its slice.
        order: the slice number of every slice of the image, see `slice_order`.
        voxel_size: mm (row, column, slice) without gap, or None.
        kspace_shape: (rows, cols) as encoded. recon_shape: (rows, cols) as delivered.
        partitions: of a 3D scan, encoded and delivered.
    """
    numbers, positions, chosen = _by_slice(heads, from_centre)
    frames = [[heads[name][k].astype(float) for name in ("read_dir", "phase_dir", "slice_dir")] for k in chosen]
    if not any(np.any(direction) for frame in frames for direction in frame):
        return None, "the file gives no directions (all are zero): where the image lies in the patient is unknown"
    read, phase, through = (_unit(direction) for direction in frames[0])
    if read is None or phase is None or abs(float(read @ phase)) > ANGLE_TOLERANCE:
        return None, (
            "the directions of readout and phase encoding in the file are not two right-angled ones: where the image"
            " lies in the patient is unknown"
        )
    normal = np.cross(read, phase)
    if through is None or abs(float(through @ normal)) < 0.5:
        through = normal
    if any(np.abs(np.array(frame[:2]) - [read, phase]).max() > ANGLE_TOLERANCE for frame in frames):
        return None, "slices of different directions in one volume: where they lie in the patient is not in the image"
    if voxel_size is None:
        return None, "the header gives no field of view: where the image lies in the patient is unknown"
    row_mm, column_mm, thickness = voxel_size
    place = {int(number): k for k, number in enumerate(order)}
    places = np.array([place[int(number)] for number in numbers])
    if partitions is not None:
        step = thickness * through
        first = positions[0] - _centre(*partitions) * step
    elif len(places) == 1:
        step = thickness * through
        first = positions[0] - places[0] * step
    else:
        even_step = _step(places, positions)
        if even_step is None:
            return None, (
                "the positions of the slices do not advance in equal steps: where they lie in the patient is not in the"
                " image"
            )
        step = even_step
        first = positions[np.argmin(places)] - places.min() * step
    if abs(float(step @ normal)) < 0.1 * float(np.linalg.norm(step)):
        return None, "the slices advance within their own plane: where they lie in the patient is not in the image"
    row_step, column_step = row_mm * read, column_mm * phase
    centres = [_centre(encoded, delivered) for encoded, delivered in zip(kspace_shape, recon_shape, strict=True)]
    origin = first - centres[0] * row_step - centres[1] * column_step
    return Geometry(vector(origin), vector(step), vector(row_step), vector(column_step), float(thickness)), None


def _by_slice(heads: np.ndarray, from_centre: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the slice numbers (n,), their positions (n, 3) float64, and the readout that each is taken from (n,)."""
    nearest = np.argsort(from_centre, kind="stable")
    numbers, first = np.unique(heads["idx"]["slice"][nearest], return_index=True)
    chosen = nearest[first]
    return numbers.astype(int), heads["position"][chosen].astype(float), chosen


def _step(places: np.ndarray, positions: np.ndarray) -> np.ndarray | None:
    """Return the step (3,) from place to place where the positions advance equally, and None elsewhere."""
    first, last = np.argmin(places), np.argmax(places)
    if first == last:
        return None
    step: np.ndarray = (positions[last] - positions[first]) / (places[last] - places[first])
    length = float(np.linalg.norm(step))
    expected = positions[first] + (places - places[first])[:, None] * step
    even = length > 0 and np.isfinite(positions).all() and np.abs(positions - expected).max() <= STEP_TOLERANCE * length
    return step if even else None


def _unit(direction: np.ndarray) -> np.ndarray | None:
    """Return a direction at length 1; None for zeros, or what is no direction."""
    length = float(np.linalg.norm(direction))
    return direction / length if np.isfinite(length) and length > 0.5 else None


def _centre(encoded: int, delivered: int) -> int:
    """Return the voxel of the delivered image that is the centre of the encoded one."""
    return encoded // 2 - (encoded - delivered) // 2

"""Where every readout of an MRD file belongs in k-space, and k-space made of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np

from molrecon.io.header import Header
from molrecon.io.mrd.purposes import PHASE_CORRECTION, REVERSE
from molrecon.io.mrd.records import EXPECTED, Records, readout
from molrecon.io.volume import UnreadableInput


@final
@dataclass(frozen=True, eq=False)
class Placed:
    """K-space of one image volume.

    Attributes:
        kspace: (slices, coils, partitions, rows, cols) complex128, the mean of what was measured more than once.
        count: (slices, partitions, cols), how often each readout was measured.
        rows_measured: (rows,) bool, False for the rows that no readout reaches (partial echo).
    """

    kspace: np.ndarray
    count: np.ndarray
    rows_measured: np.ndarray


def columns(heads: np.ndarray, header: Header) -> np.ndarray:
    """Return the column of every readout, `encoded_y // 2 - center + kspace_encode_step_1`."""
    return _place_of(heads, "kspace_encode_step_1", header.encoded_matrix[1], header.phase_limits)


def partitions(heads: np.ndarray, header: Header) -> np.ndarray:
    """Return the partition of every readout of a 3D scan, zeros for a 2D one."""
    size = header.encoded_matrix[2]
    if size == 1:
        return np.zeros(len(heads), int)
    return _place_of(heads, "kspace_encode_step_2", size, header.partition_limits)


def place(records: Records, chosen: np.ndarray, header: Header, slices: int) -> Placed:
    """Sort the chosen readouts into k-space, each with its center_sample at row `rows // 2`.

    Readouts that ran backwards have their samples turned round, and their centre at `samples - 1 - center_sample`.

    Args:
        records: the file.
        chosen: (readouts,) bool, those of one image.
        header: of their encoding space.
        slices: how many, by the largest number among all frames.

    Raises:
        UnreadableInput: readouts of different coils, or outside the encoded matrix; reversed ones of EPI.
    """
    path, heads = records.path, records.heads[chosen]
    rows, cols, depth = header.encoded_matrix
    col, part, number = columns(heads, header), partitions(heads, header), heads["idx"]["slice"].astype(int)
    coils = np.unique(heads["active_channels"])
    if len(coils) > 1 or col.min() < 0 or col.max() >= cols or part.min() < 0 or part.max() >= depth:
        found = f"readouts of {coils.tolist()} coils in columns {col.min()} to {col.max()}"
        expected = f"one number of coils, columns 0 to {cols - 1} of the encoded matrix"
        if depth > 1:
            found += f" and partitions {part.min()} to {part.max()}"
            expected += f" and partitions 0 to {depth - 1}"
        raise UnreadableInput(path, found, expected)
    shape = (slices, int(coils[0]), depth, rows, cols)
    # Far above what undersampling and partial echoes explain: the sizes, not the data, are wrong.
    if 8 * np.prod(shape, dtype=float) > 64 * path.stat().st_size:
        flat = shape if depth > 1 else (shape[0], shape[1], rows, cols)
        raise UnreadableInput(path, f"kspace of shape {flat} in a file of {path.stat().st_size} bytes", EXPECTED)
    kspace, count = np.zeros(shape, np.complex128), np.zeros((slices, depth, cols), int)
    measured = np.zeros(rows, bool)
    for k, head, s, p, c in zip(np.flatnonzero(chosen), heads, number, part, col, strict=True):
        samples = readout(records, int(k), shape[1])
        length, pre, post = samples.shape[1], int(head["discard_pre"]), int(head["discard_post"])
        centre = int(head["center_sample"])
        if int(head["flags"]) & REVERSE:
            samples, centre, pre, post = samples[:, ::-1], length - 1 - centre, post, pre
            # An even grid has no place for the sample opposite to its first one, which such a readout may begin with.
            post = max(post, 1) if rows // 2 - centre + length == rows + 1 else post
        start = rows // 2 - centre
        if start + pre < 0 or start + length - post > rows or pre + post >= length:
            found = f"a readout of {length} samples centred at {head['center_sample']}"
            raise UnreadableInput(path, found, f"2 x {shape[1]} coils x samples inside {rows} rows")
        kspace[s, :, p, start + pre : start + length - post, c] += samples[:, pre : length - post]
        measured[start + pre : start + length - post] = True
        count[s, p, c] += 1
    kspace /= np.maximum(count, 1)[:, None, :, None, :]
    return Placed(kspace, count, measured)


def refuse_echo_planar(records: Records, imaging: np.ndarray, header: Header) -> None:
    """Raise UnreadableInput for EPI: its readouts need regridding of the ramps and correction of their phase."""
    flags = records.heads["flags"]
    reversed_ = bool((flags[imaging] & REVERSE).any())
    if header.trajectory.lower() == "epi" or (reversed_ and bool((flags & PHASE_CORRECTION).any())):
        raise UnreadableInput(
            records.path,
            "reversed readouts (EPI), which have to be regridded from the ramps of the gradient and corrected in phase"
            " first",
            EXPECTED,
        )


def _place_of(heads: np.ndarray, counter: str, size: int, limits: tuple[int, int, int] | None) -> np.ndarray:
    shift = size // 2 - limits[2] if limits else 0
    places: np.ndarray = heads["idx"][counter].astype(int) + shift
    return places

"""Where every readout of an MRD file belongs in k-space, and k-space made of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
import torch

from molrecon.io.header import Header
from molrecon.io.mrd.purposes import PHASE_CORRECTION, REVERSE
from molrecon.io.mrd.records import EXPECTED, Records, readout
from molrecon.io.volume import UnreadableInput
from operators.fourier import centred_ifft

READOUTS = 256  # of a 3D scan, transformed at a time


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


@final
@dataclass(frozen=True, eq=False)
class HybridKSpace:
    """A 3D scan, transformed along its readout.

    Attributes:
        kspace: (readout, coils, phase, partition) complex64, the mean of what was measured more than once.
        count: (phase, partition), how often each readout was measured.
        measured: (encoded readout,), the share of the readouts that reach a sample, below 1 in a partial echo.
    """

    kspace: np.ndarray
    count: np.ndarray
    measured: np.ndarray


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
    rows, cols, depth = header.encoded_matrix
    coils, col, partition = _checked(records, chosen, header)
    number = records.heads["idx"]["slice"][chosen].astype(int)
    shape = (slices, coils, depth, rows, cols)
    _check_size(records, shape if depth > 1 else (shape[0], shape[1], rows, cols))
    kspace, count = np.zeros(shape, np.complex128), np.zeros((slices, depth, cols), int)
    measured = np.zeros(rows, bool)
    for k, s, p, c in zip(np.flatnonzero(chosen), number, partition, col, strict=True):
        samples, start = _on_grid(records, int(k), coils, rows)
        stop = start + samples.shape[1]
        with np.errstate(invalid="ignore"):  # what is not finite is refused later, with its slice
            kspace[s, :, p, start:stop, c] += samples
        measured[start:stop] = True
        count[s, p, c] += 1
    kspace /= np.maximum(count, 1)[:, None, :, None, :]
    return Placed(kspace, count, measured)


def place_hybrid(
    records: Records, chosen: np.ndarray, header: Header, positions: int, conjugated: bool
) -> HybridKSpace:
    """Sort the readouts of a 3D scan, each transformed along itself and cut to the image, where they belong.

    The transform is orthonormal: it leaves the noise level of full readouts as it is. Samples that a partial echo lacks
    are zero. Held at a time are the result and a few readouts.

    Args:
        records: the file.
        chosen: (readouts,) bool, those of one slab.
        header: of their encoding space.
        positions: how many of the readout positions, the central ones, the image has.
        conjugated: the samples are to be conjugated.

    Raises:
        UnreadableInput: readouts of different coils, or outside the encoded matrix.
    """
    rows, cols, depth = header.encoded_matrix
    coils, col, partition = _checked(records, chosen, header)
    shape = (positions, coils, cols, depth)
    _check_size(records, (rows, coils, cols, depth))
    kspace, count, measured = np.zeros(shape, np.complex64), np.zeros((cols, depth), int), np.zeros(rows, int)
    numbers, first = np.flatnonzero(chosen), (rows - positions) // 2
    for begin in range(0, len(numbers), READOUTS):
        group = range(begin, min(begin + READOUTS, len(numbers)))
        lines = np.zeros((len(group), coils, rows), np.complex64)
        for line, k in zip(lines, group, strict=True):
            samples, start = _on_grid(records, int(numbers[k]), coils, rows)
            line[:, start : start + samples.shape[1]] = samples
            measured[start : start + samples.shape[1]] += 1
        if conjugated:
            np.conjugate(lines, out=lines)
        hybrid = centred_ifft(torch.from_numpy(lines), (2,)).numpy()[..., first : first + positions]
        for line, k in zip(hybrid, group, strict=True):
            with np.errstate(invalid="ignore"):
                kspace[:, :, col[k], partition[k]] += line.T
            count[col[k], partition[k]] += 1
    repeated = count > 1
    if repeated.any():
        kspace[:, :, repeated] /= count[repeated]
    return HybridKSpace(kspace, count, measured / len(numbers))


def _checked(records: Records, chosen: np.ndarray, header: Header) -> tuple[int, np.ndarray, np.ndarray]:
    """Return coils, columns and partitions of the chosen readouts."""
    heads, (_, cols, depth) = records.heads[chosen], header.encoded_matrix
    col, partition = columns(heads, header), partitions(heads, header)
    coils = np.unique(heads["active_channels"])
    if len(coils) > 1 or col.min() < 0 or col.max() >= cols or partition.min() < 0 or partition.max() >= depth:
        found = f"readouts of {coils.tolist()} coils in columns {col.min()} to {col.max()}"
        expected = f"one number of coils, columns 0 to {cols - 1} of the encoded matrix"
        if depth > 1:
            found += f" and partitions {partition.min()} to {partition.max()}"
            expected += f" and partitions 0 to {depth - 1}"
        raise UnreadableInput(records.path, found, expected)
    return int(coils[0]), col, partition


def _check_size(records: Records, shape: tuple[int, ...]) -> None:
    """Raise UnreadableInput for k-space far larger than what undersampling and partial echoes explain."""
    size = records.path.stat().st_size
    if 8 * np.prod(shape, dtype=float) > 64 * size:  # the sizes, not the data, are wrong
        raise UnreadableInput(records.path, f"kspace of shape {shape} in a file of {size} bytes", EXPECTED)


def _on_grid(records: Records, k: int, coils: int, rows: int) -> tuple[np.ndarray, int]:
    """Return what is to be used of readout k, forwards, (coils, samples), and the row that it begins in."""
    head, samples = records.heads[k], readout(records, k, coils)
    length, pre, post = samples.shape[1], int(head["discard_pre"]), int(head["discard_post"])
    centre = int(head["center_sample"])
    if int(head["flags"]) & REVERSE:
        samples, centre, pre, post = samples[:, ::-1], length - 1 - centre, post, pre
        # An even grid has no place for the sample opposite to its first one, which such a readout may begin with.
        post = max(post, 1) if rows // 2 - centre + length == rows + 1 else post
    start = rows // 2 - centre
    if start + pre < 0 or start + length - post > rows or pre + post >= length:
        found = f"a readout of {length} samples centred at {head['center_sample']}"
        raise UnreadableInput(records.path, found, f"2 x {coils} coils x samples inside {rows} rows")
    return samples[:, pre : length - post], start + pre


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

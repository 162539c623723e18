"""Which samples of a scan were measured: the shape of masks, and masks inferred from the zeros of k-space."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from molrecon.io.large_arrays import planes

__all__ = [
    "by_slice",
    "canonical_mask",
    "describe_zero_padding",
    "infer_sampling_mask",
    "mask_kspace",
    "masked_samples",
]

# Exact zeros occur by chance in quantised data and by design at the start of a partial echo; a column with at least
# this share of non-zero samples was read out, and the mask stays one of columns.
READ_OUT_SHARE = 0.9


def canonical_mask(mask: np.ndarray, kspace_shape: tuple[int, ...]) -> np.ndarray:
    """Return a mask as (slices or 1, rows or 1, cols) bool, with size 1 along the axes over which it does not vary.

    Args:
        mask: (cols,), (rows, cols), or (slices or 1, rows or 1, cols) bool.
        kspace_shape: (slices, coils, rows, cols).

    Raises:
        ValueError: a mask that does not fit, or of another dtype.
    """
    slices, _, rows, cols = kspace_shape
    whole = mask[(None,) * (3 - mask.ndim)] if 1 <= mask.ndim <= 3 else mask
    fits = whole.ndim == 3 and whole.shape[0] in (1, slices) and whole.shape[1] in (1, rows) and whole.shape[2] == cols
    if not fits or mask.dtype != bool:
        raise ValueError(
            f"sampling mask of shape {mask.shape} and dtype {mask.dtype}, expected bool ({slices} or 1, {rows} or 1,"
            f" {cols}) (slices, rows, cols)"
        )
    if (whole == whole[:, :1]).all():
        whole = whole[:, :1]
    if (whole == whole[:1]).all():
        whole = whole[:1]
    return whole.copy()  # a mask of its own, writable and contiguous, whatever becomes of the one given


def infer_sampling_mask(kspace: np.ndarray) -> np.ndarray:
    """Return which samples of kspace (slices, coils, rows, cols) were measured, those not zero in all coils.

    Every slice is looked at by itself: a mask that all slices share would call samples measured, with the value zero,
    that were measured in other slices only. Whole columns count as measured in a slice when at least nine tenths of
    each column with data are not zero. A slice without data has the mask of the others where these agree, and else
    none of its samples measured.

    Returns:
        (slices or 1, rows or 1, cols) bool, as `canonical_mask`.
    """
    measured = np.stack([one.any(axis=0) for one in planes(kspace)])
    filled = measured.any(axis=(1, 2))
    for mask in measured:
        columns = mask.any(axis=0)
        if _whole_columns(mask):
            mask[:] = columns
    if filled.any() and (measured[filled] == measured[filled][:1]).all():
        measured = measured[filled][:1]
    return canonical_mask(measured, kspace.shape)


def mask_kspace(kspace: np.ndarray, sampling_mask: np.ndarray) -> None:
    """In place kspace * sampling_mask + 0.0; without the sum a -0 would tell the sign of a sample left out."""
    for one, mask in zip(planes(kspace), by_slice(sampling_mask, len(kspace)), strict=True):
        one *= mask
        one += 0.0


def masked_samples(kspace: np.ndarray, sampling_mask: np.ndarray) -> int:
    """Return how many samples of all slices, in some coil not zero, are outside the mask."""
    pairs = zip(planes(kspace), by_slice(sampling_mask, len(kspace)), strict=True)
    return sum(int(np.count_nonzero(one.any(axis=0) & ~inside)) for one, inside in pairs)


def by_slice(sampling_mask: np.ndarray, slices: int) -> Iterator[np.ndarray]:
    """Yield the mask (rows or 1, cols) of each slice."""
    yield from np.broadcast_to(sampling_mask, (slices, *sampling_mask.shape[1:]))


def describe_zero_padding(sampling_mask: np.ndarray, rows: int) -> list[str]:
    """Return a sentence for each axis along which an inferred mask looks like that of zero-padded k-space, or none.

    Rows: some at both ends were measured in no column, and between them whole columns. Columns: at both ends more are
    missing side by side than anywhere between. Neither can be proved: zeros are the only sign.

    Args:
        sampling_mask: (slices or 1, rows or 1, cols) bool, from `infer_sampling_mask`.
        rows: of k-space.
    """
    top, bottom = _measured_range(np.asarray(sampling_mask.any(axis=(0, 2))))
    bottom = rows if sampling_mask.shape[1] == 1 else bottom
    acquired = sampling_mask[:, top:bottom]
    if not acquired.any() or not all(_whole_columns(mask) for mask in acquired):
        return []
    remarks = []
    if top > 0 and bottom < rows:
        remarks.append(
            f"rows 0 to {top - 1} and {bottom} to {rows - 1} of {rows} are zero in every column, as if the readout had"
            " been zero-padded: the mask counts them as not measured, so that it is one of rows and columns, the"
            " readout is not cropped, and those rows are filled in; cut to what was acquired,"
            f" kspace[..., {top}:{bottom}, :], the mask is one of columns"
        )
    columns = np.asarray(acquired.any(axis=(0, 1)))
    cols = len(columns)
    left, right = _measured_range(columns)
    gap = max(np.diff(np.flatnonzero(columns)), default=1) - 1
    if min(left, cols - right) > gap:
        count = int(columns.sum())
        remarks.append(
            f"columns 0 to {left - 1} and {right} to {cols - 1} of {cols} are zero, as if k-space had been zero-padded:"
            f" the mask counts them as not measured, {count} of {cols} columns (acceleration {cols / count:.3g}) where"
            f" {count} of {right - left} between them were ({(right - left) / count:.3g}), and they are filled in; cut"
            f" to what was acquired it is kspace[..., {left}:{right}]"
        )
    return remarks


def _whole_columns(mask: np.ndarray) -> bool:
    """Tell whether each column of a mask (rows, cols) that holds data was measured as a whole, but for chance zeros."""
    return bool((mask[:, mask.any(axis=0)].mean(axis=0) >= READ_OUT_SHARE).all())


def _measured_range(flags: np.ndarray) -> tuple[int, int]:
    """Return start and stop of the range that holds all True entries of (n,) bool; (0, 0) where there are none."""
    places = np.flatnonzero(flags)
    return (int(places[0]), int(places[-1]) + 1) if len(places) else (0, 0)

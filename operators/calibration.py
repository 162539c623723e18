"""The fully sampled centre of k-space, and the matrix of its overlapping blocks."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from operators.fourier import centred_ifft
from operators.linear import require_complex
from operators.sampling import as_mask


def calibration_region(
    kspace: Tensor, sampling_mask: Tensor | np.ndarray, min_width: int = 6, max_shape: tuple[int, int] = (24, 24)
) -> Tensor:
    """Return the largest fully sampled block around the zero frequency, at most `max_shape` samples.

    Args:
        kspace: (batch, coil, rows, cols) complex, zero frequency at index n // 2.
        sampling_mask: (batch or 1, rows, cols) bool or 0/1, NumPy or torch, with size 1 along fully sampled axes, or
            (cols,). Masks that differ over the batch give the block that all of them sample.
        min_width: the block must be at least this wide along both axes; maps from fewer lines are not worth having.
        max_shape: most rows and columns. More than 24 x 24, the usual choice, costs time and gives the same maps.

    Returns:
        (batch, coil, r, c), a view of the k-space. Rows are symmetric about the zero frequency to within one sample, so
        are columns where more than `max_shape` of them are sampled.

    Raises:
        TypeError: when the k-space is not complex.
        ValueError: when shapes do not fit, or the block is smaller than `min_width`.
    """
    require_complex("calibration_region", "k-space", kspace)
    mask = as_mask(sampling_mask, 2, kspace.device)
    shape, mask_shape = tuple(kspace.shape), tuple(mask.shape)
    expected = (shape[0], *shape[2:])
    if len(shape) != 4 or any(m not in (1, n) for m, n in zip(mask_shape, expected, strict=True)):
        raise ValueError(
            f"calibration_region: k-space {shape} does not fit the sampling mask {mask_shape},"
            " expected (batch, coil, rows, cols) and (batch or 1, rows or 1, cols or 1)"
        )
    rows, cols = shape[2:]
    sampled = mask.all(dim=0).expand(rows, cols)
    first_row, first_col, n_rows, n_cols = 0, 0, 0, 0
    whole = torch.ones(cols, dtype=torch.bool, device=sampled.device)
    for half in range(1, min(rows, max(max_shape[0], 2)) // 2 + 1):
        whole = whole & sampled[rows // 2 - half] & sampled[rows // 2 + half - 1]
        start, width = _central_run(whole, max_shape[1])
        if 2 * half * width > n_rows * n_cols:
            first_row, first_col, n_rows, n_cols = rows // 2 - half, start, 2 * half, width
    if min(n_rows, n_cols) < min_width:
        raise ValueError(
            f"calibration_region: the fully sampled centre of k-space {shape} is {n_rows} x {n_cols} samples,"
            f" expected at least {min_width} x {min_width}: sample more central lines, or give sensitivity"
            " maps of another scan"
        )
    return kspace[:, :, first_row : first_row + n_rows, first_col : first_col + n_cols]


def calibration_matrix(calibration_kspace: Tensor, kernel_shape: tuple[int, int], row_stride: int = 1) -> Tensor:
    """Return the matrix whose rows are the overlapping blocks of a calibration region, coils side by side.

    Args:
        calibration_kspace: (..., coil, rows, cols).
        kernel_shape: (height, width) of a block in samples.
        row_stride: distance between blocks along the rows.

    Returns:
        (..., blocks, coil * height * width).

    Source: P. J. Shin et al., Calibrationless parallel imaging reconstruction based on structured low-rank matrix
    completion, Magn. Reson. Med. 72, 959-970, 2014; M. Uecker et al., ESPIRiT, Magn. Reson. Med. 71, 990-1001, 2014.
    """
    height, width = kernel_shape
    blocks = calibration_kspace.unfold(-2, height, row_stride).unfold(-2, width, 1)  # (..., coil, m, n, height, width)
    return blocks.movedim(-5, -3).flatten(-5, -4).flatten(-3)


def _central_run(sampled: Tensor, longest: int) -> tuple[int, int]:
    """Return start and length of the run of True that holds index n // 2, cut to its central `longest` entries."""
    centre = len(sampled) // 2
    if not bool(sampled[centre]):
        return centre, 0
    gaps = torch.nonzero(~sampled).flatten()
    before, after = gaps[gaps < centre], gaps[gaps > centre]
    start = int(before[-1]) + 1 if len(before) else 0
    stop = int(after[0]) if len(after) else len(sampled)
    if stop - start > longest:
        start = min(max(start, centre - longest // 2), stop - longest)
        stop = start + longest
    return start, stop - start


def low_resolution(region: Tensor, shape: torch.Size | list[int] | tuple[int, ...]) -> tuple[Tensor, float]:
    """Return coil images (batch, coil, *shape) of a Hann-windowed calibration region (batch, coil, rows, cols).

    They are right up to a phase that all coils share. The second value is the energy that white noise of unit variance
    has in one of them.
    """
    rows, cols = (
        torch.hann_window(size + 2, periodic=False, dtype=region.real.dtype, device=region.device)[1:-1]
        for size in region.shape[-2:]
    )
    window = rows[:, None] * cols
    padded = region.new_zeros(*region.shape[:2], *shape)
    top, left = (size // 2 - width // 2 for size, width in zip(shape, region.shape[-2:], strict=True))
    padded[..., top : top + len(rows), left : left + len(cols)] = region * window
    return centred_ifft(padded, (-2, -1)), float(window.square().sum())

"""Random masks of one axis and of frames whose number of samples is exact, and at least one.

All functions return bool arrays, True where sampled, with the zero frequency at index n // 2, and draw from a
`numpy.random.Generator` of their own: the global state is never touched. Masks of frames (frames, cols) become
sampling masks of a 2D+time image (batch, time, rows, cols) by `torch.from_numpy(mask)[None, :, None]`.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import gcd

import numpy as np

from operators.masks import center_mask

Seed = int | Sequence[int] | np.random.Generator
GOLDEN_RATIO = (1 + 5**0.5) / 2
# Fixed-point unit of inclusion probabilities: exact sums, and 2^20 columns still fit 64 bits.
UNIT = 2**40


def variable_density_mask(
    cols: int, acceleration: float, seed: Seed, num_low: int = 0, width: float | None = None
) -> np.ndarray:
    """Return a mask (cols,) of exactly `round(cols / R)` columns: the central ones and a random choice of others.

    The others are drawn without replacement, one after another, with chances in proportion to a density: the same for
    all columns, or `exp(-d^2 / (2 width^2))` with d the distance from the zero frequency over cols.

    Args:
        cols: number of columns.
        acceleration: R, at least 1.
        seed: an integer, a sequence of integers, or a `numpy.random.Generator`, which is advanced.
        num_low: number of fully sampled central columns, as in `center_mask`.
        width: standard deviation of the Gaussian density as a fraction of cols; None: uniform density.

    Raises:
        ValueError: when the centre alone is more than R allows, or an argument is out of range.

    Source of the draw: Efraimidis and Spirakis, Weighted random sampling with a reservoir, Inf Process Lett 97, 2006.
    """
    target = sample_count("variable_density_mask", cols, acceleration)
    _check_low("variable_density_mask", num_low, target)
    if width is not None and not width > 0:
        raise ValueError(f"variable_density_mask: width is {width}, expected a positive fraction of cols or None")
    mask = center_mask(cols, num_low)
    distance = (np.arange(cols) - cols // 2) / cols
    log_density = np.zeros(cols) if width is None else -0.5 * (distance / width) ** 2
    # Logarithms, because a narrow density underflows at the edge, from where columns must still come if R asks for it.
    keys = log_density + np.random.default_rng(seed).gumbel(size=cols)
    keys[mask] = np.inf
    mask[np.argsort(-keys, kind="stable")[:target]] = True
    return mask


def kt_interleaved_mask(frames: int, cols: int, acceleration: int, num_low: int = 0, shift: int = 1) -> np.ndarray:
    """Return the sheared lattice (frames, cols) of k-t methods: frame t has the columns c with `(c - shift t) % R = 0`.

    With a shift that has no common factor with R, any R frames in a row sample every column exactly once (outside the
    centre), so that their sum is a fully sampled k-space for the calibration of maps.

    Args:
        frames, cols: size of the mask.
        acceleration: R, a whole number. Frame t has `ceil` or `floor` of cols/R columns, and the centre besides.
        num_low: number of central columns that every frame samples, as in `center_mask`.
        shift: columns by which the comb moves from one frame to the next.

    Raises:
        ValueError: a shift that has a common factor with R, or an argument out of range.

    References: Madore et al., UNFOLD, Magn Reson Med 42, 1999; Kellman et al., TSENSE, Magn Reson Med 45, 2001; Tsao
    et al., k-t BLAST and k-t SENSE, Magn Reson Med 50, 2003.
    """
    _check_frames("kt_interleaved_mask", frames)
    sample_count("kt_interleaved_mask", cols, acceleration)
    if acceleration != int(acceleration):
        raise ValueError(f"kt_interleaved_mask: acceleration is {acceleration}, expected a whole number")
    if gcd(shift, int(acceleration)) != 1:
        raise ValueError(
            f"kt_interleaved_mask: shift {shift} and acceleration {acceleration} have a common factor, so that some"
            " columns would never be sampled, expected none"
        )
    lattice = (np.arange(cols) - shift * np.arange(frames)[:, None]) % int(acceleration) == 0
    return lattice | center_mask(cols, num_low)


def golden_kt_mask(
    frames: int, cols: int, acceleration: float, seed: Seed, num_low: int = 0, edge_to_center: float = 3.0
) -> np.ndarray:
    """Return a mask (frames, cols) of variable density, incoherent in time, with exactly `round(cols / R)` per frame.

    A VISTA-like pattern without its energy minimisation: every frame is a systematic sample of one density, and the
    start advances by the golden ratio from frame to frame. Column c has the probability pi_c of being sampled,
    proportional to `1 / (1 + (edge_to_center - 1) rho)` (rho the distance from the zero frequency over cols/2), at
    most 1, of sum n = round(cols/R). With the cumulative sums C_c, frame t samples the columns where
    `floor(C_c + u_t)` steps up, `u_t = u_0 + t / golden ratio`, u_0 drawn. So neighbours in a frame keep the
    distance that the density asks for, and the fraction of frames that sample c tends to pi_c as fast as it can.

    Args:
        frames, cols: size of the mask.
        acceleration: R, at least 1.
        seed: an integer, a sequence of integers, or a `numpy.random.Generator`, which is advanced by one number.
        num_low: number of central columns that every frame samples, as in `center_mask`.
        edge_to_center: distance of neighbours at the edge over that in the centre, at least 1; 1 is uniform.

    Raises:
        ValueError: when the centre alone is more than R allows, or an argument is out of range.

    References: Madow, Ann Math Stat 20, 1949 (systematic sampling); Joshi et al., arXiv:2206.03630 (golden-ratio
    offsets of a variable-density Cartesian pattern); Ahmad et al., VISTA, Magn Reson Med 74, 2015.
    """
    _check_frames("golden_kt_mask", frames)
    target = sample_count("golden_kt_mask", cols, acceleration)
    _check_low("golden_kt_mask", num_low, target)
    if not 1 <= edge_to_center < np.inf:
        raise ValueError(f"golden_kt_mask: edge_to_center is {edge_to_center}, expected at least 1")
    distance = np.abs(np.arange(cols) - cols // 2) / (cols / 2)
    density = 1 / (1 + (edge_to_center - 1) * distance)
    probability = _inclusion(density, target, center_mask(cols, num_low))
    sums = np.concatenate(([0], np.cumsum(probability)))
    start = np.random.default_rng(seed).random()
    offsets = (np.mod(start + np.arange(frames) / GOLDEN_RATIO, 1) * UNIT).astype(np.int64)
    return np.diff((sums + offsets[:, None]) // UNIT, axis=1) == 1


def sample_count(who: str, total: int, acceleration: float) -> int:
    """Return `round(total / acceleration)`, half to even, at least 1; raise ValueError for arguments out of range."""
    if total < 1:
        raise ValueError(f"{who}: the grid has {total} points, expected at least 1")
    if not 1 <= acceleration < np.inf:
        raise ValueError(f"{who}: acceleration is {acceleration}, expected at least 1")
    return max(round(total / acceleration), 1)


def grid_points(who: str, shape: tuple[int, int]) -> int:
    """Return the number of points of the grid (rows, cols); raise ValueError for sizes below 1."""
    if len(shape) != 2 or min(shape) < 1:
        raise ValueError(f"{who}: shape {tuple(shape)}, expected (rows, cols) of at least 1 each")
    return shape[0] * shape[1]


def _inclusion(density: np.ndarray, target: int, always: np.ndarray) -> np.ndarray:
    """Return min(1, a density), 1 where `always`, with a such that the sum is `target`; int64 in units of 1 / UNIT."""
    sure = always.copy()
    while True:
        rest = target - int(sure.sum())
        scaled = np.where(sure, 0.0, density)
        scaled *= rest / max(scaled.sum(), np.finfo(float).tiny)
        if not (scaled > 1).any():
            break
        sure |= scaled > 1
    probability = np.where(sure, UNIT, np.floor(scaled * UNIT)).astype(np.int64)
    # What rounding has taken goes to the columns with room for it, so that the sum is exact.
    room = UNIT - probability
    missing = target * UNIT - int(probability.sum())
    granted = np.clip(missing - np.concatenate(([0], np.cumsum(room)[:-1])), 0, room)
    return probability + granted


def _check_low(who: str, num_low: int, target: int) -> None:
    if not 0 <= num_low <= target:
        raise ValueError(
            f"{who}: {num_low} central columns of the {target} that the acceleration allows, expected 0 to {target}"
        )


def _check_frames(who: str, frames: int) -> None:
    if frames < 1:
        raise ValueError(f"{who}: frames is {frames}, expected at least 1")

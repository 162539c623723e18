"""Sampling masks of one phase-encode axis, bit for bit those of the public fastMRI data loader.

Every function returns a bool array (cols,), True where a column is sampled, the zero frequency at index cols // 2, and
draws from `numpy.random.RandomState`. fastMRI seeds it per volume with the code points of the file name and draws the
pair (center_fraction, acceleration) first, from the same generator:

    generator = np.random.RandomState(file_seed("file1000001.h5"))
    center_fraction, acceleration = draw_acceleration((0.08, 0.04), (4, 8), generator)
    mask = random_mask(368, acceleration, center_fraction, generator)

Source: J. Zbontar et al., fastMRI: An Open Dataset and Benchmarks for Accelerated MRI, arXiv:1811.08839, and the
conventions of the fastMRI 0.3.0 loader (`round` is Python's, half to even).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

Seed = int | Sequence[int] | np.random.RandomState


def file_seed(path: str | Path) -> tuple[int, ...]:
    """Return the seed fastMRI gives a volume: the code points of its file name, extension included, folder not."""
    name = Path(path).name
    if not name:
        raise ValueError(f"file_seed: {str(path)!r} has no file name")
    return tuple(map(ord, name))


def draw_acceleration(
    center_fractions: Sequence[float],
    accelerations: Sequence[float],
    seed: Seed,
    any_combination: bool = False,
) -> tuple[float, float]:
    """Return a (center_fraction, acceleration) drawn as fastMRI does, before the mask and from the same generator.

    Args:
        center_fractions: fractions of the columns that are fully sampled in the middle.
        accelerations: undersampling factors, paired with the fractions unless `any_combination`.
        seed: an integer, a sequence of integers, or a generator, which is advanced.
        any_combination: draw the two independently.

    A single pair advances the generator by nothing, so that `random_mask(cols, R, f, file_seed(name))` is already what
    fastMRI gives for that pair.

    Raises:
        ValueError: when a list is empty or the lengths of paired lists differ.
    """
    if not center_fractions or not accelerations:
        raise ValueError("draw_acceleration: got an empty list of center fractions or accelerations")
    generator = _generator(seed)
    if any_combination:
        fraction = center_fractions[generator.randint(len(center_fractions))]
        return fraction, accelerations[generator.randint(len(accelerations))]
    if len(center_fractions) != len(accelerations):
        raise ValueError(
            f"draw_acceleration: {len(center_fractions)} center fractions and {len(accelerations)} accelerations,"
            " expected equally many (or any_combination=True)"
        )
    choice = generator.randint(len(center_fractions))
    return center_fractions[choice], accelerations[choice]


def center_mask(cols: int, num_low: int) -> np.ndarray:
    """Return the mask of the `num_low` central columns, the first at `(cols - num_low + 1) // 2`."""
    if not 0 <= num_low <= cols or cols < 1:
        raise ValueError(f"center_mask: {num_low} central columns of {cols}, expected 0 to cols, and cols at least 1")
    mask = np.zeros(cols, dtype=bool)
    start = (cols - num_low + 1) // 2
    mask[start : start + num_low] = True
    return mask


def random_mask(cols: int, acceleration: float, center_fraction: float, seed: Seed) -> np.ndarray:
    """Return the centre and every other column with probability `(cols/R - num_low) / (cols - num_low)`.

    Args:
        cols: number of columns.
        acceleration: R; the EXPECTED number of sampled columns is cols/R.
        center_fraction: `num_low = round(cols * center_fraction)` columns are sampled in the middle.
        seed: an integer, a sequence of integers, or a generator, which is advanced by `cols` uniform numbers.

    Raises:
        ValueError: when the centre alone is more than cols/R (fastMRI then returns the centre, at a lower
            acceleration than asked for), or an argument is out of range.
    """
    num_low = _count_low("random_mask", cols, acceleration, center_fraction)
    draws = _generator(seed).uniform(size=cols)
    if num_low == cols:
        return center_mask(cols, num_low)
    probability = (cols / acceleration - num_low) / (cols - num_low)
    return center_mask(cols, num_low) | (draws < probability)


def equispaced_fraction_mask(
    cols: int, acceleration: float, center_fraction: float, seed: Seed, offset: int | None = None
) -> np.ndarray:
    """Return the centre and a comb whose spacing is widened so that cols/R columns are sampled in all, approximately.

    The comb is `around(arange(offset, cols - 1, R'))`, `R' = R (num_low - cols) / (num_low R - cols)`, so that its
    steps differ by one where R' is fractional, and the last column is never part of it. The kind that matches the
    masks of the public fastMRI test data.

    Args:
        cols, acceleration, center_fraction, seed: as for `random_mask`.
        offset: first column of the comb; drawn from 0 to round(R') - 1 when None.

    Raises:
        ValueError: when the centre alone is cols/R or more, or an argument is out of range.
    """
    num_low = _count_low("equispaced_fraction_mask", cols, acceleration, center_fraction)
    if num_low * acceleration == cols:
        raise ValueError(
            f"equispaced_fraction_mask: the {num_low} central columns of {cols} are all that acceleration"
            f" {acceleration:g} allows, expected a smaller center fraction"
        )
    spacing = (acceleration * (num_low - cols)) / (num_low * acceleration - cols)
    offset = _offset("equispaced_fraction_mask", offset, round(spacing), cols, seed)
    mask = center_mask(cols, num_low)
    mask[np.around(np.arange(offset, cols - 1, spacing)).astype(int)] = True
    return mask


def equispaced_mask(
    cols: int, acceleration: float, center_fraction: float, seed: Seed, offset: int | None = None
) -> np.ndarray:
    """Return the centre and every R-th column: the older fastMRI kind, which samples MORE than cols/R columns.

    Args:
        cols, center_fraction, seed: as for `random_mask`.
        acceleration: R, a whole number: the spacing of the comb.
        offset: first column of the comb; drawn from 0 to R - 1 when None.

    Raises:
        ValueError: when R is not whole, or an argument is out of range.
    """
    num_low = _count_low("equispaced_mask", cols, acceleration, center_fraction, reach=False)
    step = _whole("equispaced_mask", acceleration)
    offset = _offset("equispaced_mask", offset, step, cols, seed)
    mask = center_mask(cols, num_low)
    mask[offset::step] = True
    return mask


def magic_mask(
    cols: int, acceleration: float, center_fraction: float, seed: Seed, offset: int | None = None
) -> np.ndarray:
    """Return the centre and a comb of spacing R, shifted between the two halves of k-space.

    The shift makes the conjugate of a sampled column an unsampled one, which an image with little phase profits from.
    Like `equispaced_mask`, it samples more than cols/R columns.

    Source: A. Defazio, Offset Sampling Improves Deep Learning based Accelerated MRI Reconstructions by Exploiting
    Symmetry, arXiv:1912.01101.

    Args:
        cols, acceleration, center_fraction, seed, offset: as for `equispaced_mask`.
    """
    num_low = _count_low("magic_mask", cols, acceleration, center_fraction, reach=False)
    step = _whole("magic_mask", acceleration)
    return center_mask(cols, num_low) | _magic_comb(cols, step, _offset("magic_mask", offset, step, cols, seed))


def magic_fraction_mask(
    cols: int, acceleration: float, center_fraction: float, seed: Seed, offset: int | None = None
) -> np.ndarray:
    """Return `magic_mask` with the comb widened so that about cols/R columns are sampled in all.

    The centre is bounded by 1 and `target = round(cols/R)` columns, and the comb's spacing is
    `round(cols / (target - num_low))`; there is no comb when the centre takes the whole target.

    Args:
        cols, acceleration, center_fraction, seed: as for `random_mask`.
        offset: as for `equispaced_mask`, below the widened spacing.
    """
    num_low = _count_low("magic_fraction_mask", cols, acceleration, center_fraction, reach=False)
    target = round(cols / acceleration)
    num_low = max(min(num_low, target), 1)
    if target <= num_low:
        return center_mask(cols, num_low)
    step = round(cols / (target - num_low))
    offset = _offset("magic_fraction_mask", offset, step, cols, seed)
    return center_mask(cols, num_low) | _magic_comb(cols, step, offset)


def _magic_comb(cols: int, step: int, offset: int) -> np.ndarray:
    positive_offset, negative_offset = (offset + 1, offset + 2) if offset % 2 == 0 else (offset + 2, offset - 1)
    n_positive = (cols + 1) // 2
    positive, negative = np.zeros(n_positive, dtype=bool), np.zeros(cols - n_positive, dtype=bool)
    positive[positive_offset::step] = True
    negative[negative_offset::step] = True
    return np.concatenate((negative[::-1], positive))


def _generator(seed: Seed) -> np.random.RandomState:
    return seed if isinstance(seed, np.random.RandomState) else np.random.RandomState(seed)


def _count_low(who: str, cols: int, acceleration: float, center_fraction: float, reach: bool = True) -> int:
    if cols < 1:
        raise ValueError(f"{who}: cols is {cols}, expected at least 1")
    if not 1 <= acceleration < np.inf:
        raise ValueError(f"{who}: acceleration is {acceleration}, expected at least 1")
    if not 0 <= center_fraction <= 1:
        raise ValueError(f"{who}: center_fraction is {center_fraction}, expected 0 to 1")
    num_low = round(cols * center_fraction)
    if reach and num_low * acceleration > cols:
        raise ValueError(
            f"{who}: the {num_low} central columns of {cols} are more than acceleration {acceleration:g} allows"
            f" ({cols / acceleration:.1f}), expected a smaller center fraction or acceleration"
        )
    return num_low


def _whole(who: str, acceleration: float) -> int:
    if acceleration != int(acceleration):
        raise ValueError(f"{who}: acceleration is {acceleration}, expected a whole number")
    return int(acceleration)


def _offset(who: str, offset: int | None, high: int, cols: int, seed: Seed) -> int:
    if offset is None:
        return int(_generator(seed).randint(0, high=high))
    if not 0 <= offset < cols:
        raise ValueError(f"{who}: offset is {offset}, expected 0 to {cols - 1}")
    return offset

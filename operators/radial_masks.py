"""Spokes through the middle of k-space, drawn on the Cartesian grid (pseudo-radial sampling)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from operators.density_masks import Seed, grid_points, sample_count

GOLDEN_ANGLE = np.pi * (5**0.5 - 1) / 2


def radial_mask(shape: tuple[int, int], n_spokes: int, first_angle: float = 0.0, golden: bool = False) -> np.ndarray:
    """Return a mask (rows, cols) of `n_spokes` straight lines through the zero frequency.

    Spoke k has the angle `first_angle + k pi / n_spokes`, or `first_angle + k (golden angle)` of 111.25 degrees, from
    the direction of the columns axis, counted in a grid stretched to a square. It is drawn one grid point a step
    along the axis on which it is longer, from edge to edge.

    Args:
        shape: (rows, cols) of the grid; the zero frequency is at (rows // 2, cols // 2).
        n_spokes: number of lines, at least 1.
        first_angle: in radians.
        golden: golden-angle increments, which cover the circle about evenly for every number of spokes.

    Raises:
        ValueError: sizes or numbers below 1.

    References: Candes, Romberg and Tao, IEEE Trans Inf Theory 52, 2006 (the star-shaped domain); Winkelmann et al.,
    IEEE Trans Med Imaging 26, 2007 (the golden angle).
    """
    if n_spokes < 1:
        raise ValueError(f"radial_mask: n_spokes is {n_spokes}, expected at least 1")
    grid_points("radial_mask", shape)
    step = GOLDEN_ANGLE if golden else np.pi / n_spokes
    mask = np.zeros(shape, dtype=bool)
    for k in range(n_spokes):
        mask[_spoke(shape, first_angle + k * step)] = True
    return mask


def pseudo_radial_mask(shape: tuple[int, int], acceleration: float, seed: Seed) -> np.ndarray:
    """Return golden-angle spokes (rows, cols) with exactly `round(rows cols / R)` samples.

    The first angle is drawn; spokes are added until the number is reached, the last one from the middle outwards as
    far as it goes. Should the spokes leave points that they never meet (R near 1), the rest is drawn at random.

    Args:
        shape: (rows, cols) of the grid; the zero frequency is at (rows // 2, cols // 2).
        acceleration: R, at least 1.
        seed: an integer, a sequence of integers, or a `numpy.random.Generator`, which is advanced.

    Raises:
        ValueError: an argument out of range.
    """
    target = sample_count("pseudo_radial_mask", grid_points("pseudo_radial_mask", shape), acceleration)
    generator = np.random.default_rng(seed)
    mask = np.zeros(shape, dtype=bool)
    left = target
    for row, col in _golden_spokes(shape, float(generator.random()) * np.pi):
        new = ~mask[row, col]
        row, col = row[new][:left], col[new][:left]
        mask[row, col] = True
        left -= len(row)
        if left == 0:
            break
    mask.flat[generator.permutation(np.flatnonzero(~mask))[:left]] = True
    return mask


def _golden_spokes(shape: tuple[int, int], first_angle: float) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (rows, cols) of golden-angle spokes from the middle outwards: about four for each point of the border."""
    for k in range(8 * sum(shape)):
        row, col = _spoke(shape, first_angle + k * GOLDEN_ANGLE)
        order = np.argsort(np.hypot(row - shape[0] // 2, col - shape[1] // 2), kind="stable")
        yield row[order], col[order]


def _spoke(shape: tuple[int, int], angle: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the grid points (rows, cols) of the line at `angle` through the zero frequency."""
    rows, cols = shape
    down, right = np.sin(angle) * rows, np.cos(angle) * cols
    if abs(right) >= abs(down):
        col = np.arange(cols) - cols // 2
        row = np.rint(col * (down / right)).astype(np.int64)
    else:
        row = np.arange(rows) - rows // 2
        col = np.rint(row * (right / down)).astype(np.int64)
    row, col = row + rows // 2, col + cols // 2
    inside = (row >= 0) & (row < rows) & (col >= 0) & (col < cols)
    return row[inside], col[inside]

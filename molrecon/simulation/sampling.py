"""Sampling of simulated scans: random, equispaced and variable-density lines, 2D masks, partial Fourier."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from operators import (
    center_mask,
    equispaced_fraction_mask,
    equispaced_mask,
    poisson_disc_mask,
    random_mask,
    variable_density_mask,
)

ACCELERATIONS = (2.0, 10.0)
CALIBRATION_LINES = (8, 40)
TWO_DIMENSIONAL = 0.1  # share of the problems that are undersampled along the rows too
PARTIAL_FOURIER = 0.12  # share of those undersampled along the columns only that miss an end of k-space
NEAREST_LINES = 1.3  # the lines of a scan are at least so many times those of its calibration region


def draw_calibration_lines(cols: int, rng: np.random.Generator) -> int:
    """Return 8 to 40 central lines, uniform in the logarithm, at most 0.3 of the columns."""
    low, high = CALIBRATION_LINES
    return int(np.exp(rng.uniform(math.log(low), math.log(max(low + 1, min(high, 0.3 * cols))))))


def draw_columns(
    cols: int, lines: int, rng: np.random.Generator, measured: np.ndarray | None = None, wrapped: float = 1.0
) -> np.ndarray:
    """Return a mask (cols,) bool of sampled columns with `lines` in the middle.

    Accelerations are 2 to 10, uniform in the logarithm, but for wide centres. Of 20 masks, 9 are random with a uniform
    density, 8 equispaced, 3 random with a density that falls towards the edges. In one of eight, one end of k-space is
    not measured: five to seven eighths of the columns are left.

    Args:
        cols: number of columns.
        lines: central columns that are always sampled.
        rng: source of all randomness.
        measured: (cols,) bool, columns of the acquired matrix where the image's grid is larger; None for all.
        wrapped: the object is so many times as wide as its view, which saves as much: accelerations are less by that.
    """
    low, high = ACCELERATIONS[0], max(ACCELERATIONS[0], ACCELERATIONS[1] / wrapped)
    most = max(low, min(high, cols / (NEAREST_LINES * lines)))
    acceleration = float(np.exp(rng.uniform(math.log(low), math.log(most))))
    fraction, seed, kind = lines / cols, int(rng.integers(2**31)), rng.random()
    if kind < 0.45:
        mask = random_mask(cols, acceleration, fraction, seed)
    elif kind < 0.65:
        mask = equispaced_fraction_mask(cols, acceleration, fraction, seed)
    elif kind < 0.85:
        mask = equispaced_mask(cols, max(2, round(acceleration)), fraction, seed)
    else:
        mask = variable_density_mask(cols, acceleration, seed, lines, rng.uniform(0.15, 0.4))
    if rng.random() < PARTIAL_FOURIER:
        missing = round(cols * (1 - rng.uniform(5 / 8, 7 / 8)))
        place = np.arange(cols)
        mask = mask & ((place >= missing) if rng.random() < 0.5 else (place < cols - missing))
        mask |= center_mask(cols, lines)
    return mask if measured is None else mask & measured


def draw_plane(shape: tuple[int, int], lines: int, rng: np.random.Generator, wrapped: float = 1.0) -> np.ndarray:
    """Return a mask (rows, cols) bool, undersampled 3 to 10 times along both axes around a centre of 24 x `lines`.

    Where the object is `wrapped` times as wide as its view the 10 is less by as much. Half of the masks keep their
    distance (Poisson disc), half are random with a density that falls towards the edges.
    """
    rows, cols = shape
    centre = (min(rows, 24), lines)
    acceleration = min(rng.uniform(3, max(3.0, 10 / wrapped)), rows * cols / (NEAREST_LINES * math.prod(centre)))
    if rng.random() < 0.5:
        return poisson_disc_mask(shape, acceleration, int(rng.integers(2**31)), centre, rng.uniform(1, 4))
    y, x = np.meshgrid(*[np.abs(np.linspace(-1, 1, n)) for n in shape], indexing="ij")
    density = (1.05 - np.clip(np.hypot(y, x) / np.sqrt(2), 0, 1)) ** rng.uniform(1, 3)
    mask = rng.random(shape) < density * (rows * cols / acceleration / density.sum())
    return np.asarray(mask | np.outer(center_mask(rows, centre[0]), center_mask(cols, lines)))


def draw_mask(
    shape: tuple[int, int], lines: int, rng: np.random.Generator, measured: np.ndarray | None, wrapped: float = 1.0
) -> Tensor:
    """Return a mask (1, 1, cols) or (1, rows, cols) bool; see `draw_columns` and `draw_plane`."""
    if measured is None and rng.random() < TWO_DIMENSIONAL:
        return torch.from_numpy(draw_plane(shape, lines, rng, wrapped))[None]
    return torch.from_numpy(draw_columns(shape[1], lines, rng, measured, wrapped))[None, None]


def draw_matrix(cols: int, rng: np.random.Generator) -> np.ndarray | None:
    """Return the acquired columns (cols,) bool of a zero-padded scan, 0.7 to 0.95 of all; None for nine in ten."""
    if rng.random() >= 0.1:
        return None
    return center_mask(cols, round(cols * rng.uniform(0.7, 0.95)))

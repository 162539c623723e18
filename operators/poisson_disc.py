"""Variable-density Poisson-disc masks with an exact number of samples."""

from __future__ import annotations

import numpy as np

from operators.density_masks import Seed, grid_points, sample_count

# Trials of the radius scale: each costs one pass over the grid, so that the work is bounded whatever is asked for.
MAX_TRIALS = 16
# Samples above the target that are removed at random rather than by another trial.
EXCESS = 0.01


def poisson_disc_mask(
    shape: tuple[int, int],
    acceleration: float,
    seed: Seed,
    calibration: tuple[int, int] = (0, 0),
    edge_to_center: float = 3.0,
    crop_corners: bool = False,
) -> np.ndarray:
    """Return a mask (rows, cols) of random points that keep their distance: exactly `round(rows cols / R)` of them.

    Grid points are visited in random order, and one is taken unless a point taken before forbids it. A taken point p
    forbids all points nearer than its radius, in grid steps,

        r(p) = s (1 + (edge_to_center - 1) rho(p)),

    with rho the distance from the zero frequency divided by half the size of the grid along each axis, at most 1.
    Squared radii are rounded up or down at random, in the mean to themselves, so that the number of points falls
    smoothly with s. Bisection on s finds the largest s that yields enough points, and the excess, mostly below one
    percent, is removed at random, which keeps distances. Two samples p, q outside the calibration region hence lie at
    least sqrt(floor(min(r(p), r(q))^2)) apart. There are at most 16 passes over the grid, and s small enough takes
    every point: the function always returns, and in well below a second for 256 x 256.

    Args:
        shape: (rows, cols) of the grid; the zero frequency is at (rows // 2, cols // 2).
        acceleration: R, at least 1; all points of the grid count, cropped corners too. One sample is always taken.
        seed: an integer, a sequence of integers, or a `numpy.random.Generator`, which is advanced.
        calibration: (rows, cols) of the fully sampled region in the middle.
        edge_to_center: radius at the edge over radius in the centre, at least 1; 1 is a uniform density.
        crop_corners: leave out the points with rho > 1 before it is limited: outside the ellipse in the grid.

    Raises:
        ValueError: when the calibration region holds more samples than R allows or the ellipse too few points, or an
            argument is out of range.

    References: Bridson, Fast Poisson disk sampling in arbitrary dimensions, SIGGRAPH sketches, 2007 (the property);
    Lustig and Pauly, SPIRiT, Magn Reson Med 64, 2010 (variable density, calibration region).
    """
    target = sample_count("poisson_disc_mask", grid_points("poisson_disc_mask", shape), acceleration)
    if not 1 <= edge_to_center < np.inf:
        raise ValueError(f"poisson_disc_mask: edge_to_center is {edge_to_center}, expected at least 1")
    if not (0 <= calibration[0] <= shape[0] and 0 <= calibration[1] <= shape[1]):
        raise ValueError(f"poisson_disc_mask: calibration region {calibration}, expected at most {shape}")
    mask, distance = np.zeros(shape, dtype=bool), _normalised_distance(shape)
    start = [(n - c + 1) // 2 for n, c in zip(shape, calibration, strict=True)]
    mask[start[0] : start[0] + calibration[0], start[1] : start[1] + calibration[1]] = True
    candidates = ~mask & (distance <= 1) if crop_corners else ~mask
    n_outside = target - int(mask.sum())
    if not 0 <= n_outside <= candidates.sum():
        raise ValueError(
            f"poisson_disc_mask: {target} samples at acceleration {acceleration:g}, of which {mask.sum()} in the"
            f" calibration region and {candidates.sum()} possible elsewhere, expected another acceleration"
        )
    generator = np.random.default_rng(seed)
    order = generator.permutation(np.flatnonzero(candidates))
    rounding = generator.random(shape)
    growth = 1 + (edge_to_center - 1) * np.minimum(distance, 1)
    chosen = _search(order, growth, rounding, n_outside)
    mask.flat[generator.permutation(chosen)[:n_outside]] = True
    return mask


def _search(order: np.ndarray, growth: np.ndarray, rounding: np.ndarray, n_samples: int) -> np.ndarray:
    """Return at least `n_samples` points, as flat indices, from the largest radius scale found to yield so many."""
    best = order
    if n_samples == 0 or len(best) <= n_samples * (1 + EXCESS):
        return best
    # The number of points falls like s^-2: a guess from the last trial, kept inside the bracket.
    low, high = 0.0, float(np.hypot(*growth.shape))
    scale = float(np.sqrt(len(order) / n_samples / np.mean(growth**2)))
    for _ in range(MAX_TRIALS):
        if not low < scale < high:
            scale = (low + high) / 2
        points = _take(order, np.floor((scale * growth) ** 2 + rounding).astype(np.int64))
        if len(points) < n_samples:
            high = scale
        else:
            low, best = scale, points if len(points) < len(best) else best
            if len(points) <= n_samples * (1 + EXCESS):
                break
        scale *= float(np.sqrt(len(points) / (n_samples * (1 + EXCESS / 2))))
    return best


def _take(order: np.ndarray, squared_radii: np.ndarray) -> np.ndarray:
    """Return those of the points `order` that no point taken before is nearer to than its radius."""
    rows, cols = squared_radii.shape
    # Beyond the grid there is nothing to forbid.
    squared_radii = np.minimum(squared_radii, rows**2 + cols**2)
    margin = int(np.sqrt(squared_radii.max())) + 1
    width = cols + 2 * margin
    discs: dict[int, tuple[np.ndarray, int]] = {}
    forbidden = np.zeros((rows + 2 * margin, width), dtype=bool)
    flat_forbidden = forbidden.reshape(-1).data
    taken = []
    squared_of, row_of, col_of = squared_radii.flat[order].tolist(), (order // cols).tolist(), (order % cols).tolist()
    for index, squared, row, col in zip(order.tolist(), squared_of, row_of, col_of, strict=True):
        if flat_forbidden[(row + margin) * width + col + margin]:
            continue
        taken.append(index)
        if squared > 1:
            if squared not in discs:
                discs[squared] = _disc(squared)
            disc, reach = discs[squared]
            top, left = row + margin - reach, col + margin - reach
            window = forbidden[top : top + 2 * reach + 1, left : left + 2 * reach + 1]
            np.logical_or(window, disc, out=window)
    return np.array(taken, dtype=np.int64)


def _disc(squared: int) -> tuple[np.ndarray, int]:
    """Return the offsets nearer than sqrt(squared) as a mask (2 reach + 1, 2 reach + 1), and reach."""
    reach = int(np.sqrt(max(squared - 1, 0)))
    steps = np.arange(-reach, reach + 1) ** 2
    return steps[:, None] + steps < squared, reach


def _normalised_distance(shape: tuple[int, int]) -> np.ndarray:
    row, col = ((np.arange(n) - n // 2) / (n / 2) for n in shape)
    return np.hypot(row[:, None], col)

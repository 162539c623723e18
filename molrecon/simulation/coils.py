"""Receive coils of simulated scans: wire loops around the head and the magnetic field they would make.

Source: Roemer et al., The NMR phased array, Magn. Reson. Med. 16 (1990): by reciprocity a coil receives from a place in
proportion to `B_x - i B_y`, the field there of a unit current in the coil, main field along z.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from molrecon.simulation.anatomy import HEAD_SEMI_AXES

__all__ = ["draw_loops", "plane_points", "receive_field", "receive_maps"]


def draw_loops(coils: int, height_mm: float, rng: np.random.Generator) -> list[tuple[complex, np.ndarray]]:
    """Draw the complex gain and the corners (32, 3), in mm, of each loop.

    Rings of up to twelve loops surround the head about height_mm; neighbours overlap a little; places and gains vary.
    """
    rings = -(-coils // 12)
    loops = []
    for c in range(coils):
        ring, place = c % rings, c // rings
        members = -(-(coils - ring) // rings)
        angle = 2 * np.pi * (place + 0.5 * ring / rings) / members + rng.normal(0, 0.05)
        height = height_mm + (ring - (rings - 1) / 2) * 70 + rng.normal(0, 6)
        radius = float(np.clip(np.pi * 140 / members * 1.15, 40, 66))
        outward = np.array([np.cos(angle), np.sin(angle), rng.normal(0, 0.1)])
        outward /= np.linalg.norm(outward)
        centre = np.array([(HEAD_SEMI_AXES[0] + 55) * np.cos(angle), (HEAD_SEMI_AXES[1] + 50) * np.sin(angle), height])
        along = np.cross(outward, [0.0, 0.0, 1.0])
        along /= np.linalg.norm(along)
        turn = 2 * np.pi * np.arange(32) / 32
        corners = centre + radius * (np.cos(turn)[:, None] * along + np.sin(turn)[:, None] * np.cross(outward, along))
        gain = rng.uniform(0.8, 1.2) * np.exp(2j * np.pi * rng.random())
        loops.append((complex(gain), corners))
    return loops


def receive_field(corners: np.ndarray, points: np.ndarray) -> np.ndarray:
    """`B_x - i B_y` of `B = sum dl x r / |r|^3` over the segments of a loop: the law of Biot and Savart, unit current.

    corners (segments, 3) and points (3, n) float32 in mm -> (n,) complex64. `|r|^2` is taken 64 mm^2 larger, a wire of
    finite thickness, so that the field stays finite everywhere.
    """
    following = np.roll(corners, -1, axis=0)
    dl = (following - corners).astype(np.float32)
    middle = ((following + corners) / 2).astype(np.float32)
    squared = (points**2).sum(0)[:, None] - 2 * points.T @ middle.T + (middle**2).sum(1) + np.float32(64.0)
    weight = 1 / (squared * np.sqrt(squared))  # (n, segments)
    dlx, dly, dlz = dl.T
    mx, my, mz = middle.T
    x, y, z = points
    columns = np.stack([dlx, dly, dlz, dly * mz - dlz * my, dlz * mx - dlx * mz], axis=1)
    wx, wy, wz, offset_x, offset_y = (weight @ columns).T
    return (wy * z - wz * y - offset_x) - 1j * (wz * x - wx * z - offset_y)


def receive_maps(
    loops: Sequence[tuple[complex, np.ndarray]],
    heights: Sequence[float],
    shape: tuple[int, int],
    pixel: tuple[float, float],
) -> np.ndarray:
    """Return what loops receive of axial slices, (slices, coils, rows, cols) complex64.

    The root-sum-of-squares over coils is one on average inside the head about the middle of the slices.

    Args:
        loops: complex gain and corners of each, see `draw_loops`.
        heights: of the slices, in mm.
        shape: (rows, cols).
        pixel: spacing of rows and of columns in mm.
    """
    maps = np.empty((len(heights), len(loops), *shape), np.complex64)
    for index, height in enumerate(heights):
        points = plane_points(shape, *pixel, height)
        for c, (gain, loop) in enumerate(loops):
            maps[index, c] = (gain * receive_field(loop, points)).reshape(shape)
    inside = _head_samples((heights[0] + heights[-1]) / 2)
    combined = np.sqrt(sum(np.abs(gain * receive_field(loop, inside)) ** 2 for gain, loop in loops))
    return maps / np.float32(combined.mean())


def plane_points(shape: tuple[int, int], row_mm: float, col_mm: float, height: float) -> np.ndarray:
    """Return positions (3, rows * cols) float32 in mm, rows from front to back, columns from right to left.

    Index n // 2 lies at the origin, as the centred FFT has it.
    """
    y = -(np.arange(shape[0]) - shape[0] // 2) * row_mm
    x = (np.arange(shape[1]) - shape[1] // 2) * col_mm
    grid = np.empty((3, shape[0], shape[1]), np.float32)
    grid[0], grid[1], grid[2] = x[None, :], y[:, None], height
    return grid.reshape(3, -1)


def _head_samples(middle: float) -> np.ndarray:
    """Regular points (3, n) float32 inside the head, in mm, the same for every seed and size."""
    across, along = (np.arange(-a, a, 12.0) for a in HEAD_SEMI_AXES[:2])
    heights = middle + np.array([-15.0, 0.0, 15.0])
    points = np.stack(np.meshgrid(across, along, heights, indexing="ij")).reshape(3, -1).astype(np.float32)
    return points[:, (points[0] / HEAD_SEMI_AXES[0]) ** 2 + (points[1] / HEAD_SEMI_AXES[1]) ** 2 < 1]

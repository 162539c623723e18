"""Receive coils of the phantom: wire loops around the head and the magnetic field they would make.

Source: Roemer et al., The NMR phased array, Magn. Reson. Med. 16 (1990): by reciprocity a coil receives from a place in
proportion to `B_x - i B_y`, the field there of a unit current in the coil, main field along z.
"""

from __future__ import annotations

import numpy as np

from molrecon.io.anatomy import HEAD_SEMI_AXES

__all__ = ["draw_loops", "receive_field"]


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

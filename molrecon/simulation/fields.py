"""Receive fields of simulated scans: 1 to 32 loops, around the object or on one side of it, compressed to a few."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as nnf

from molrecon.simulation.coils import draw_loops, receive_field

COIL_COUNTS = (1, 2, 3, 4, 4, 5, 6, 8, 8, 8, 10, 12, 15, 16, 20, 24, 32)
STRIDE = 6  # pixels between the places where fields are computed; they are smooth


def draw_fields(
    image: np.ndarray, virtual_coils: int, rng: np.random.Generator, count: int | None = None
) -> np.ndarray:
    """Return the receive fields of a random coil, (coil, rows, cols) complex64, compressed where they are many.

    A single coil is uniform or one loop. Of more than `virtual_coils` loops the leading singular vectors of what they
    receive of the image are kept, so that white noise stays white.

    Args:
        image: (rows, cols), the object.
        virtual_coils: the most fields to return.
        rng: source of all randomness.
        count: of loops; drawn from COIL_COUNTS when None.
    """
    count = int(rng.choice(COIL_COUNTS)) if count is None else count
    shape = (image.shape[0], image.shape[1])
    if count == 1 and rng.random() < 0.5:
        return np.ones((1, *shape), np.complex64)
    coarse = _coarse_fields(count, shape, rng)
    if count > virtual_coils:
        places = [np.linspace(0, n - 1, m).round().astype(int) for n, m in zip(shape, coarse.shape[1:], strict=True)]
        received = (coarse * np.abs(image)[np.ix_(*places)]).reshape(count, -1)
        _, vectors = np.linalg.eigh(received @ received.conj().T)
        kept = vectors[:, ::-1][:, :virtual_coils]
        coarse = np.tensordot(kept.conj().T, coarse, 1)
    parts = torch.from_numpy(np.stack([coarse.real, coarse.imag]).astype(np.float32))
    real, imaginary = nnf.interpolate(parts, size=shape, mode="bicubic", align_corners=True)
    return torch.complex(real, imaginary).numpy()


def _coarse_fields(count: int, shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    view = rng.uniform(70, 110)  # mm from the centre to the edge
    aspect = np.array(shape) / max(shape)
    axes = [np.linspace(-view * a, view * a, -(-n // STRIDE) + 1) for a, n in zip(aspect, shape, strict=True)]
    y, x = np.meshgrid(*axes, indexing="ij")
    turn = rng.uniform(0, 2 * np.pi)
    y, x = y + rng.normal(0, 12), x + rng.normal(0, 12)
    points = np.stack([np.cos(turn) * x - np.sin(turn) * y, np.sin(turn) * x + np.cos(turn) * y, np.zeros_like(x)])
    points = points.reshape(3, -1).astype(np.float32)
    one_sided = count > 1 and rng.random() < 0.15
    loops = draw_loops(2 * count if one_sided else count, 0.0, rng)
    if one_sided:
        loops = loops[:count]
    fields = [gain * receive_field(corners.astype(np.float32), points).reshape(y.shape) for gain, corners in loops]
    stacked = np.stack(fields)
    # Scanners and long coils even out what is bright beside a loop, to some degree.
    combined = np.linalg.norm(stacked, axis=0)
    return np.asarray(stacked * (combined / combined.mean()) ** -rng.uniform(0.1, 0.9), np.complex64)

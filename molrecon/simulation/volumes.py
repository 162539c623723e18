"""Simulated multi-coil acquisitions of volumes (2D undersampling) and of image series (k-t undersampling).

A training problem respects the sampling: it has the full extent of the image along the undersampled axes, and a few
positions along the readout, which is fully sampled and whose positions are therefore problems of their own.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as nnf
from torch import Tensor

from molrecon.simulation.calibrated import calibrated
from molrecon.simulation.coils import draw_loops, receive_field
from molrecon.simulation.contrast import augmented_contrast
from molrecon.simulation.noise import draw_noise_level
from molrecon.simulation.phase import rough_phase
from molrecon.simulation.problem import Problem
from molrecon.simulation.strips import NOISE_RANGE
from operators import center_mask, golden_kt_mask, kt_interleaved_mask, poisson_disc_mask, variable_density_mask

MOST_DRAWS = 20  # of a crop that shows enough, and of a mask that can be calibrated
FILLED = (0.75, 1.0)  # of the columns of a window by the frames: what the view cuts has no single set of maps
CALIBRATION = 8  # central columns that all frames of a series together sample


def resampled(volume: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """Return the magnitude of a volume on a coarser grid of the same field of view: its k-space, cut to `shape`.

    Raises:
        ValueError: a shape that is larger than the volume's.
    """
    if any(n > old for n, old in zip(shape, volume.shape, strict=True)):
        raise ValueError(f"resampled: shape {shape}, expected none larger than the volume's {volume.shape}")
    spectrum = torch.from_numpy(np.ascontiguousarray(volume))
    for axis, n in enumerate(shape):
        line, old = torch.fft.fft(spectrum, dim=axis), volume.shape[axis]
        lowest = [line.narrow(axis, 0, n - n // 2), line.narrow(axis, old - n // 2, n // 2)]
        spectrum = torch.fft.ifft(torch.cat(lowest, axis), dim=axis) * (n / old)
    return spectrum.abs().numpy()


def slab_problem(
    volume: np.ndarray,
    shape: tuple[int, int, int],
    readout: int,
    rng: np.random.Generator,
    *,
    coils: int = 8,
    acceleration: tuple[float, float] = (4.0, 8.0),
    turned: bool = True,
) -> Problem:
    """Return the reconstruction of a slab of a volume, undersampled along the two axes that are not the readout.

    A random part of the volume in a random orientation, with augmented contrast, a phase that follows the anatomy in
    part (`phase.rough_phase`), the receive fields of wire loops, complex noise, and estimated maps (`calibrated`).

    Args:
        volume: (any, any, any) magnitudes; zeros continue it where it is smaller than the slab.
        shape: of the slab.
        readout: the fully sampled axis of the slab, 0 to 2.
        rng: source of all randomness.
        coils: number of coils.
        acceleration: range of R.
        turned: whether the volume is put into a random orientation first.
    """
    magnitude = augmented_contrast(_crop(volume, shape, rng, turned).astype(np.complex64), rng).real.clip(0)
    plane = [n for axis, n in enumerate(shape) if axis != readout]
    mask = np.expand_dims(plane_mask((plane[0], plane[1]), rng.uniform(*acceleration), rng), readout)
    longest = max(shape)
    along = rng.uniform(-0.4, 0.4)
    axes = [np.linspace(-n, n, n) / longest + (along if axis == readout else 0) for axis, n in enumerate(shape)]
    view = rng.uniform(105, 135)  # mm from the centre to the edge
    millimetres = np.stack(np.meshgrid(*[view * axis for axis in axes], indexing="ij")).astype(np.float32)
    fields = _fields(coils, rng.permutation(millimetres.reshape(3, -1)), rng).reshape(coils, *shape)
    image = magnitude * np.exp(1j * (_phase(axes, rng) + rough_phase(magnitude, rng)))
    return calibrated(image * fields, mask, 3, readout, draw_noise_level(rng, NOISE_RANGE), rng)


def window_problem(
    series: np.ndarray,
    shape: tuple[int, int, int],
    rng: np.random.Generator,
    *,
    coils: int = 8,
    acceleration: tuple[float, float] = (5.0, 10.0),
    moving: bool = True,
) -> Problem:
    """Return the reconstruction of a window (time, rows, cols) of an image series, undersampled in columns and time.

    The frames fill 0.75 to 1 of the columns, zeros the rest; of their rows, the readout, it shows as many as `shape`
    says, of a random part. With `moving`, a smooth periodic contraction about a random place, a drift, and an uptake of
    contrast there are added: a single frame (1, rows, cols) becomes a series that way. Phase, coils and noise as in
    `slab_problem`; the phase changes slowly.

    Args:
        series: (time, rows, cols) magnitudes; one frame, or at least as many as `shape` has.
        shape: (time, rows, cols) of the window.
        rng: source of all randomness.
        coils: number of coils.
        acceleration: range of R.
        moving: whether motion and uptake are simulated.

    Raises:
        ValueError: a series of fewer frames than the window, but more than one.
    """
    frames, rows, cols = shape
    if 1 < len(series) < frames:
        raise ValueError(f"window_problem: a series of {len(series)} frames, expected 1 or at least {frames}")
    for _ in range(MOST_DRAWS):
        magnitude = _window(series, shape, rng, moving)
        if np.mean(magnitude > 0.1 * np.quantile(series[0], 0.998)) > 0.15:
            break
    magnitude = magnitude ** rng.uniform(0.6, 1.4)
    for _ in range(MOST_DRAWS):
        mask = frame_mask(frames, cols, rng.uniform(*acceleration), rng)[:, None]
        if mask[..., cols // 2 - CALIBRATION // 2 :][..., :CALIBRATION].any(axis=0).all():
            break
    across = np.linspace(-1, 1, cols)
    down = np.linspace(-rows, rows, rows) / cols + rng.uniform(-0.5, 0.5)
    view = rng.uniform(105, 135)
    points = np.stack(np.meshgrid(view * down, view * across, indexing="ij")).astype(np.float32).reshape(2, -1)
    points = np.concatenate([rng.permutation(points), np.zeros((1, rows * cols), np.float32)])
    fields = _fields(coils, points, rng).reshape(coils, 1, rows, cols)
    phase = _phase([np.linspace(-1, 1, frames) * rng.uniform(0, 0.3), down, across], rng)
    phase = phase + rough_phase(magnitude.mean(0), rng)
    return calibrated(magnitude * np.exp(1j * phase) * fields, mask, 2, 1, draw_noise_level(rng, NOISE_RANGE), rng)


def plane_mask(shape: tuple[int, int], acceleration: float, rng: np.random.Generator) -> np.ndarray:
    """Return a mask (rows, cols) of two undersampled axes: a Poisson disc or random points, denser in the middle."""
    calibration = (2 * int(rng.integers(4, 7)), 2 * int(rng.integers(4, 7)))
    if rng.random() < 0.6:
        growth, corners = float(rng.uniform(1, 4)), bool(rng.random() < 0.5)
        return poisson_disc_mask(shape, acceleration, rng, calibration, growth, corners)
    y, x = np.meshgrid(*[np.abs(np.linspace(-1, 1, n)) for n in shape], indexing="ij")
    density = rng.uniform(1, 4) * np.log(1.05 - np.hypot(y, x) / np.sqrt(2))
    sure = center_mask(shape[0], calibration[0])[:, None] & center_mask(shape[1], calibration[1])
    # The largest of log-densities plus Gumbel noise are a draw without replacement.
    order = np.argsort(np.where(sure, np.inf, density + rng.gumbel(size=shape)), axis=None)
    mask = np.zeros(shape, dtype=bool)
    mask.flat[order[-round(mask.size / acceleration) :]] = True
    return mask


def frame_mask(frames: int, cols: int, acceleration: float, rng: np.random.Generator) -> np.ndarray:
    """Return a k-t mask (frames, cols): golden-ratio steps, a comb that moves with the frames, or random columns."""
    low = int(rng.integers(max(1, int(cols / acceleration / 2))))
    kind = rng.random()
    if kind < 0.6:
        return golden_kt_mask(frames, cols, acceleration, rng, low, float(rng.uniform(1, 5)))
    if kind < 0.75:
        return kt_interleaved_mask(frames, cols, round(acceleration), low)
    width = float(rng.uniform(0.15, 0.4))
    return np.stack([variable_density_mask(cols, acceleration, rng, max(low, 2), width) for _ in range(frames)])


def _crop(volume: np.ndarray, shape: tuple[int, int, int], rng: np.random.Generator, turned: bool) -> np.ndarray:
    """Return a part that is not mostly air: the best of a few draws at the worst."""
    level, best, most = 0.1 * float(np.quantile(volume, 0.998)), volume, -1.0
    if turned:
        flips = tuple(slice(None, None, int(s)) for s in rng.choice([-1, 1], 3))
        volume = volume.transpose(rng.permutation(3))[flips]
    margins = [max(0, n - old) for n, old in zip(shape, volume.shape, strict=True)]
    volume = np.pad(volume, [(m // 2, m - m // 2) for m in margins])
    for _ in range(MOST_DRAWS):
        start = [int(rng.integers(old - n + 1)) for n, old in zip(shape, volume.shape, strict=True)]
        part = volume[tuple(slice(s, s + n) for s, n in zip(start, shape, strict=True))]
        shown = float(np.mean(part > level))
        if shown > most:
            best, most = part, shown
        if most > 0.25:
            break
    return best


def _window(series: np.ndarray, shape: tuple[int, int, int], rng: np.random.Generator, moving: bool) -> np.ndarray:
    frames, rows, cols = shape
    stride = int(rng.integers(1, max(1, min(3, (len(series) - 1) // (frames - 1))) + 1)) if len(series) > 1 else 1
    first = int(rng.integers(max(1, len(series) - stride * (frames - 1))))
    source = torch.from_numpy(np.ascontiguousarray(series[first : first + stride * (frames - 1) + 1 : stride]))
    if rng.random() < 0.5:
        source = source.flip(0)
    if rng.random() < 0.5:
        source = source.mT
    scale = min(1.0, rng.uniform(*FILLED) * cols / source.shape[-1])
    source = nnf.interpolate(source[None], scale_factor=scale, mode="bicubic", antialias=True)[0].clamp_min(0)
    height, width = source.shape[1:]
    left, more = int(rng.integers(cols - width + 1)), max(0, rows - height)
    source = nnf.pad(source, (left, cols - width - left, more // 2, more - more // 2)).expand(frames, -1, -1)
    height = source.shape[1]
    top = int(np.clip(rng.normal((height - rows) / 2, height / 10), 0, height - rows))
    if not moving:
        return source[:, top : top + rows].numpy()
    return _animated(source, top, rows, rng).numpy()


def _animated(source: Tensor, top: int, rows: int, rng: np.random.Generator) -> Tensor:
    """Return `rows` rows of the frames from `top` on, set in motion."""
    frames, height, width = source.shape
    t = torch.arange(frames, dtype=torch.float32)[:, None, None]
    y = (top + torch.arange(rows, dtype=torch.float32))[:, None]
    x = torch.arange(width, dtype=torch.float32)[None]
    dy = y - (top + rows * rng.uniform(0.2, 0.8))
    dx = x - width * rng.uniform(0.3, 0.7)
    radius = width * rng.uniform(0.06, 0.16)
    blob = torch.exp(-(dy.square() + dx.square()) / (2 * radius**2))
    beat = torch.sin(np.pi * t / rng.uniform(5, 20) + rng.uniform(0, np.pi)).square()
    stretch = rng.uniform(0, 0.45) * beat * blob
    breath = torch.sin(2 * np.pi * t / rng.uniform(12, 60) + rng.uniform(0, 6.3))
    moved_y = y + dy * stretch + rng.normal(0, 0.8) * breath
    moved_x = x + dx * stretch + rng.normal(0, 0.4) * breath
    grid = torch.stack([(2 * moved_x + 1) / width - 1, (2 * moved_y + 1) / height - 1], dim=-1)
    moved = nnf.grid_sample(source[:, None], grid, mode="bicubic", align_corners=False)[:, 0].clamp_min(0)
    uptake = torch.sigmoid((t - rng.uniform(-0.5, 1.5) * frames) / rng.uniform(0.5, 4))
    return moved * (1 + rng.uniform(0, 2) * uptake * blob.square())


def _phase(axes: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """Return radians on the grid of coordinates that are about 1 at the edges: linear, and four slow waves."""
    grid = np.meshgrid(*axes, indexing="ij")
    phase = rng.uniform(-np.pi, np.pi) + sum(rng.normal(0, 1) * coordinate for coordinate in grid)
    for _ in range(4):
        wave = sum(rng.choice([-1, 1]) * rng.uniform(0.3, 2.2) * coordinate for coordinate in grid)
        phase = phase + rng.normal(0, 0.4) * np.cos(np.pi * wave + rng.uniform(0, 6.3))
    return phase


def _fields(coils: int, points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the receive fields (coil, n) of loops around the head, at points (3, n) in mm turned about the head."""
    turn = rng.uniform(0, 2 * np.pi)
    c, s = np.float32(np.cos(turn)), np.float32(np.sin(turn))
    turned = np.stack([c * points[0] - s * points[1], s * points[0] + c * points[1], points[2]])
    loops = draw_loops(coils, 0.0, rng)
    return np.stack([gain * receive_field(corners.astype(np.float32), turned) for gain, corners in loops])

"""The phase of real scans: smooth, and rough where tissue, fat, air and flow make it so.

Smooth parts come from shims and receivers. Rough parts follow the anatomy: susceptibility seen at the echo time, the
chemical shift of fat, inverted signal, vessels; and some follow nothing that is seen. A prior that is trained without
them learns that images are real but for a smooth factor, and moves what phase adds into ghosts.
"""

from __future__ import annotations

import math

import numpy as np
from scipy import fft, ndimage

AIR = 0.06  # of the robust maximum: what is darker is air or bone


def smooth_phase(shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Return unit complex64 numbers (rows, cols): a constant, a slope and four long waves."""
    y, x = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij")
    phase = rng.uniform(-np.pi, np.pi) + rng.normal(0, 1) * x + rng.normal(0, 1) * y
    for _ in range(4):
        fy, fx = rng.uniform(0.3, 2.2, 2)
        phase = phase + rng.normal(0, 0.4) * np.cos(
            np.pi * (fy * y + rng.choice([-1, 1]) * fx * x) + rng.uniform(0, 6.3)
        )
    return np.exp(1j * phase).astype(np.complex64)


def rough_phase(magnitude: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return an angle like the magnitude, float32, in rad, that follows the anatomy in part.

    Each ingredient is drawn by itself: three band-limited Gaussian fields of 1 to 12 pixels and 0.03 to 0.6 rad (in 8
    of 10 images), a multiple of the high-passed magnitude (5 of 10), a field map (4 of 10), a jump above a threshold
    of the magnitude (3 of 10), by pi in half of them, as inversion recovery leaves it.

    Args:
        magnitude: (rows, cols), or of three axes, not negative.
        rng: source of all randomness.
    """
    m = magnitude / max(float(np.quantile(magnitude, 0.998)), 1e-6)
    angle = np.zeros(m.shape, np.float32)
    if rng.random() < 0.8:
        for _ in range(3):
            angle += _log_uniform(rng, 0.03, 0.6) * band_limited(m.shape, _log_uniform(rng, 1, 12), rng)
    if rng.random() < 0.5:
        angle += float(rng.normal(0, 1.5)) * (m - ndimage.gaussian_filter(m, rng.uniform(2, 10)))
    if rng.random() < 0.4:
        angle += _log_uniform(rng, 0.1, 2.0) * field_map(m, rng)
    if rng.random() < 0.3:
        jump = np.pi if rng.random() < 0.5 else rng.uniform(-np.pi, np.pi)
        angle += np.where(m > rng.uniform(0.2, 0.9), jump, 0).astype(np.float32)
    return angle.astype(np.float32)


def band_limited(shape: tuple[int, ...], scale: float, rng: np.random.Generator) -> np.ndarray:
    """Return white noise smoothed by a Gaussian of `scale` pixels, float32 of unit variance."""
    field = ndimage.gaussian_filter(rng.standard_normal(shape, dtype=np.float32), scale, mode="wrap")
    return np.asarray(field / max(float(field.std()), 1e-9), np.float32)


def field_map(magnitude: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the field that the tissue itself makes, of unit standard deviation where there is tissue.

    `b = F^-1 [(1/3 - (k . B0)^2 / |k|^2) F chi]`, B0 in a random direction; of a slice for an object that is long
    across it, with B0 in the plane. chi is 1 in air and bone, and varies with the magnitude by a tenth of that within
    tissue.

    Args:
        magnitude: (rows, cols), or of three axes, about 1 at its maximum.
        rng: source of all randomness.

    Source: Salomir, de Senneville, Moonen, Concepts Magn. Reson. B 19, 2003 (the dipole kernel).
    """
    air = magnitude < AIR
    chi = air + rng.normal(0, 0.1) * magnitude * ~air
    padded = [fft.next_fast_len(n + n // 2, real=True) for n in magnitude.shape]
    frequencies = [*map(fft.fftfreq, padded[:-1]), fft.rfftfreq(padded[-1])]
    k = np.stack(np.meshgrid(*frequencies, indexing="ij"))
    squared = (k**2).sum(0)
    squared.flat[0] = 1
    kernel = 1 / 3 - np.tensordot(_direction(magnitude.ndim, rng), k, 1) ** 2 / squared
    kernel.flat[0] = 0
    # Beyond the view there is air too.
    spectrum = fft.rfftn((chi - 1).astype(np.float32), padded)
    whole = fft.irfftn(spectrum * kernel.astype(np.float32), padded)
    field = whole[tuple(map(slice, magnitude.shape))]
    tissue = field[~air] if not air.all() else field
    return np.asarray((field - tissue.mean()) / max(float(tissue.std()), 1e-9), np.float32)


def chemical_shift(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the image with its brightest tissue as fat: moved along the rows by 0.3 to 2 pixels, with its own phase.

    Args:
        image: (rows, cols) complex, the readout along the rows' axis.
        rng: source of all randomness.
    """
    magnitude = np.abs(image)
    m = magnitude / max(float(np.quantile(magnitude, 0.998)), 1e-6)
    share = np.clip((m - rng.uniform(0.5, 0.85)) / 0.15, 0, 1)
    fat = image * share
    moved = rng.uniform(0.3, 2.0) * rng.choice([-1, 1])
    shifted = ndimage.shift(fat.real, (moved, 0), order=1) + 1j * ndimage.shift(fat.imag, (moved, 0), order=1)
    return np.asarray(image - fat + shifted * np.exp(1j * rng.uniform(-np.pi, np.pi)), np.complex64)


def residual_angle(image: np.ndarray, scale: float = 6.0) -> np.ndarray:
    """Return the angle of a complex image (rows, cols) against its own low-pass, in rad, faded out where it is dark.

    Args:
        image: complex.
        scale: standard deviation of the Gaussian low-pass in pixels.
    """
    low = ndimage.gaussian_filter(image.real, scale) + 1j * ndimage.gaussian_filter(image.imag, scale)
    magnitude = np.abs(image)
    weight = np.clip(magnitude / max(0.15 * float(np.quantile(magnitude, 0.998)), 1e-9), 0, 1)
    return np.asarray(np.angle(image * low.conj()) * weight, np.float32)


def transplanted(angle: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Return the angle of another scan (rows, cols) on a grid of `shape`, linearly interpolated."""
    zoom = [n / m for n, m in zip(shape, angle.shape, strict=True)]
    return np.asarray(ndimage.zoom(angle, zoom, order=1, grid_mode=True, mode="nearest"), np.float32)


def _direction(ndim: int, rng: np.random.Generator) -> np.ndarray:
    """Return a random unit vector (ndim,)."""
    if ndim == 2:
        turn = rng.uniform(0, np.pi)
        return np.array([math.cos(turn), math.sin(turn)])
    vector = rng.standard_normal(ndim)
    return vector / np.linalg.norm(vector)


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(math.log(low), math.log(high))))

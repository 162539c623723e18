"""Other contrasts of the same anatomy: intensity curves, bright rims, bias fields, the floor of magnitude noise."""

from __future__ import annotations

import numpy as np
from scipy import ndimage


def augmented_contrast(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a complex image of any number of axes with another contrast, its phase kept; maximum about 1.

    Half of them keep their own, but for the scale; the others get a power or a random curve of the magnitude. Three in
    ten have a bright rim besides, as subcutaneous fat makes one.
    """
    magnitude = np.abs(image)
    magnitude = magnitude / max(float(np.quantile(magnitude, 0.998)), 1e-6)
    unit = np.exp(1j * np.angle(image)).astype(np.complex64)
    kind = rng.random()
    new = np.clip(magnitude, 0, 1.5)
    if kind < 0.3:
        new = new ** rng.uniform(0.6, 1.6)
    elif kind < 0.5:
        knots = np.concatenate([[0, 0], rng.uniform(0.1, 1, 4)])
        new = np.interp(new, [0, 0.03, 0.25, 0.5, 0.75, 1.0], knots)
    if rng.random() < 0.3:
        depth = ndimage.distance_transform_edt(ndimage.binary_fill_holes(magnitude > 0.08))
        inner = rng.uniform(1, 4)
        outer = inner + rng.uniform(3, 8)
        rim = ndimage.gaussian_filter(((depth > inner) & (depth < outer)).astype(np.float32), 0.7)
        new = new * (1 + rim * rng.uniform(0.5, 2)) + rim * rng.uniform(0, 0.8)
    return (new * unit).astype(np.complex64)


def without_noise_floor(magnitude: np.ndarray, noise_level: float) -> np.ndarray:
    """Return `sqrt(max(|x|^2 - 3 sigma^2, 0))`: magnitude images are never zero in air, and their floor has no phase.

    Args:
        magnitude: (rows, cols), not negative.
        noise_level: sigma of the complex noise that the magnitude was taken of.
    """
    return np.sqrt(np.maximum(np.square(magnitude) - 3 * noise_level**2, 0)).astype(np.float32)


def bias_field(shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Return a smooth positive field (rows, cols) float32: e to the power of a random quadratic of about 0.3."""
    y, x = np.meshgrid(*[np.linspace(-1, 1, n, dtype=np.float32) for n in shape], indexing="ij")
    a, b, c, d, e = rng.normal(0, 0.2, 5).astype(np.float32)
    return np.exp(a * x + b * y + c * x * y + d * x**2 + e * y**2)

"""A head in millimetres: tissue intensities of an analytic, seeded, three-dimensional brain phantom.

Coordinates are x to the patient's left, y to the front, z to the top, in mm, with the origin between the thalami.
Nothing here knows of pixels: the anatomy can be sampled anywhere.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

HEAD_SEMI_AXES = (73.0, 96.0, 82.0)  # mm
SKIN, FAT, BONE, MARROW, MUSCLE, FLUID, GREY, WHITE, VESSEL = 0.50, 0.95, 0.06, 0.30, 0.42, 0.12, 0.45, 0.72, 0.90


@dataclass(frozen=True)
class SmoothField:
    """Random band-limited field `f(p) = sqrt(2/n) sum_j cos(k_j . p + phi_j)`: zero mean, unit variance.

    wavevectors: (n, 3) float32, radians per mm; phases: (n,) float32.
    """

    wavevectors: np.ndarray
    phases: np.ndarray

    @classmethod
    def draw(cls, rng: np.random.Generator, n_waves: int, wavelengths: tuple[float, float]) -> SmoothField:
        """Isotropic random directions, wavelengths uniform in the given interval (mm)."""
        directions = rng.standard_normal((n_waves, 3))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        wavenumbers = 2 * np.pi / rng.uniform(*wavelengths, size=(n_waves, 1))
        phases = rng.uniform(0, 2 * np.pi, size=n_waves)
        return cls((wavenumbers * directions).astype(np.float32), phases.astype(np.float32))

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """points (3, n) float32 in mm -> values (n,) float32."""
        return self._scale * np.cos(self._angles(points)).sum(0)

    def distance_to_zero(self, points: np.ndarray) -> np.ndarray:
        """First-order distance in mm to the surface f = 0: |f| / |grad f|, points (3, n) -> (n,) float32."""
        angles = self._angles(points)
        value = self._scale * np.cos(angles).sum(0)
        gradient = self.wavevectors.T @ (-self._scale * np.sin(angles))
        typical = float(np.mean(self.wavevectors**2))
        return np.abs(value) / np.sqrt((gradient**2).sum(0) + 0.2 * typical)

    @property
    def _scale(self) -> np.float32:
        return np.float32(np.sqrt(2.0 / len(self.phases)))

    def _angles(self, points: np.ndarray) -> np.ndarray:
        return self.wavevectors @ points + self.phases[:, None]


def _step(distance: np.ndarray, width: float = 0.4) -> np.ndarray:
    """Soft indicator of distance > 0 (mm): borders of tissue are soft, and sampling wants them so."""
    return np.clip(0.5 + distance / (2 * width), 0.0, 1.0).astype(np.float32)


def _paint(intensity: np.ndarray, coverage: np.ndarray, value: float | np.ndarray) -> np.ndarray:
    return intensity + coverage * (value - intensity)


def _ellipsoid_depth(x: np.ndarray, y: np.ndarray, z: np.ndarray, semi_axes: tuple[float, float, float]) -> np.ndarray:
    """First-order distance inside an ellipsoid at the origin, mm, positive inside."""
    a, b, c = semi_axes
    level = np.sqrt((x / a) ** 2 + (y / b) ** 2 + (z / c) ** 2) + np.float32(1e-6)
    slope = np.sqrt((x / a**2) ** 2 + (y / b**2) ** 2 + (z / c**2) ** 2) / level + np.float32(1e-6)
    return (1 - level) / slope


class Anatomy:
    """One seeded head; `intensity(points)` is its T1-weighted signal, 0 in air to about 1 in subcutaneous fat."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._warp = [SmoothField.draw(rng, 5, (60.0, 140.0)) for _ in range(3)]
        self._layers = [SmoothField.draw(rng, 5, (40.0, 90.0)) for _ in range(3)]
        self._sulci = SmoothField.draw(rng, 32, (14.0, 21.0))
        self._sulcal_depth = SmoothField.draw(rng, 8, (25.0, 60.0))
        self._meander = [SmoothField.draw(rng, 6, (14.0, 40.0)) for _ in range(3)]
        self._vessels = [SmoothField.draw(rng, 10, (18.0, 40.0)) for _ in range(2)]
        self._texture = [SmoothField.draw(rng, 24, (2.5, 8.0)), SmoothField.draw(rng, 12, (9.0, 40.0))]
        self._lesions = np.stack(
            [rng.uniform(14, 30, 9) * rng.choice([-1, 1], 9), rng.uniform(-45, 40, 9), rng.uniform(10, 32, 9)], axis=1
        ).astype(np.float32)
        self._lesion_radii = rng.uniform(1.2, 3.2, 9).astype(np.float32)
        self._lesion_signals = rng.choice([0.3, 0.4, 0.9], 9).astype(np.float32)

    def intensity(self, points: np.ndarray) -> np.ndarray:
        """points (3, n) float32, mm -> signal (n,) float32."""
        signal = np.zeros(points.shape[1], np.float32)
        inside = _ellipsoid_depth(points[0], points[1], points[2], HEAD_SEMI_AXES) > -15
        signal[inside] = self._head(np.ascontiguousarray(points[:, inside]))
        return signal

    def _head(self, points: np.ndarray) -> np.ndarray:
        p = points + np.float32(1.8) * np.stack([f(points) for f in self._warp])
        x, y, z = p
        front = y / HEAD_SEMI_AXES[1]
        egg = 1 - 0.06 * front + 0.10 * front**2
        depth = _ellipsoid_depth(x / egg, y, z, HEAD_SEMI_AXES)
        fine, coarse = (f(p) for f in self._texture)

        scalp = 5.0 + 0.9 * self._layers[0](p) + 2.0 * np.clip(-y / 96, 0, 1) ** 2
        temple = 7.0 * np.exp(-(((np.abs(x) - 62) / 14) ** 2) - ((y - 22) / 28) ** 2 - ((z + 18) / 24) ** 2)
        skull = scalp + temple
        inner = skull + 6.2 + 1.1 * self._layers[1](p)
        brain = inner + 1.6 + 0.8 * self._layers[2](p).clip(-1.2, 3) + 1.8 * np.clip(np.abs(y) / 96 - 0.75, 0, 1) * 4

        signal = SKIN * _step(depth)
        signal = _paint(signal, _step(depth - 1.5), FAT * (0.86 + 0.11 * fine + 0.06 * coarse))
        signal = _paint(signal, _step(depth - scalp + 0.9) * 0.5, MUSCLE)
        signal = _paint(signal, _step(depth - scalp), MUSCLE + 0.07 * fine)
        signal = _paint(signal, _step(depth - skull), BONE)
        marrow = np.minimum(depth - skull - 1.6, inner - 1.6 - depth)
        signal = _paint(signal, _step(marrow), MARROW + 0.08 * fine.clip(-2, 2))
        signal = _paint(signal, _step(depth - inner), FLUID)
        return self._brain(signal, p, depth - brain, fine, coarse)

    def _brain(
        self, signal: np.ndarray, p: np.ndarray, outer: np.ndarray, fine: np.ndarray, coarse: np.ndarray
    ) -> np.ndarray:
        tissue = outer > -1
        q, depth = np.ascontiguousarray(p[:, tissue]), outer[tissue]
        texture = 1 + 0.024 * fine[tissue] + 0.022 * coarse[tissue]
        x, y, z = q
        side = np.abs(x)

        pial, opening = self._pial_distance(q, depth)
        brain = np.full(depth.shape, FLUID, np.float32)
        brain = _paint(brain, _step(pial - opening), GREY * texture)
        thickness = 2.5 + 0.35 * self._layers[0](q)
        brain = _paint(brain, _step(pial - opening - thickness, 0.7), WHITE * texture)
        brain = self._deep(brain, q, side, y, z, texture)

        wander = np.hypot(*(f.distance_to_zero(q) for f in self._vessels)) + 0.25 * np.clip(pial - 1, 0, None)
        brain = _paint(brain, _step(0.85 - wander, 0.4), VESSEL)
        for centre, radius, value in zip(self._lesions, self._lesion_radii, self._lesion_signals, strict=True):
            reach = np.sqrt(((q - centre[:, None]) ** 2).sum(0))
            brain = _paint(brain, _step(radius - reach, 0.7), value)
        result = signal.copy()
        result[tissue] = _paint(signal[tissue], _step(depth), brain)
        return result

    def _pial_distance(self, q: np.ndarray, depth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Distance in mm to the nearest cerebral surface, and the half width of the fluid there.

        Surfaces: the convexity, the midline fissure, the sulci, the lateral fissure with its insula.
        """
        x, y, z = q
        side = np.abs(x)
        bent = x + 0.9 * self._meander[0](q)
        callosum = 20 * (1 - np.sqrt((y / 40) ** 2 + ((z + 4) / 19) ** 2))
        midline = np.hypot(bent, np.clip(callosum, 0, None))

        # Sulci are sheets that go down from the surface: their pattern is read there, at the foot of the ray that
        # comes from the middle of the hemisphere.
        centre = np.stack([28.0 * np.sign(x), 0 * y, 0 * z - 8]).astype(np.float32)
        ray = q - centre
        length = np.sqrt((ray**2).sum(0)) + np.float32(1e-3)
        wall = np.clip(np.minimum(depth, np.abs(bent)), 0, None)
        foot = q + ray / length * (wall * np.float32(1.05))
        foot = foot + np.float32(1.7) * np.stack([f(q) for f in self._meander])
        sheet = self._sulci.distance_to_zero(foot) * np.clip(length / (length + wall), 0.35, 1)
        reach = 12.5 + 6.0 * self._sulcal_depth(foot)
        below = np.clip(wall - reach, 0, None)
        sulcus = np.hypot(sheet, below)

        lateral = side - (37 + 0.008 * (y - 4) ** 2 + 1.2 * self._meander[1](q))
        beyond = np.clip(np.hypot((y - 2) / 22, (z + 12) / 20) - 1, 0, None) * 20
        insula = np.hypot(lateral, beyond)
        opercular = np.hypot(y + 6 - 0.4 * (side - 37) + 2 * self._meander[2](q), np.clip(37 - side, 0, None))
        insula = np.minimum(insula, np.hypot(opercular, np.clip(z - 4, 0, None)))

        opening = np.clip(0.95 - 0.03 * wall, 0.35, None)
        candidates = np.stack([depth + opening, midline, sulcus, insula])
        return candidates.min(0), opening

    def _deep(
        self, brain: np.ndarray, q: np.ndarray, side: np.ndarray, y: np.ndarray, z: np.ndarray, texture: np.ndarray
    ) -> np.ndarray:
        """Basal ganglia, thalamus, ventricles, on both sides."""
        ripple = 0.8 * self._meander[2](q)
        nuclei = (
            ((13.5, 17.0, 1.0), (5.0, 13.0, 15.0), 0.53),
            ((26.0 - 0.10 * (y - 3), 3.0, -6.0), (5.5, 17.0, 12.0), 0.55),
            ((19.5, 0.0, -7.0), (4.0, 10.0, 8.0), 0.63),
            ((10.5, -12.0, -3.0), (9.5, 14.0, 11.0), 0.58),
        )
        for (cx, cy, cz), semi_axes, value in nuclei:
            inside = _ellipsoid_depth(side - cx, y - cy, z - cz, semi_axes)
            brain = _paint(brain, _step(inside + ripple, 0.9), value * texture)
        bend = 6.5 + 0.010 * (y - 2) ** 2
        width = 3.4 + 1.6 * np.exp(-(((y + 28) / 12) ** 2)) + 0.6 * np.exp(-(((y - 22) / 8) ** 2))
        height = 10.0 + 2 * np.exp(-(((y + 25) / 10) ** 2))
        along = np.clip(np.abs(y + 3) - 26, 0, None) / 9
        level = np.sqrt(((side - bend) / width) ** 2 + ((z - 6 + 0.05 * y) / height) ** 2 + along**2)
        horn = (1 - level) * width
        brain = _paint(brain, _step(horn + 0.4 * ripple, 0.5), FLUID)
        choroid = _ellipsoid_depth(side - 16, y + 27, z - 4, (2.2, 4.0, 4.0))
        brain = _paint(brain, _step(choroid + ripple, 0.6), 0.5)
        third = _ellipsoid_depth(q[0], y + 6, z + 10, (1.6, 14.0, 11.0))
        return _paint(brain, _step(third, 0.5), FLUID)

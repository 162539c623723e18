"""Small radial and spiral scans, from files that the ismrmrd package writes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from examples._mrd_files import header, measure, noise, radial, readouts, spiral, write

MATRIX, LEVEL = 40, 0.004


def coil_images(coils: int = 6) -> np.ndarray:
    """Coil images (coil, rows, cols) of a disc with a square in it; their root sum of squares is at most 1."""
    rows, cols = np.meshgrid(*2 * [(np.arange(MATRIX) - MATRIX // 2) / MATRIX], indexing="ij")
    image = (np.hypot(rows, cols) < 0.38) * (0.5 + 0.5 * (np.maximum(abs(rows - 0.1), abs(cols)) < 0.12))
    angles = 2 * np.pi * np.arange(coils) / coils
    maps = np.stack(
        [
            np.exp(-2 * ((rows - 0.5 * np.cos(a)) ** 2 + (cols - 0.5 * np.sin(a)) ** 2) + 1j * (a + rows * a - cols))
            for a in angles
        ]
    )
    return image * maps / np.sqrt((abs(maps) ** 2).sum(0))


@pytest.fixture
def scan_file(tmp_path: Path) -> Callable[..., Path]:
    def make(
        kind: str = "radial",
        *,
        slices: int = 1,
        repetitions: int = 1,
        readouts_each: int = 24,
        noise_scan: bool = False,
        level: float = LEVEL,
    ) -> Path:
        rng = np.random.default_rng(0)
        acquisitions = []
        if noise_scan:
            acquisitions += readouts(noise(rng, level, 6, 1, 4096), None)
            acquisitions[0].set_flag(19)
        for r in range(repetitions):
            golden = repetitions > 1
            points = radial(readouts_each, MATRIX, golden=golden, first=r * readouts_each)
            points = points if kind == "radial" else spiral(8, 160, MATRIX)
            for s in range(slices):
                samples = measure((1 + s) * coil_images(), points)
                samples = samples + noise(rng, level, *samples.shape)
                acquisitions += readouts(samples, points / MATRIX, slice=s, repetition=r)
        return write(tmp_path / f"{kind}-{readouts_each}.mrd", header(kind, (MATRIX, MATRIX)), acquisitions)

    return make

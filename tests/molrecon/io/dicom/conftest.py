"""Volumes at known places, and a record of how they were made."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import pytest

from molrecon.io.dicom import Origin
from molrecon.io.geometry import Geometry

Vector = tuple[float, float, float]


def rotated(angles: Vector) -> np.ndarray:
    """Return the matrix of rotations about x, y and z, in degrees, one after the other."""
    total = np.eye(3)
    for axis, angle in enumerate(np.deg2rad(angles)):
        one, (i, j) = np.eye(3), [k for k in range(3) if k != axis]
        one[i, i] = one[j, j] = np.cos(angle)
        one[i, j], one[j, i] = -np.sin(angle), np.sin(angle)
        total = one @ total
    return total


def place(slice_axis: Vector, row_axis: Vector, column_axis: Vector, thickness: float = 4.0) -> Geometry:
    """Return a geometry with an origin away from the isocentre."""
    return Geometry((-61.25, 47.5, -88.125), slice_axis, row_axis, column_axis, thickness)


def oblique(angles: Vector) -> Geometry:
    steps = rotated(angles) @ np.diag([1.25, 0.75, 5.0])
    return place(tuple(steps[:, 2]), tuple(steps[:, 1]), tuple(steps[:, 0]))


GEOMETRIES = {
    "axial": place((0, 0, 4), (0, 0.75, 0), (1.25, 0, 0)),
    "coronal": place((0, 4, 0), (0, 0, -0.75), (1.25, 0, 0)),
    "sagittal": place((4, 0, 0), (0, 0, -0.75), (0, 1.25, 0)),
    "double oblique": oblique((20, -15, 35)),
    "steep double oblique": oblique((50, 40, -130)),
    "gaps": place((0, 0, 9), (0, 0.75, 0), (1.25, 0, 0)),
    "overlapping": place((0, 0, 2.5), (0, 0.75, 0), (1.25, 0, 0)),
    "descending": place((0, 0, -4), (0, 0.75, 0), (1.25, 0, 0)),
    "readout left to right": place((0, 0, 4), (-1.25, 0, 0), (0, -0.75, 0)),
    "upside down": place((0, -4, 0), (0, 0, 0.75), (-1.25, 0, 0)),
}


@pytest.fixture(params=GEOMETRIES)
def geometry(request: pytest.FixtureRequest) -> Geometry:
    return GEOMETRIES[request.param]


@pytest.fixture
def image() -> np.ndarray:
    """(slices, rows, cols) float32, every value another one, as dark as reconstructions in raw units are."""
    return (np.random.default_rng(0).permutation(3 * 13 * 18).reshape(3, 13, 18) * 1e-7).astype(np.float32)


@pytest.fixture
def origin() -> Origin:
    bound, steps = np.array([1e-4, 3e-4, 2e-4]), np.array([7, 9, 8])
    made = datetime(2026, 11, 28, 9, 30, tzinfo=timezone.utc)
    return Origin(
        "ab" * 32, "mol-2d", "cd" * 32, "ef" * 32, "0.2.0", "certified", bound, steps, np.ones(3, bool), created=made
    )


@pytest.fixture
def errors() -> Callable[[Path], list[str]]:
    """The errors that dciodvfy finds in a DICOM file."""
    if shutil.which("dciodvfy") is None:
        pytest.skip("dciodvfy (dicom3tools) is not installed")

    def found(path: Path) -> list[str]:
        done = subprocess.run(["dciodvfy", path], capture_output=True, text=True, check=False)
        text = done.stdout + done.stderr
        assert "MRImage" in text, text  # it recognised what the file is
        return [line for line in text.splitlines() if line.startswith(("Error", "Abort"))]

    return found

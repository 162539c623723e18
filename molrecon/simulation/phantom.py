"""A synthetic multi-coil head scan in the fastMRI file format, of any size, for tests and certificates.

The object is the analytic head of `molrecon.simulation.anatomy`, the coils are wire loops around it, the noise is
white. It has fine structure and a spectrum like a brain's, but it is a phantom: use it to see that everything works,
not how well. The demo's scan has a real head, see `molrecon.simulation.sample`.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch

from molrecon.simulation.anatomy import Anatomy, SmoothField
from molrecon.simulation.coils import draw_loops, plane_points, receive_maps
from molrecon.simulation.fastmri_file import write_simulated
from operators.fourier import centred_fft, centred_ifft

__all__ = ["coil_maps", "write_phantom", "phantom_volume", "voxel_size"]

DEFAULT_SLICES = 8
DEFAULT_COILS = 8
DEFAULT_SHAPE = (192, 168)
DEFAULT_NOISE_LEVEL = 0.01

_FIELD_OF_VIEW = (224.0, 196.0)  # mm, the least that holds the head: (front to back, right to left)
_CENTRE_HEIGHT = 10.0  # mm above the thalami, the middle of the slice stack
_THICKNESS = 5.0  # mm
_EXTENT = 75.0  # mm of head worth imaging
_OVERSAMPLING = 2  # the anatomy is drawn on a grid this much finer in plane, and then band-limited
_PROFILE = ((-0.25, 0.25), (0.0, 0.5), (0.25, 0.25))  # of a slice: (offset in thicknesses, weight)
_ANATOMY_STREAM, _PHASE_STREAM, _COIL_STREAM, _NOISE_STREAM = range(4)


def voxel_size(slices: int = DEFAULT_SLICES, shape: tuple[int, int] = DEFAULT_SHAPE) -> tuple[float, float, float]:
    """Spacing (row, column, slice) in mm: square pixels, as large as fits the head into the field of view.

    Slices lie 5 mm apart, or closer where so many would leave the head.
    """
    pixel = max(_FIELD_OF_VIEW[0] / shape[0], _FIELD_OF_VIEW[1] / shape[1])
    return pixel, pixel, min(_THICKNESS, _EXTENT / slices)


def phantom_volume(slices: int = DEFAULT_SLICES, shape: tuple[int, int] = DEFAULT_SHAPE, seed: int = 0) -> np.ndarray:
    """Noise-free complex image (slices, rows, cols) complex64: T1 contrast, about 1 in fat and 0.7 in white matter.

    Rows run from front to back, columns from the patient's right to left, slices from low to high; the phase is smooth.
    The same seed is the same head at any size. The continuous object is drawn on a grid twice as fine and its k-space
    is cut to `shape`, so that edges ring as in a scan.

    Raises:
        ValueError: no slices, or a shape under 16 x 16.
    """
    _check(slices, 1, shape, 0.0)
    anatomy = Anatomy(np.random.default_rng([seed, _ANATOMY_STREAM]))
    fine = (_OVERSAMPLING * shape[0], _OVERSAMPLING * shape[1])
    row_mm, col_mm, slice_mm = voxel_size(slices, shape)
    start = (fine[0] // 2 - shape[0] // 2, fine[1] // 2 - shape[1] // 2)
    window = (slice(start[0], start[0] + shape[0]), slice(start[1], start[1] + shape[1]))
    phase = _phase_fields(seed)
    volume = np.empty((slices, *shape), np.complex64)
    for index, height in enumerate(_heights(slices, slice_mm)):
        drawn = np.zeros(fine, np.float32)
        for offset, weight in _PROFILE:
            points = plane_points(fine, row_mm / _OVERSAMPLING, col_mm / _OVERSAMPLING, height + offset * slice_mm)
            drawn += np.float32(weight) * anatomy.intensity(points).reshape(fine)
        spectrum = centred_fft(torch.from_numpy(drawn).to(torch.complex64), (-2, -1))[window]
        image = centred_ifft(spectrum, (-2, -1)).real.numpy() / _OVERSAMPLING
        points = plane_points(shape, row_mm, col_mm, height)
        volume[index] = image * np.exp(1j * _phase(phase, points).reshape(shape))
    return volume


def coil_maps(
    slices: int = DEFAULT_SLICES, coils: int = DEFAULT_COILS, shape: tuple[int, int] = DEFAULT_SHAPE, seed: int = 0
) -> np.ndarray:
    """Receive sensitivities (slices, coils, rows, cols) complex64 of wire loops around the head.

    `s_c = g_c (B_x - i B_y)`, B the field of a unit current in loop c (see `coils`), g_c a random gain and phase.
    The root-sum-of-squares over coils is one on average inside the head, and not everywhere: as in a scan, the
    coil-combined image is brighter near the coils.

    Raises:
        ValueError: no slices, no coils, or a shape under 16 x 16.
    """
    _check(slices, coils, shape, 0.0)
    loops = draw_loops(coils, _CENTRE_HEIGHT, np.random.default_rng([seed, _COIL_STREAM]))
    row_mm, col_mm, slice_mm = voxel_size(slices, shape)
    return receive_maps(loops, _heights(slices, slice_mm), shape, (row_mm, col_mm))


def write_phantom(
    path: str | os.PathLike[str],
    slices: int = DEFAULT_SLICES,
    coils: int = DEFAULT_COILS,
    shape: tuple[int, int] = DEFAULT_SHAPE,
    noise_level: float = DEFAULT_NOISE_LEVEL,
    seed: int = 0,
) -> Path:
    """Write a fully sampled scan of the phantom as a fastMRI file, as `write_simulated` does, and return its path.

    Args:
        path: where; missing folders are made, an existing file is replaced once the new one is complete.
        slices, coils, shape: size; shape is (rows, cols) of the image.
        noise_level: complex standard deviation sigma per coil in the units of kspace, E|n|^2 = sigma^2; fat is about 1.
        seed: of head, coils and noise. The same arguments give the same file.

    Raises:
        ValueError: an empty volume, a shape under 16 x 16, or a negative noise level.
        OSError: the file cannot be written.
    """
    _check(slices, coils, shape, noise_level)
    return write_simulated(
        path,
        phantom_volume(slices, shape, seed),
        coil_maps(slices, coils, shape, seed),
        voxel_size(slices, shape),
        noise_level,
        np.random.default_rng([seed, _NOISE_STREAM]),
        f"phantom-{seed}",
    )


def _check(slices: int, coils: int, shape: tuple[int, int], noise_level: float) -> None:
    if slices < 1 or coils < 1:
        raise ValueError(f"phantom: got {slices} slices and {coils} coils, expected at least one of each")
    if len(shape) != 2 or min(shape) < 16:
        raise ValueError(f"phantom: got shape {shape}, expected (rows, cols) of at least 16 x 16")
    if not 0 <= noise_level < np.inf:
        raise ValueError(f"phantom: got noise level {noise_level}, expected a finite number, at least 0")


def _heights(slices: int, slice_mm: float) -> list[float]:
    return [_CENTRE_HEIGHT + slice_mm * (index - (slices - 1) / 2) for index in range(slices)]


def _phase_fields(seed: int) -> SmoothField:
    return SmoothField.draw(np.random.default_rng([seed, _PHASE_STREAM]), 6, (110.0, 260.0))


def _phase(field: SmoothField, points: np.ndarray) -> np.ndarray:
    """Radians: a shim residue, an echo shift, and the steep lobe that the air of the frontal sinus makes."""
    x, y, z = points
    sinus = np.exp(-((x / 24) ** 2) - ((y - 84) / 26) ** 2 - ((z + 12) / 30) ** 2)
    return 0.9 * field(points) + 0.009 * y - 0.006 * x + 2.4 * sinus

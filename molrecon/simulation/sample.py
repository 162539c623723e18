"""The sample: a simulated multi-coil scan of a real head in the fastMRI file format, made in seconds, no download.

The head is Colin27, eight slices of which are packaged (`NOTICE-colin27.txt` has its copyright and permission): what is
reconstructed has the folds, vessels and scalp of a person. Coils, phase and noise are simulated.
"""

from __future__ import annotations

import os
from importlib.resources import files
from pathlib import Path

import numpy as np
from scipy import ndimage

from molrecon.simulation.coils import draw_loops, receive_maps
from molrecon.simulation.fastmri_file import write_simulated
from molrecon.simulation.phase import band_limited, field_map, smooth_phase

__all__ = ["VOXEL_SIZE", "sample_image", "sample_maps", "write_sample"]

SLICES = 8
COILS = 8
NOISE_LEVEL = 0.01
AIR = 10  # columns on either side: a head that fills its field of view reaches around it in the calibration data
VOXEL_SIZE = (1.0, 1.0, 5.0)  # mm: (row, column, slice)

_FIELD = 0.4  # rad of the field that the tissue makes, at the echo
_TEXTURE, _TEXTURE_SCALE = 0.05, 3.0  # rad and pixels of what follows nothing that is seen
_LINK, _LINK_SCALE = 0.4, 5.0  # rad for each unit of the magnitude against its low-pass of so many pixels
_FIELD_STREAM, _TEXTURE_STREAM, _PHASE_STREAM, _COIL_STREAM, _NOISE_STREAM = range(5)


def sample_image(slices: int = SLICES, seed: int = 0) -> np.ndarray:
    """Return the object (slices, 216, 200) complex64: T1 contrast, 1 at most (fat), about 0.6 in white matter.

    Rows run from front to back, columns from the patient's right to left, slices from low to high. The phase is that of
    a scan (`molrecon.simulation.phase`): smooth, and rough where the tissue makes it so. What is rough has a median of
    0.05 to 0.06 rad and a 90 % quantile of 0.2; in the coil images of a measured T1 brain it is 0.05 to 0.08 and 0.2 to
    0.3, in the SIAT brains 0.04 to 0.07 and 0.1 to 0.2.

    Args:
        slices: the middle ones of the eight.
        seed: of the phase.

    Raises:
        ValueError: fewer than one slice or more than there are.
    """
    magnitudes, _ = _head(slices)
    smooth = smooth_phase(magnitudes.shape[1:], np.random.default_rng([seed, _PHASE_STREAM]))
    texture = np.random.default_rng([seed, _TEXTURE_STREAM])
    image = np.empty(magnitudes.shape, np.complex64)
    for index, magnitude in enumerate(magnitudes):
        # The same draws in every slice: the main field has one direction, and tissue one susceptibility.
        angle = _FIELD * field_map(magnitude, np.random.default_rng([seed, _FIELD_STREAM]))
        angle += _TEXTURE * band_limited(magnitude.shape, _TEXTURE_SCALE, texture)
        angle += _LINK * (magnitude - ndimage.gaussian_filter(magnitude, _LINK_SCALE))
        image[index] = magnitude * np.exp(1j * angle) * smooth
    return image


def sample_maps(slices: int = SLICES, coils: int = COILS, seed: int = 0) -> np.ndarray:
    """Return the receive sensitivities (slices, coils, 216, 200) complex64 of wire loops around the head.

    See `molrecon.simulation.coils`; their root-sum-of-squares over coils is one on average inside the head.

    Raises:
        ValueError: no coils, fewer than one slice or more than there are.
    """
    magnitudes, heights = _head(slices)
    if coils < 1:
        raise ValueError(f"sample: got {coils} coils, expected at least one")
    loops = draw_loops(coils, (heights[0] + heights[-1]) / 2, np.random.default_rng([seed, _COIL_STREAM]))
    rows, cols = magnitudes.shape[1:]
    return receive_maps(loops, heights, (rows, cols), VOXEL_SIZE[:2])


def write_sample(
    path: str | os.PathLike[str],
    slices: int = SLICES,
    coils: int = COILS,
    noise_level: float = NOISE_LEVEL,
    seed: int = 0,
) -> Path:
    """Write a fully sampled scan of the head as a fastMRI file, as `write_simulated` does, and return its path.

    Args:
        path: where; missing folders are made, an existing file is replaced once the new one is complete.
        slices: the middle ones of the eight.
        coils: how many.
        noise_level: complex standard deviation sigma per coil in the units of kspace, E|n|^2 = sigma^2; fat is about 1.
        seed: of phase, coils and noise. The same arguments give the same file.

    Raises:
        ValueError: a number of slices that are not there, no coils, or a negative noise level.
        OSError: the file cannot be written.
    """
    if not 0 <= noise_level < np.inf:
        raise ValueError(f"sample: got noise level {noise_level}, expected a finite number, at least 0")
    image, maps = sample_image(slices, seed), sample_maps(slices, coils, seed)
    noise = np.random.default_rng([seed, _NOISE_STREAM])
    return write_simulated(path, image, maps, VOXEL_SIZE, noise_level, noise, f"colin27-{seed}")


def _head(slices: int) -> tuple[np.ndarray, list[float]]:
    """Return magnitudes (slices, rows, cols) float32 of at most 1, and the heights of the slices in mm."""
    if not 1 <= slices <= SLICES:
        raise ValueError(f"sample: got {slices} slices, expected 1 to {SLICES}")
    with (files("molrecon.simulation") / "colin27.npz").open("rb") as file, np.load(file, allow_pickle=False) as stored:
        head, heights = stored["slices"], stored["heights"]
    middle = slice(SLICES // 2 - slices // 2, SLICES // 2 - slices // 2 + slices)
    aired = np.pad(head[middle] / np.float32(head.max()), ((0, 0), (0, 0), (AIR, AIR)))
    return aired, [float(height) for height in heights[middle]]

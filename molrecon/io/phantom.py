"""A synthetic multi-coil head scan in the fastMRI file format, made in seconds for the demo and the tests.

The object is the analytic head of `molrecon.io.anatomy`, the coils are wire loops around it, the noise is white. It has
fine structure and a spectrum like a brain's, but it is a phantom: use it to see that everything works, not how well.
"""

from __future__ import annotations

import os
from pathlib import Path

import h5py
import numpy as np
import torch

from molrecon.io.anatomy import HEAD_SEMI_AXES, Anatomy, SmoothField
from molrecon.io.coils import draw_loops, receive_field
from molrecon.io.hdf5 import hdf5_file
from operators.fourier import centred_fft, centred_ifft

__all__ = ["coil_maps", "make_sample_volume", "phantom_volume", "voxel_size"]

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
            points = _grid(fine, row_mm / _OVERSAMPLING, col_mm / _OVERSAMPLING, height + offset * slice_mm)
            drawn += np.float32(weight) * anatomy.intensity(points).reshape(fine)
        spectrum = centred_fft(torch.from_numpy(drawn).to(torch.complex64), (-2, -1))[window]
        image = centred_ifft(spectrum, (-2, -1)).real.numpy() / _OVERSAMPLING
        points = _grid(shape, row_mm, col_mm, height)
        volume[index] = image * np.exp(1j * _phase(phase, points).reshape(shape))
    return volume


def coil_maps(
    slices: int = DEFAULT_SLICES, coils: int = DEFAULT_COILS, shape: tuple[int, int] = DEFAULT_SHAPE, seed: int = 0
) -> np.ndarray:
    """Receive sensitivities (slices, coils, rows, cols) complex64 of wire loops around the head.

    `s_c = g_c (B_x - i B_y)`, B the field of a unit current in loop c (`molrecon.io.coils`), g_c a random gain and
    phase. The root-sum-of-squares over coils is one on average inside the head, and not everywhere: as in a scan, the
    coil-combined image is brighter near the coils.

    Raises:
        ValueError: no slices, no coils, or a shape under 16 x 16.
    """
    _check(slices, coils, shape, 0.0)
    loops = draw_loops(coils, _CENTRE_HEIGHT, np.random.default_rng([seed, _COIL_STREAM]))
    row_mm, col_mm, slice_mm = voxel_size(slices, shape)
    maps = np.empty((slices, coils, *shape), np.complex64)
    for index, height in enumerate(_heights(slices, slice_mm)):
        points = _grid(shape, row_mm, col_mm, height)
        for c, (gain, loop) in enumerate(loops):
            maps[index, c] = (gain * receive_field(loop, points)).reshape(shape)
    inside = _head_samples()
    combined = np.sqrt(sum(np.abs(gain * receive_field(loop, inside)) ** 2 for gain, loop in loops))
    return maps / np.float32(combined.mean())


def make_sample_volume(
    path: str | os.PathLike[str],
    slices: int = DEFAULT_SLICES,
    coils: int = DEFAULT_COILS,
    shape: tuple[int, int] = DEFAULT_SHAPE,
    noise_level: float = DEFAULT_NOISE_LEVEL,
    seed: int = 0,
) -> Path:
    """Write a fully sampled fastMRI-format multi-coil volume and return its path.

    Datasets: `kspace` (slices, coils, 2 * rows, cols) complex64, centred and orthonormal, read out at twice the field
    of view; `reconstruction_rss` (slices, rows, cols) float32; `ismrmrd_header` XML. Attributes: `acquisition`, `max`,
    `norm`, `patient_id` as in fastMRI, and `noise_level`, the true one.

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
    target = Path(path)
    image, maps = phantom_volume(slices, shape, seed), coil_maps(slices, coils, shape, seed)
    noise = np.random.default_rng([seed, _NOISE_STREAM])
    rows, cols = shape
    inner = slice(rows // 2, rows // 2 + rows)  # the centre crop of the oversampled rows, as fastMRI takes it
    target.parent.mkdir(parents=True, exist_ok=True)
    with hdf5_file(target) as file:
        kspace = file.create_dataset("kspace", (slices, coils, 2 * rows, cols), np.complex64)
        reference = np.empty((slices, rows, cols), np.float32)
        for index in range(slices):
            padded = np.zeros((coils, 2 * rows, cols), np.complex64)
            padded[:, inner] = maps[index] * image[index]
            sampled = centred_fft(torch.from_numpy(padded), (-2, -1)).numpy()
            parts = noise.standard_normal((2, *sampled.shape), np.float32) * np.float32(noise_level / np.sqrt(2))
            sampled = sampled + parts[0] + 1j * parts[1]
            kspace[index] = sampled
            coil_images = centred_ifft(torch.from_numpy(sampled), (-2, -1)).numpy()[:, inner]
            reference[index] = np.sqrt((np.abs(coil_images) ** 2).sum(0))
        file["reconstruction_rss"] = reference
        file.create_dataset("ismrmrd_header", data=_header(slices, coils, shape), dtype=h5py.string_dtype())
        file.attrs["acquisition"] = "AXT1"
        file.attrs["max"] = float(reference.max())
        file.attrs["norm"] = float(np.linalg.norm(reference))
        file.attrs["patient_id"] = f"phantom-{seed}"
        file.attrs["noise_level"] = float(noise_level)
    return target


def _check(slices: int, coils: int, shape: tuple[int, int], noise_level: float) -> None:
    if slices < 1 or coils < 1:
        raise ValueError(f"phantom: got {slices} slices and {coils} coils, expected at least one of each")
    if len(shape) != 2 or min(shape) < 16:
        raise ValueError(f"phantom: got shape {shape}, expected (rows, cols) of at least 16 x 16")
    if not 0 <= noise_level < np.inf:
        raise ValueError(f"phantom: got noise level {noise_level}, expected a finite number, at least 0")


def _heights(slices: int, slice_mm: float) -> list[float]:
    return [_CENTRE_HEIGHT + slice_mm * (index - (slices - 1) / 2) for index in range(slices)]


def _grid(shape: tuple[int, int], row_mm: float, col_mm: float, height: float) -> np.ndarray:
    """Positions (3, rows * cols) float32 in mm; index n // 2 lies at the origin, as the centred FFT has it."""
    y = -(np.arange(shape[0]) - shape[0] // 2) * row_mm
    x = (np.arange(shape[1]) - shape[1] // 2) * col_mm
    grid = np.empty((3, shape[0], shape[1]), np.float32)
    grid[0], grid[1], grid[2] = x[None, :], y[:, None], height
    return grid.reshape(3, -1)


def _phase_fields(seed: int) -> SmoothField:
    return SmoothField.draw(np.random.default_rng([seed, _PHASE_STREAM]), 6, (110.0, 260.0))


def _phase(field: SmoothField, points: np.ndarray) -> np.ndarray:
    """Radians: a shim residue, an echo shift, and the steep lobe that the air of the frontal sinus makes."""
    x, y, z = points
    sinus = np.exp(-((x / 24) ** 2) - ((y - 84) / 26) ** 2 - ((z + 12) / 30) ** 2)
    return 0.9 * field(points) + 0.009 * y - 0.006 * x + 2.4 * sinus


def _head_samples() -> np.ndarray:
    """Regular points (3, n) float32 inside the head, the same for every seed and size."""
    across, along = (np.arange(-a, a, 12.0) for a in HEAD_SEMI_AXES[:2])
    heights = _CENTRE_HEIGHT + np.array([-15.0, 0.0, 15.0])
    points = np.stack(np.meshgrid(across, along, heights, indexing="ij")).reshape(3, -1).astype(np.float32)
    return points[:, (points[0] / HEAD_SEMI_AXES[0]) ** 2 + (points[1] / HEAD_SEMI_AXES[1]) ** 2 < 1]


def _header(slices: int, coils: int, shape: tuple[int, int]) -> str:
    rows, cols = shape
    row_mm, col_mm, slice_mm = voxel_size(slices, shape)

    def space(name: str, n_rows: int) -> str:
        return (
            f"<{name}><matrixSize><x>{n_rows}</x><y>{cols}</y><z>1</z></matrixSize>"
            f"<fieldOfView_mm><x>{n_rows * row_mm:.6f}</x><y>{cols * col_mm:.6f}</y><z>{slice_mm:.6f}</z>"
            f"</fieldOfView_mm></{name}>"
        )

    def limit(name: str, n: int, centre: int) -> str:
        return f"<{name}><minimum>0</minimum><maximum>{n - 1}</maximum><center>{centre}</center></{name}>"

    return (
        '<?xml version="1.0" encoding="utf-8"?>\n'
        '<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD">'
        "<acquisitionSystemInformation><systemVendor>none (simulated)</systemVendor>"
        "<systemFieldStrength_T>3.0</systemFieldStrength_T>"
        f"<receiverChannels>{coils}</receiverChannels></acquisitionSystemInformation>"
        "<experimentalConditions><H1resonanceFrequency_Hz>127729200</H1resonanceFrequency_Hz></experimentalConditions>"
        f"<encoding>{space('encodedSpace', 2 * rows)}{space('reconSpace', rows)}"
        f"<encodingLimits>{limit('kspace_encoding_step_1', cols, cols // 2)}{limit('kspace_encoding_step_2', 1, 0)}"
        f"{limit('slice', slices, 0)}</encodingLimits>"
        "<trajectory>cartesian</trajectory></encoding>"
        "</ismrmrdHeader>"
    )

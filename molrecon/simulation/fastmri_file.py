"""Writing a simulated scan as a fastMRI file: fully sampled, read out at twice the field of view, with white noise."""

from __future__ import annotations

import os
from pathlib import Path

import h5py
import numpy as np
import torch

from molrecon.io.hdf5 import hdf5_file
from operators.fourier import centred_fft, centred_ifft

__all__ = ["write_simulated"]


def write_simulated(
    path: str | os.PathLike[str],
    image: np.ndarray,
    maps: np.ndarray,
    voxel_size: tuple[float, float, float],
    noise_level: float,
    rng: np.random.Generator,
    patient: str,
) -> Path:
    """Write what coils receive of an object, with noise, as a fully sampled fastMRI volume, and return its path.

    Datasets: `kspace` (slices, coils, 2 * rows, cols) complex64, centred and orthonormal, read out at twice the field
    of view; `reconstruction_rss` (slices, rows, cols) float32; `ismrmrd_header` XML. Attributes: `acquisition`, `max`,
    `norm`, `patient_id` as in fastMRI, and `noise_level`, the true one.

    Args:
        path: where; missing folders are made, an existing file is replaced once the new one is complete.
        image: the object (slices, rows, cols), complex.
        maps: receive sensitivities (slices, coils, rows, cols), complex.
        voxel_size: spacing (row, column, slice) in mm.
        noise_level: complex standard deviation sigma per coil in the units of kspace, E|n|^2 = sigma^2.
        rng: source of the noise.
        patient: the attribute `patient_id`.

    Raises:
        OSError: the file cannot be written.
    """
    target = Path(path)
    slices, coils, rows, cols = maps.shape
    inner = slice(rows // 2, rows // 2 + rows)  # the centre crop of the oversampled rows, as fastMRI takes it
    target.parent.mkdir(parents=True, exist_ok=True)
    with hdf5_file(target) as file:
        kspace = file.create_dataset("kspace", (slices, coils, 2 * rows, cols), np.complex64)
        reference = np.empty((slices, rows, cols), np.float32)
        for index in range(slices):
            padded = np.zeros((coils, 2 * rows, cols), np.complex64)
            padded[:, inner] = maps[index] * image[index]
            sampled = centred_fft(torch.from_numpy(padded), (-2, -1)).numpy()
            parts = rng.standard_normal((2, *sampled.shape), np.float32) * np.float32(noise_level / np.sqrt(2))
            sampled = sampled + parts[0] + 1j * parts[1]
            kspace[index] = sampled
            coil_images = centred_ifft(torch.from_numpy(sampled), (-2, -1)).numpy()[:, inner]
            reference[index] = np.sqrt((np.abs(coil_images) ** 2).sum(0))
        file["reconstruction_rss"] = reference
        header = _header(slices, coils, (rows, cols), voxel_size)
        file.create_dataset("ismrmrd_header", data=header, dtype=h5py.string_dtype())
        file.attrs["acquisition"] = "AXT1"
        file.attrs["max"] = float(reference.max())
        file.attrs["norm"] = float(np.linalg.norm(reference))
        file.attrs["patient_id"] = patient
        file.attrs["noise_level"] = float(noise_level)
    return target


def _header(slices: int, coils: int, shape: tuple[int, int], voxel_size: tuple[float, float, float]) -> str:
    rows, cols = shape
    row_mm, col_mm, slice_mm = voxel_size

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

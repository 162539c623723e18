"""Coil data mixed to other coils, whose noise is independent or which are fewer, and cut to the rows of the image."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from molrecon.io import RawVolume
from molrecon.io.large_arrays import empty_array, release
from operators.compression import VirtualCoils, mix_coils
from operators.hybrid import crop_readout
from operators.prewhitening import whitening_matrix


def whitening(volume: RawVolume) -> tuple[Tensor | None, float | None]:
    """Return the matrix that mixes the coils (coil, coil) complex64, and sigma by the noise scan; None without one."""
    covariance = volume.noise_covariance
    if covariance is None:
        return None, None
    if covariance.shape != (volume.n_coils, volume.n_coils):
        raise ValueError(f"prepare: noise covariance {covariance.shape}, expected {(volume.n_coils,) * 2} (coil, coil)")
    sigma = math.sqrt(float(np.diagonal(covariance).real.mean()))
    matrix = whitening_matrix(torch.from_numpy(np.asarray(covariance, np.complex128)))
    return (sigma * matrix).to(torch.complex64), sigma


def mixed(coil_data: np.ndarray, mixing: Tensor | None) -> Tensor:
    """Return (slices, coil, rows, cols) as virtual coils; as it is without a matrix."""
    data = torch.from_numpy(coil_data)
    if mixing is None:
        return data
    virtual = torch.from_numpy(empty_array(data.shape, np.complex64))
    for one, out in zip(data, virtual, strict=True):
        out.copy_(mix_coils(mixing, one[None])[0])
        release()
    return virtual


def cropped(kspace: Tensor, rows: int) -> Tensor:
    """Return k-space (slices, coil, rows, cols) of the central rows of the image, see `crop_readout`."""
    central = torch.from_numpy(empty_array((*kspace.shape[:-2], rows, kspace.shape[-1]), np.complex64))
    for one, out in zip(kspace, central, strict=True):
        out.copy_(crop_readout(one[None], rows)[0])
        release()
    return central


def compressed(coil_data: Tensor, compression: VirtualCoils | None) -> Tensor:
    """Return (batch, coil, *spatial) of the virtual coils; as it is without compression."""
    return coil_data if compression is None else mix_coils(compression.matrix, coil_data)

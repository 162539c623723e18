"""Measurements of volumes and series whose coil maps are estimated from their own central samples, as a user's are."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from molrecon.scans.preparation import CROP, THRESHOLD, align_phases
from molrecon.simulation.noise import complex_noise
from molrecon.simulation.problem import Problem, robust_maximum
from operators import Sense, centred_fft, centred_ifft, espirit_maps
from operators.calibration import calibration_region


def calibrated(
    coil_images: np.ndarray,
    mask: np.ndarray,
    fourier_ndim: int,
    readout: int,
    noise_level: float,
    rng: np.random.Generator,
) -> Problem:
    """Return the measurement of coil images with ESPIRiT's maps of its calibration region; the batch is 1.

    A volume has maps of each position of its readout, with phases that are continuous along it; a series one set for
    all frames, from the mean k-space, of each sample over the frames that measured it. The reference is
    `sum_c conj(s_c) x_c` with these maps, zero where they are, and the coil images are scaled such that the 99.5 %
    quantile of their root-sum-of-squares is 1.

    Args:
        coil_images: (coil, *spatial) complex, in any units, three spatial axes.
        mask: (*spatial) bool, with size 1 along axes that are sampled alike everywhere.
        fourier_ndim: how many of the last axes are measured in k-space: 3, or 2 of a series, whose first axis is time.
        readout: the fully sampled spatial axis, 0 to 2.
        noise_level: standard deviation of the complex noise in the units of the reference.
        rng: source of the noise.

    Raises:
        ValueError: a mask without a calibration region.
    """
    images = torch.from_numpy(np.ascontiguousarray(coil_images, np.complex64))
    images = images / robust_maximum(torch.linalg.vector_norm(images, dim=0))
    noisy = images + noise_level * complex_noise(images.shape, rng)
    sampled = torch.from_numpy(np.ascontiguousarray(mask))
    kspace = centred_fft(noisy, tuple(range(-fourier_ndim, 0))) * sampled
    if fourier_ndim == 3:
        maps = _maps_along_readout(kspace, sampled, readout, noise_level)
    else:
        count = sampled.sum(0)
        maps = _maps(kspace.sum(1) / count.clamp_min(1), count > 0, noise_level)[:, None]
    reference = torch.linalg.vecdot(maps.expand_as(images), images, dim=0)
    operator = Sense(maps[None], sampled[None], fourier_ndim)
    return Problem(kspace[None], operator, reference[None], torch.tensor([noise_level]))


def _maps_along_readout(kspace: Tensor, sampled: Tensor, readout: int, noise_level: float) -> Tensor:
    """Return maps (coil, *spatial) of each position of the readout."""
    planes = centred_ifft(kspace, (1 + readout,)).movedim(1 + readout, 0)
    maps = torch.stack([_maps(plane, sampled.squeeze(readout), noise_level) for plane in planes])
    align_phases(maps[:, None], planes)
    return maps.movedim(0, 1 + readout)


def _maps(kspace: Tensor, sampled: Tensor, noise_level: float) -> Tensor:
    """Return maps (coil, rows, cols) of k-space (coil, rows, cols) that is sampled at (rows or 1, cols or 1)."""
    region = calibration_region(kspace[None], sampled[None])
    shape = (kspace.shape[1], kspace.shape[2])
    return espirit_maps(region, shape, threshold=THRESHOLD, crop=CROP, noise_level=noise_level)[0]

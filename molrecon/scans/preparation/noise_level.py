"""The noise level of samples on the grid: which of several estimates is used."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from molrecon.io.large_arrays import planes
from molrecon.scans.preparation.slices import mask_of, spread
from operators.noise import NoiseEstimates, estimate_noise_level, noise_level_estimates, smaller_noise_level

NOISE_SLICES = 16  # the noise is the same in all slices: the median over so many is precise enough
COMPARED_SLICES = 4  # for estimates that the chosen one is only compared with
NOISE_AGREEMENT = 1.2  # of the noise scan and the data, as a ratio


def choose_noise_level(
    kspace: Tensor, sampling_mask: Tensor, outer_readout: bool, given: float | None, scanned: float | None
) -> tuple[float, dict[str, float]]:
    """Return the noise level to use, and the estimates, see `PreparedVolume`.

    Args:
        kspace: (slices, coil, rows, cols) complex, as measured: the readout is not cropped.
        sampling_mask: (slices or 1, rows or 1, cols) bool.
        outer_readout: the readout is long enough to show noise without object at its ends.
        given: by the caller, who is right; None: one of the estimates is chosen.
        scanned: by the noise scan, or None. Where the data contradict it the data are believed, since some converters
            write wrong bandwidths.

    Raises:
        ValueError: an estimate that is not finite.
    """
    filled = [k for k, one in enumerate(planes(kspace.numpy())) if one.any()]
    chosen, compared = spread(filled, NOISE_SLICES), spread(filled, COMPARED_SLICES)
    estimates = {}
    if outer_readout:
        levels = [estimate_noise_level(kspace[[k]], mask_of(sampling_mask, k), True) for k in chosen]
        estimates["outer readout"] = float(torch.cat(levels).median())
    elif given is None:
        compared = chosen
    pairs = [noise_level_estimates(kspace[[k]], mask_of(sampling_mask, k)) for k in compared]
    null_space = torch.cat([pair.null_space for pair in pairs])
    periphery = torch.cat([pair.periphery for pair in pairs])
    estimates |= {"null space": float(null_space.nanmedian()), "periphery": float(periphery.median())}
    if scanned is not None:
        estimates["noise scan"] = scanned
    if given is not None:
        return given, estimates
    level = estimates.get("outer readout", float(smaller_noise_level(NoiseEstimates(null_space, periphery)).median()))
    if not math.isfinite(level):
        raise ValueError(f"prepare: the noise level was estimated as {level}, expected a number: give noise_level")
    if scanned is not None and max(scanned / level, level / scanned) <= NOISE_AGREEMENT:
        level = scanned
    return level, estimates

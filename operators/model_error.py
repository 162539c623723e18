"""How far coil maps are from the scan's own calibration data: an error of the model that acts as noise does."""

from __future__ import annotations

import torch
from torch import Tensor

from operators.calibration import calibration_region, low_resolution
from operators.linear import LinearOperator
from operators.sense import Sense
from operators.sensitivity import coil_norm
from operators.soft_sense import SoftSense

MIN_WIDTH = 4  # lines of a calibration region that can be judged


@torch.no_grad()
def coil_model_error(kspace: Tensor, operator: LinearOperator) -> Tensor:
    """Return what the coil maps leave of the calibration data, as the standard deviation of complex noise: (batch,).

    With the coil images c(r) of the Hann-windowed calibration region and the span of unit maps at each pixel, it is the
    root mean square over covered pixels of `|c - S S^H c|`, for each of the coils' dimensions that the maps leave. No
    image explains that part of the data. It holds a little noise too: that of the calibration lines alone, a few
    hundredths of all.

    Args:
        kspace: (batch, coil, rows, cols) complex.
        operator: the acquisition, two-dimensional `Sense` or `SoftSense`; zero for others, for single coils, and where
            no calibration region is sampled.
    """
    error = torch.zeros(len(kspace), dtype=kspace.real.dtype, device=kspace.device)
    if not isinstance(operator, Sense | SoftSense):
        return error
    maps = operator.sensitivity_maps if operator.sets is not None else operator.sensitivity_maps[:, None]
    coils = maps.shape[2]
    if kspace.ndim != 4 or maps.ndim != 5 or coils <= maps.shape[1] or operator.encoding.fourier_ndim != 2:
        return error
    masks = operator.sampling_mask
    for index, scan in enumerate(kspace):
        try:
            region = calibration_region(scan[None], masks[[index % len(masks)]], min_width=MIN_WIDTH)
        except ValueError:  # no fully sampled centre: nothing to compare the maps with
            continue
        images = low_resolution(region, tuple(scan.shape[-2:]))[0][0]
        own = maps[index % len(maps)].to(images.dtype).expand(-1, -1, *scan.shape[-2:])
        norms = coil_norm(own, 1)[:, None]
        own = own / norms.clamp_min(torch.finfo(norms.dtype).tiny)
        left = images - (own * (own.conj() * images).sum(1, keepdim=True)).sum(0)
        covered = norms.amax(0)[0] > 0
        dimensions = covered.sum() * (coils - len(own))
        energy = (left.abs().square() * covered).sum()
        error[index] = (energy / dimensions.clamp_min(1)).sqrt()
    return error

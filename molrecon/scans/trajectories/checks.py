"""How well the samples of a slice on a trajectory fit their model and its image."""

from __future__ import annotations

import torch
from torch import Tensor

from molrecon.reconstructors.classical import CGSense
from molrecon.scans.data_checks import LEAST_SQUARES, SliceChecks, brightness_of, energy_of, root_of, share_of
from operators import WeightedSense


@torch.no_grad()
def check_samples(
    kspace: Tensor, operator: WeightedSense, noise_level: float, image: Tensor, effective_samples: float
) -> SliceChecks:
    """Return what the data say about the model and the image; what calibration lines would tell is NaN.

    Residuals are those of the weighted problem. Noise leaves `noise_level^2` of each coil's `effective_samples` in
    them.

    Args:
        kspace: weighted samples (1, coil, readouts, samples) complex, not zero.
        operator: of this slice. noise_level: in the units of kspace.
        image: (1, rows, cols) complex, of any method; (1, set, rows, cols) with several sets of maps.
        effective_samples: see `Trajectory.effective_samples`.
    """
    zero_filled = operator.adjoint(kspace)
    noise = effective_samples * kspace.shape[1] * noise_level**2
    energy = energy_of(kspace)
    fitted = CGSense()(kspace, operator, solver=LEAST_SQUARES).value
    least_squares, residual, first = (
        energy_of(operator(one.to(kspace.dtype)) - kspace) for one in (fitted, image, zero_filled)
    )
    if operator.sets is not None:
        image, zero_filled = (torch.linalg.vector_norm(one, dim=1) for one in (image, zero_filled))
    shown, plain = brightness_of(image, zero_filled)
    return SliceChecks(
        sets=operator.sets or 1,
        least_squares_sigmas=root_of(least_squares, noise),
        least_squares_share=share_of(least_squares, noise, energy),
        residual_sigmas=root_of(residual, noise),
        residual_share=share_of(residual, noise, energy),
        residual_over_zero_filled=root_of(residual, first),
        brightness=shown,
        zero_filled_brightness=plain,
    )

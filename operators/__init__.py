"""Linear physics of imaging: operators with exact adjoints, and what is needed to set them up."""

from operators.calibration import calibration_region
from operators.checks import adjoint_gap, normal_gap
from operators.espirit import espirit_maps
from operators.fourier import Fourier, centred_fft, centred_ifft
from operators.linear import Adjoint, Composition, LinearOperator
from operators.masks import (
    center_mask,
    draw_acceleration,
    equispaced_fraction_mask,
    equispaced_mask,
    file_seed,
    magic_fraction_mask,
    magic_mask,
    random_mask,
)
from operators.noise import estimate_noise_covariance, estimate_noise_level
from operators.sampling import Sampling
from operators.sense import Sense
from operators.sensitivity import Sensitivity

__all__ = [
    "Adjoint",
    "Composition",
    "Fourier",
    "LinearOperator",
    "Sampling",
    "Sense",
    "Sensitivity",
    "adjoint_gap",
    "calibration_region",
    "center_mask",
    "centred_fft",
    "centred_ifft",
    "draw_acceleration",
    "equispaced_fraction_mask",
    "equispaced_mask",
    "espirit_maps",
    "estimate_noise_covariance",
    "estimate_noise_level",
    "file_seed",
    "magic_fraction_mask",
    "magic_mask",
    "normal_gap",
    "random_mask",
]

"""Linear physics of imaging: operators with exact adjoints, and what is needed to set them up."""

from operators.checks import adjoint_gap, normal_gap
from operators.espirit import espirit_maps
from operators.fourier import Fourier, centred_fft, centred_ifft
from operators.linear import Adjoint, Composition, LinearOperator
from operators.masks import equispaced_fraction_mask, random_mask
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
    "centred_fft",
    "centred_ifft",
    "equispaced_fraction_mask",
    "espirit_maps",
    "normal_gap",
    "random_mask",
]

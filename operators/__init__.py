"""Linear physics of imaging: operators with exact adjoints, and what is needed to set them up.

    y, x, n = A(x), A.adjoint(y), A.normal(x)       A x, A^H y, A^H A x; the batch is the first axis
    A.H, A @ B, A + B,  A - B,  2 * A,  A / 2,  -A    operators again, with exact adjoints
    VerticalStack([A, B], [m, n]),  Identity()      A on top of B, with m and n entries along axis 1; I
    A.on(device, dtype)                             a copy elsewhere; A stays as it is

Masks come as NumPy or torch, bool or 0/1, (cols,) or with more axes, see `Sampling`.

linear, stacked                     the base class and its algebra
sense, soft_sense, noncartesian     multi-coil MRI: Cartesian, with several sets of maps, along trajectories
coil_chunks                         how Cartesian coil images are worked through: in pieces that fit the cache
fourier, sampled_fourier, nufft, toeplitz, hybrid    Fourier transforms
sampling, masked                    masks as operators, inpainting, partial Fourier of one coil
masks, density_masks, poisson_disc, radial_masks     which samples are measured?
withholding                         which of them judge a reconstruction of the others?
trajectories, density, density_weighted              trajectories, and weights for their density
sensitivity, espirit, walsh, map_sets, calibration, model_error    coil maps: applied, estimated, checked
gridded_calibration                 the centre of k-space on the grid, from a trajectory
compression, principal_coils        coils: fewer
prewhitening, noise, trajectory_noise                coils: white, and how noisy
off_resonance                       off-resonance during the readout
compressive, hadamard, blocks       sensing matrices, and images in blocks
adapters                            to and from sigpy and deepinv
checks, shapes                      is an adjoint exact? from which shapes to which does an operator map?
conversion                          what `.to(dtype)` means for complex tensors
"""

from operators.adapters import from_sigpy, to_deepinv, to_sigpy
from operators.blocks import Blocks, Flatten
from operators.calibration import calibration_region
from operators.checks import adjoint_gap, normal_gap
from operators.compression import (
    CompressedCoils,
    VirtualCoils,
    compress_coils,
    compress_coils_geometric,
    mix_coils,
    virtual_coils,
)
from operators.compressive import BinaryDense, Dense, gaussian_matrix, orthonormal_matrix
from operators.density import density_compensation, radial_density_compensation
from operators.density_masks import golden_kt_mask, kt_interleaved_mask, variable_density_mask
from operators.density_weighted import DensityWeighted, WeightedSense, density_weighted
from operators.espirit import Espirit, espirit, espirit_maps
from operators.fourier import Fourier, centred_fft, centred_ifft
from operators.gridded_calibration import GriddedCalibration, gridded_calibration
from operators.hadamard import Hadamard, sequency_order, walsh_hadamard
from operators.hybrid import Hybrid, crop_readout, hybrid
from operators.linear import Adjoint, Composition, LinearOperator, Scaled, Sum
from operators.map_sets import MapSets, map_sets_needed
from operators.masked import Inpainting, PartialFourier
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
from operators.noise import NoiseEstimates, estimate_noise_covariance, estimate_noise_level, noise_level_estimates
from operators.noncartesian import NonCartesianSense
from operators.nufft import NUFFT
from operators.off_resonance import OffResonance
from operators.poisson_disc import poisson_disc_mask
from operators.prewhitening import noise_covariance, whitening_matrix
from operators.principal_coils import PrincipalCoils, principal_coils
from operators.radial_masks import pseudo_radial_mask, radial_mask
from operators.sampled_fourier import SampledFourier
from operators.sampling import Sampling
from operators.sense import Sense
from operators.sensitivity import Sensitivity, SoftSensitivity
from operators.shapes import Shapes
from operators.soft_sense import SoftSense
from operators.stacked import Identity, VerticalStack
from operators.toeplitz import Toeplitz
from operators.trajectories import GOLDEN_ANGLE, koosh_ball_trajectory, radial_trajectory, spiral_trajectory
from operators.trajectory_noise import TrajectoryNoise, trajectory_noise_level
from operators.walsh import walsh_maps

__all__ = [
    "Adjoint",
    "BinaryDense",
    "Blocks",
    "Composition",
    "CompressedCoils",
    "Dense",
    "DensityWeighted",
    "Espirit",
    "Flatten",
    "Fourier",
    "GOLDEN_ANGLE",
    "GriddedCalibration",
    "Hadamard",
    "Hybrid",
    "Identity",
    "Inpainting",
    "LinearOperator",
    "MapSets",
    "NUFFT",
    "NoiseEstimates",
    "NonCartesianSense",
    "OffResonance",
    "PartialFourier",
    "PrincipalCoils",
    "SampledFourier",
    "Sampling",
    "Scaled",
    "Sense",
    "Sensitivity",
    "Shapes",
    "SoftSense",
    "SoftSensitivity",
    "Sum",
    "Toeplitz",
    "TrajectoryNoise",
    "VerticalStack",
    "VirtualCoils",
    "WeightedSense",
    "adjoint_gap",
    "calibration_region",
    "center_mask",
    "centred_fft",
    "centred_ifft",
    "compress_coils",
    "compress_coils_geometric",
    "crop_readout",
    "density_compensation",
    "density_weighted",
    "draw_acceleration",
    "equispaced_fraction_mask",
    "equispaced_mask",
    "espirit",
    "espirit_maps",
    "estimate_noise_covariance",
    "estimate_noise_level",
    "file_seed",
    "from_sigpy",
    "gaussian_matrix",
    "golden_kt_mask",
    "gridded_calibration",
    "hybrid",
    "koosh_ball_trajectory",
    "kt_interleaved_mask",
    "magic_fraction_mask",
    "magic_mask",
    "map_sets_needed",
    "mix_coils",
    "noise_covariance",
    "noise_level_estimates",
    "normal_gap",
    "orthonormal_matrix",
    "poisson_disc_mask",
    "principal_coils",
    "pseudo_radial_mask",
    "radial_density_compensation",
    "radial_mask",
    "radial_trajectory",
    "random_mask",
    "sequency_order",
    "spiral_trajectory",
    "to_deepinv",
    "to_sigpy",
    "trajectory_noise_level",
    "variable_density_mask",
    "virtual_coils",
    "walsh_hadamard",
    "walsh_maps",
    "whitening_matrix",
]

"""The noise level of samples on a trajectory, from the samples themselves."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from operators.linear import require_complex

OUTERMOST = 20  # one of so many samples is called periphery
WIDEST_BAND = 0.4  # cycles a sample that an object may fill, so that enough of the band holds noise alone
GUARD = 0.03  # cycles a sample, for the window and the edges of the object
FEWEST_SAMPLES = 32  # of a readout: a shorter one has no band to speak of


class TrajectoryNoise(NamedTuple):
    """Two estimates of sigma, the standard deviation of a sample's complex noise.

    Attributes:
        outer_readout: from the part of the readout's field of view that lies outside the object; NaN where the readout
            is not sampled densely enough to have one.
        periphery: from the samples farthest from the centre; too high where they hold signal.
    """

    outer_readout: float
    periphery: float


def trajectory_noise_level(kspace: Tensor, trajectory: Tensor, extent: tuple[float, float]) -> TrajectoryNoise:
    """Return estimates of the noise level of one slice, `sigma^2 = mean over coils of E|n_c|^2`.

    Along a readout k(t) the phase of a pixel at r turns by `k'(t) r` cycles a sample, so an object of the given extent
    fills the band `|f| <= max_t |k'(t)| |extent| / 2` of the readout's spectrum. What is beyond it is noise: the mean
    energy of the Hann-windowed readout's transform there, its median over frequencies.

    Args:
        kspace: (coil, readout, sample) complex.
        trajectory: (readout, sample, 2) real, in cycles per field of view.
        extent: of the object along both axes, in fields of view.

    Raises:
        TypeError: real k-space.
        ValueError: shapes that do not fit.
    """
    require_complex("trajectory_noise_level", "k-space", kspace)
    if kspace.ndim != 3 or kspace.shape[1:] != trajectory.shape[:-1] or trajectory.shape[-1] != 2:
        raise ValueError(
            f"trajectory_noise_level: k-space {tuple(kspace.shape)} (coil, readout, sample) does not fit the trajectory"
            f" {tuple(trajectory.shape)} (readout, sample, 2)"
        )
    return TrajectoryNoise(_outer_readout(kspace, trajectory, extent), _periphery(kspace, trajectory))


def _outer_readout(kspace: Tensor, trajectory: Tensor, extent: tuple[float, float]) -> float:
    length = kspace.shape[-1]
    if length < FEWEST_SAMPLES:
        return math.nan
    steps = torch.linalg.vector_norm(trajectory.diff(dim=1), dim=-1)
    band = float(steps.max()) * math.hypot(*extent) / 2
    if band > WIDEST_BAND:
        return math.nan
    window = torch.hann_window(length, dtype=kspace.real.dtype, device=kspace.device)
    spectrum = torch.fft.fft(kspace * (window / torch.linalg.vector_norm(window)), dim=-1)
    energy = spectrum.abs().square().double().mean((0, 1))
    return math.sqrt(float(energy[torch.fft.fftfreq(length, device=kspace.device).abs() > band + GUARD].median()))


def _periphery(kspace: Tensor, trajectory: Tensor) -> float:
    distance = torch.linalg.vector_norm(trajectory, dim=-1).flatten()
    outer = distance.topk(max(1, len(distance) // OUTERMOST)).indices
    # The median of |n|^2 is sigma^2 log 2; it is not moved by the few samples that hold an edge of the object.
    variances = kspace.flatten(1)[:, outer].abs().square().double().median(1).values / math.log(2)
    return math.sqrt(float(variances.mean()))

"""The noise level of samples on a trajectory."""

from __future__ import annotations

import math

import pytest
import torch

from operators import NUFFT, radial_trajectory, spiral_trajectory, trajectory_noise_level

SIZE, LEVEL = 48, 0.02


def measured(trajectory: torch.Tensor, level: float = LEVEL) -> torch.Tensor:
    """Noisy samples (coil, readout, sample) of a sharp square."""
    image = torch.zeros(1, 4, SIZE, SIZE, dtype=torch.complex128)
    image[:, :, 8:40, 8:40] = 1
    samples = NUFFT(trajectory, (SIZE, SIZE))(image)[0]
    noise = torch.randn(samples.shape, dtype=torch.complex128, generator=torch.Generator().manual_seed(0))
    return samples + level * noise


def test_outside_of_the_object_there_is_noise_alone():
    trajectory = radial_trajectory(30, 2 * SIZE, SIZE)
    found = trajectory_noise_level(measured(trajectory), trajectory[0], (1, 1))
    assert found.outer_readout == pytest.approx(LEVEL, rel=0.04)
    assert found.periphery > LEVEL  # edges of the square are there too


def test_readouts_without_an_outside():
    trajectory = radial_trajectory(30, SIZE, SIZE)
    found = trajectory_noise_level(measured(trajectory), trajectory[0], (1, 1))
    assert math.isnan(found.outer_readout)
    noise = LEVEL * torch.randn(4, 30, SIZE, dtype=torch.complex64, generator=torch.Generator().manual_seed(1))
    half = trajectory_noise_level(noise, trajectory[0], (0.5, 0.5))  # a smaller object leaves one
    assert half.outer_readout == pytest.approx(LEVEL, rel=0.1)
    short = trajectory_noise_level(measured(trajectory)[..., :20], trajectory[0, :, :20], (0.1, 0.1))
    assert math.isnan(short.outer_readout)


def test_the_periphery_of_noise_is_noise():
    trajectory = spiral_trajectory(4, 600, SIZE)
    noise = LEVEL * torch.randn(8, 4, 600, dtype=torch.complex64, generator=torch.Generator().manual_seed(1))
    assert trajectory_noise_level(noise, trajectory[0], (1, 1)).periphery == pytest.approx(LEVEL, rel=0.05)


def test_what_is_refused():
    trajectory = radial_trajectory(3, SIZE, SIZE)
    with pytest.raises(ValueError, match="does not fit the trajectory"):
        trajectory_noise_level(torch.ones(1, 2, SIZE, dtype=torch.complex64), trajectory[0], (1, 1))
    with pytest.raises(TypeError, match="complex"):
        trajectory_noise_level(torch.ones(1, 3, SIZE), trajectory[0], (1, 1))

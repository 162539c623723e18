"""The centre of k-space from samples on a trajectory."""

from __future__ import annotations

import pytest
import torch

from operators import NUFFT, centred_fft, gridded_calibration, radial_trajectory
from operators.gridded_calibration import calibration_width

SIZE = 48


def smooth_images(coils: int = 3) -> torch.Tensor:
    """Coil images (1, coil, rows, cols) of a disc, each with a phase and a brightness of its own."""
    axis = (torch.arange(SIZE, dtype=torch.float64) - SIZE // 2) / SIZE
    rows, cols = torch.meshgrid(axis, axis, indexing="ij")
    disc = torch.sigmoid((0.3 - torch.hypot(rows, cols)) * 60)
    coil = torch.arange(1, coils + 1)[:, None, None]
    return (disc * torch.exp(1j * coil * (rows - 2 * cols)) * (1 + coil * rows))[None]


@pytest.mark.parametrize("spokes", [40, 80])
def test_it_is_the_centre_of_the_grid(spokes):
    images = smooth_images()
    trajectory = radial_trajectory(spokes, 2 * SIZE, SIZE)
    found = gridded_calibration(NUFFT(trajectory, (SIZE, SIZE))(images)[0], trajectory[0])
    width = found.kspace.shape[-1]
    assert width == {40: 22, 80: 24}[spokes]
    centre = slice(SIZE // 2 - width // 2, SIZE // 2 + width // 2)
    expected = centred_fft(images, (-2, -1))[0][:, centre, centre]
    assert torch.linalg.vector_norm(found.kspace - expected) < 0.01 * torch.linalg.vector_norm(expected)


def test_noise_is_as_strong_as_it_says():
    trajectory = radial_trajectory(60, 2 * SIZE, SIZE)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(16, 60, 2 * SIZE, dtype=torch.complex128, generator=generator)
    found = gridded_calibration(noise, trajectory[0])
    level = float(found.kspace.abs().square().mean().sqrt())
    assert level == pytest.approx(found.noise_gain, rel=0.3) and level < 0.8


def test_widths():
    grid = torch.stack(torch.meshgrid(*2 * [torch.arange(-12.0, 12)], indexing="ij"), -1).double()
    assert calibration_width(grid) == 24
    assert calibration_width(grid, max_width=9) == 8
    assert calibration_width(grid[:, ::2]) == 0  # every second column
    assert calibration_width(radial_trajectory(4, 64, 32)[0]) < 4


def test_what_is_refused():
    trajectory = radial_trajectory(8, 64, 32)[0]
    samples = torch.ones(2, 8, 64, dtype=torch.complex64)
    with pytest.raises(ValueError, match="expected at least 6 x 6: measure more readouts, or give sensitivity maps"):
        gridded_calibration(samples, trajectory)
    with pytest.raises(ValueError, match="does not fit the trajectory"):
        gridded_calibration(samples[:, :4], trajectory)
    with pytest.raises(TypeError, match="complex"):
        gridded_calibration(samples.real, trajectory)

"""The centre of k-space on a Cartesian grid, from samples on a trajectory: what coil maps are estimated from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from operators.density import density_compensation
from operators.fourier import centred_fft
from operators.linear import require_complex
from operators.nufft import NUFFT, check_trajectory
from operators.toeplitz import Toeplitz

# Cycles per field of view from a grid point to the nearest sample: half a cycle between lines that keep to Nyquist,
# and a little for the distance of samples along the line. With 0.55 the centre of a uniform spiral is wrong by a fifth.
LARGEST_GAP = 0.53
MARGIN = 4  # grid points around the region, into which neighbours beyond it leak
TIKHONOV = 1e-3  # of the weighted normal operator, whose norm is about 1
POINTS_AT_A_TIME = 2**14
ACCURACY = 1e-8


@final
@dataclass(frozen=True, eq=False)
class GriddedCalibration:
    """A calibration region as Cartesian scans have it.

    Attributes:
        kspace: (coil, width, width) complex, zero frequency at index width // 2.
        noise_gain: standard deviation of its noise, relative to that of a sample.
    """

    kspace: Tensor
    noise_gain: float


def calibration_width(trajectory: Tensor, *, max_width: int = 24) -> int:
    """Return the width of the largest square around the centre that the trajectory samples densely; 0 for none.

    Every grid point of it has a sample within `LARGEST_GAP`.

    Args:
        trajectory: (*samples, 2) real, in cycles per field of view.
        max_width: largest width; widths are even.
    """
    points = trajectory.reshape(-1, 2).double()
    points = points[(points.abs() <= max_width / 2 + 1).all(1)]
    axis = torch.arange(-(max_width // 2), (max_width + 1) // 2, dtype=torch.float64, device=points.device)
    grid = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)
    nearest = torch.full((len(grid),), torch.inf, dtype=torch.float64, device=points.device)
    for some in points.split(POINTS_AT_A_TIME):
        nearest = torch.minimum(nearest, torch.cdist(grid, some).amin(1))
    covered = nearest <= LARGEST_GAP
    for width in range(max_width - max_width % 2, 0, -2):
        inside = ((grid >= -(width // 2)) & (grid < width // 2)).all(1)
        if bool(covered[inside].all()):
            return width
    return 0


def gridded_calibration(
    kspace: Tensor, trajectory: Tensor, *, min_width: int = 6, max_width: int = 24
) -> GriddedCalibration:
    """Return the fully sampled centre of k-space on the grid, the least-squares fit to the samples around it.

    With the samples b inside the region and a margin, weights W for their density, and the NUFFT F of an image that has
    as few pixels as the region and its margin are wide, it is the centred Fourier transform of
    `(F^H W F + mu)^-1 F^H W b`. Fields of view are the same, so k-space is at whole cycles per field of view, in the
    units of the samples.

    Args:
        kspace: b (coil, *samples) complex.
        trajectory: (*samples, 2) real, in cycles per field of view.
        min_width: the region must be at least this wide.
        max_width: the region is at most this wide.

    Raises:
        TypeError: real k-space, complex trajectories.
        ValueError: shapes that do not fit, a centre that is not sampled densely enough.
    """
    require_complex("gridded_calibration", "k-space", kspace)
    if kspace.shape[1:] != trajectory.shape[:-1] or trajectory.shape[-1] != 2:
        raise ValueError(
            f"gridded_calibration: k-space {tuple(kspace.shape)} (coil, *samples) does not fit the trajectory"
            f" {tuple(trajectory.shape)} (*samples, 2)"
        )
    width = calibration_width(trajectory, max_width=max_width)
    if width < min_width:
        raise ValueError(
            f"gridded_calibration: the centre of k-space is densely sampled in {width} x {width} cycles per field of"
            f" view, expected at least {min_width} x {min_width}: measure more readouts, or give sensitivity maps of"
            " another scan"
        )
    size = width + 2 * MARGIN
    points = trajectory.reshape(-1, 2).double()
    near = (points.abs() <= size / 2 - 0.5).all(1)
    points, samples = points[near][None], kspace.flatten(1)[:, near].to(torch.complex128)
    check_trajectory("gridded_calibration", points, (size, size))
    weights = density_compensation(points, (size, size))
    # So few unknowns that the system is solved directly: the columns of the matrix are images of single pixels.
    pixels = torch.eye(size**2, dtype=torch.complex128, device=kspace.device).reshape(1, -1, size, size)
    matrix = Toeplitz(points, (size, size), weights, accuracy=ACCURACY)(pixels)[0].flatten(1).mT
    matrix = matrix + TIKHONOV * pixels[0].flatten(1)
    right_side = NUFFT(points, (size, size), accuracy=ACCURACY).adjoint(weights[:, None] * samples[None])[0]
    image = torch.linalg.solve(matrix, right_side.flatten(1).mT).mT.reshape(-1, size, size)
    centre = slice(size // 2 - width // 2, size // 2 + width // 2)
    return GriddedCalibration(
        centred_fft(image, (-2, -1))[:, centre, centre].to(kspace.dtype),
        float((weights.square().sum() / weights.sum()).sqrt()),
    )

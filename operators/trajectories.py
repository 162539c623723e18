"""Where radial, spiral and koosh-ball acquisitions sample k-space, in cycles per field of view."""

from __future__ import annotations

from math import pi, sqrt

import torch
from torch import Tensor

GOLDEN_ANGLE = pi * (sqrt(5) - 1) / 2  # 111.246 degrees
GOLDEN_MEANS = (
    0.465571231876768,
    0.682327803828019,
)  # the second is the real root of x^3 + x = 1, the first its square


def radial_trajectory(
    n_spokes: int, n_readout: int, matrix_size: int, *, angle_increment: float | None = None
) -> Tensor:
    """Return 2D spokes through the centre, (1, spokes, readout, 2) float64, in cycles per field of view:

        k_ij = r_j (cos(i phi), sin(i phi)),    r_j = (j - n_readout // 2) matrix_size / n_readout

    Sample n_readout // 2 of each spoke is the centre; the first axis of k is that of the image rows.

    Args:
        n_spokes: number of spokes; pi / 2 times matrix_size samples k-space fully.
        n_readout: samples of a spoke, matrix_size times the readout oversampling.
        matrix_size: image size N along both axes; spokes reach from -N / 2 to N / 2.
        angle_increment: phi in radians; None for pi / n_spokes (uniform), `GOLDEN_ANGLE` for the golden angle.

    Raises:
        ValueError: sizes below 1.

    Reference: Winkelmann, Schaeffter, Koehler, Eggers, Doessel, IEEE TMI 26, 2007 (golden angle).
    """
    _require_positive(
        "radial_trajectory", ("n_spokes", n_spokes), ("n_readout", n_readout), ("matrix_size", matrix_size)
    )
    angles = torch.arange(n_spokes, dtype=torch.float64) * (
        pi / n_spokes if angle_increment is None else angle_increment
    )
    return _spokes(torch.stack([angles.cos(), angles.sin()], dim=-1), n_readout, matrix_size)


def koosh_ball_trajectory(n_spokes: int, n_readout: int, matrix_size: int) -> Tensor:
    """Return 3D spokes through the centre, (1, spokes, readout, 3) float64, in cycles per field of view.

    Spoke i has the direction with height frac(i g_1) along the first axis and azimuth 2 pi frac(i g_2), where g are the
    golden means: they cover the half sphere evenly for any number of spokes, and any stretch of them does.

    Args:
        n_spokes: number of spokes; pi / 2 times matrix_size^2 samples k-space fully.
        n_readout: samples of a spoke, as for `radial_trajectory`.
        matrix_size: image size N along all three axes.

    Raises:
        ValueError: sizes below 1.

    Reference: Chan, Ramsay, Cunningham, Plewes, Magn Reson Med 61, 2009.
    """
    _require_positive(
        "koosh_ball_trajectory", ("n_spokes", n_spokes), ("n_readout", n_readout), ("matrix_size", matrix_size)
    )
    index = torch.arange(n_spokes, dtype=torch.float64)
    height, azimuth = (index * GOLDEN_MEANS[0]) % 1, 2 * pi * ((index * GOLDEN_MEANS[1]) % 1)
    radius = (1 - height.square()).sqrt()
    return _spokes(
        torch.stack([height, radius * azimuth.cos(), radius * azimuth.sin()], dim=-1), n_readout, matrix_size
    )


def spiral_trajectory(
    n_interleaves: int,
    n_readout: int,
    matrix_size: int,
    *,
    acceleration: float = 1.0,
    angle_increment: float | None = None,
) -> Tensor:
    """Return 2D Archimedean spirals from the centre outwards, (1, interleaves, readout, 2) float64:

        k_ij = N / 2 s_j (cos theta_ij, sin theta_ij),    theta_ij = 2 pi n_turns s_j + i phi

    with `s_j = sqrt(j / (n_readout - 1))` and `n_turns = N / (2 n_interleaves acceleration)`: neighbouring arms of all
    interleaves lie `acceleration` cycles per field of view apart, 1 being the Nyquist distance. The square root makes
    samples equally dense in area (constant speed away from the centre). The shape only: no limits of gradient amplitude
    or slew rate are kept.

    Args:
        n_interleaves: number of arms.
        n_readout: samples of an arm, at least 2.
        matrix_size: image size N along both axes.
        acceleration: undersampling of the arms' distance.
        angle_increment: phi in radians; None for 2 pi / n_interleaves, `GOLDEN_ANGLE` for the golden angle.

    Raises:
        ValueError: sizes below 1, an acceleration that is not positive.

    Reference: Ahn, Kim, Cho, IEEE TMI 5, 1986; Glover, Magn Reson Med 42, 1999.
    """
    _require_positive(
        "spiral_trajectory",
        ("n_interleaves", n_interleaves),
        ("n_readout - 1", n_readout - 1),
        ("matrix_size", matrix_size),
    )
    if not acceleration > 0:
        raise ValueError(f"spiral_trajectory: acceleration is {acceleration}, expected a positive number")
    turns = matrix_size / (2 * n_interleaves * acceleration)
    step = 2 * pi / n_interleaves if angle_increment is None else angle_increment
    s = torch.linspace(0, 1, n_readout, dtype=torch.float64).sqrt()
    theta = 2 * pi * turns * s + step * torch.arange(n_interleaves, dtype=torch.float64)[:, None]
    return (matrix_size / 2 * s[:, None] * torch.stack([theta.cos(), theta.sin()], dim=-1))[None]


def _spokes(directions: Tensor, n_readout: int, matrix_size: int) -> Tensor:
    radii = (torch.arange(n_readout, dtype=torch.float64) - n_readout // 2) * (matrix_size / n_readout)
    return (directions[:, None] * radii[:, None])[None]


def _require_positive(who: str, *sizes: tuple[str, int]) -> None:
    for name, size in sizes:
        if size < 1:
            raise ValueError(f"{who}: {name} is {size}, expected at least 1")

"""How well the data of a slice fit its model and its image: numbers that need no reference and fit every method.

A certificate says that the image solves the method's own equation. It cannot say that the equation is that of the
scan: with wrong coil maps, an object larger than the field of view or a corrupted line the image is certified and
wrong. These numbers tell; `molrecon.scans.data_warnings` judges them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypedDict, final

import torch
from torch import Tensor

from molrecon.reconstructors.classical import CGSense
from molrecon.reconstructors.conditioning import SCALE_QUANTILE
from molrecon.scans.preparation import GRID_STEP, MIN_SETS_WIDTH
from molrecon.solvers.solver_settings import SolverSettings
from operators import Sense, SoftSense, espirit_maps
from operators.calibration import calibration_region, low_resolution
from operators.model_error import MIN_WIDTH
from operators.sensitivity import coil_norm

OBJECT_LEVEL = 0.1  # of the object's brightness, relative to the SCALE_QUANTILE
LEAST_SQUARES = SolverSettings(tol=0.05, max_steps=8)  # of CG-SENSE: more steps leave nearly the same residual
NEIGHBOURS = 3  # measured columns on either side that a column is compared with
FEWEST_COLUMNS = 8


@final
@dataclass(frozen=True)
class SliceChecks:
    """What was measured on one slice; NaN where a check does not apply, such as the maps of a single coil.

    b are the data, A the model with maps S and mask M, x the image, sigma the noise level, n the number of measured
    complex numbers (coils included), c the coil images of the Hann-windowed calibration region, and z = A^H b the
    zero-filled image. Maps of another norm than 1 are normalised first, and x is multiplied by their norm.

    Attributes:
        calibration_sigmas: `|c - S S^H c|` over what noise makes of it: 5 to 25 in sound scans, because maps
            that vary across a pixel of c, which is as large as the region is narrow, leave something too.
        calibration_share: the same, squared, noise subtracted, over |c|^2.
        calibration_shape: rows and columns of the region; (0, 0) where there is none.
        own_share: calibration_share of maps that ESPIRiT finds in these data.
        second_set_energy: share of |c|^2 that a second set of ESPIRiT maps explains, and the first does not.
        sets: of maps that A has.
        second_set_pixels: share of the object's pixels in which ESPIRiT's second eigenvalue is above its threshold.
        least_squares_sigmas: `|A y - b| / (sigma sqrt(n))` of the CG-SENSE image y, the best that A can do.
        least_squares_share: the same, squared, noise subtracted, over |b|^2.
        line_ratio: the largest residual of a measured column of y, over the median of its neighbours.
        line_share: that column's residual squared, noise subtracted, over |b|^2. line_column: its index.
        residual_sigmas: `|A x - b| / (sigma sqrt(n))`; a regularised image leaves about 1.
        residual_share: the same, squared, noise subtracted, over |b|^2.
        residual_over_zero_filled: `|A x - b| / |A z - b|`.
        brightness: maximum of |x| over the SCALE_QUANTILE of |z|, the intensity that learned methods divide by.
        zero_filled_brightness: maximum of |z| over the same.
    """

    calibration_sigmas: float = math.nan
    calibration_share: float = math.nan
    calibration_shape: tuple[int, int] = (0, 0)
    own_share: float = math.nan
    second_set_energy: float = math.nan
    second_set_pixels: float = math.nan
    sets: int = 1
    least_squares_sigmas: float = math.nan
    least_squares_share: float = math.nan
    line_ratio: float = math.nan
    line_share: float = math.nan
    line_column: int = -1
    residual_sigmas: float = math.nan
    residual_share: float = math.nan
    residual_over_zero_filled: float = math.nan
    brightness: float = math.nan
    zero_filled_brightness: float = math.nan


class _CalibrationChecks(TypedDict, total=False):
    """The fields of `SliceChecks` that come from the calibration region."""

    calibration_sigmas: float
    calibration_share: float
    calibration_shape: tuple[int, int]
    own_share: float
    second_set_energy: float
    second_set_pixels: float


@torch.no_grad()
def check_slice(kspace: Tensor, operator: Sense | SoftSense, noise_level: float, image: Tensor) -> SliceChecks:
    """Return what the data say about the model and the image.

    Args:
        kspace: b (1, coil, rows, cols) complex, not zero.
        operator: A, of this slice. noise_level: sigma, in the units of kspace.
        image: x (1, rows, cols) complex, of any method; (1, set, rows, cols) with several sets of maps.
    """
    mask = operator.sampling_mask
    maps = operator.sensitivity_maps if operator.sets is not None else operator.sensitivity_maps[:, None]
    weight = coil_norm(maps, 2)
    maps = maps / weight.clamp_min(torch.finfo(weight.dtype).tiny)[:, :, None]
    operator, image = SoftSense(maps, mask), image.reshape(weight.shape) * weight
    zero_filled = operator.adjoint(kspace)
    n = int(mask.expand(1, *kspace.shape[-2:]).sum()) * kspace.shape[1]
    noise = n * noise_level**2
    energy = energy_of(kspace)
    fitted = CGSense()(kspace, operator, solver=LEAST_SQUARES).value
    least_squares = operator(fitted) - kspace
    residual, first = energy_of(operator(image) - kspace), energy_of(operator(zero_filled) - kspace)
    shown, plain = brightness_of(torch.linalg.vector_norm(image, dim=1), torch.linalg.vector_norm(zero_filled, dim=1))
    ratio, column, line_share = _worst_line(least_squares, mask, noise_level, energy)
    return SliceChecks(
        **_calibration(kspace, maps, mask, noise_level),
        sets=maps.shape[1],
        least_squares_sigmas=root_of(energy_of(least_squares), noise),
        least_squares_share=share_of(energy_of(least_squares), noise, energy),
        line_ratio=ratio,
        line_share=line_share,
        line_column=column,
        residual_sigmas=root_of(residual, noise),
        residual_share=share_of(residual, noise, energy),
        residual_over_zero_filled=root_of(residual, first),
        brightness=shown,
        zero_filled_brightness=plain,
    )


def _calibration(kspace: Tensor, maps: Tensor, mask: Tensor, noise_level: float) -> _CalibrationChecks:
    """Return how well the maps in use explain the calibration region, and how well its own maps would."""
    coils, shape = kspace.shape[1], kspace.shape[-2:]
    if coils < 2:
        return {}
    try:
        region = calibration_region(kspace, mask, min_width=MIN_WIDTH)
    except ValueError:  # no fully sampled centre: nothing to compare the maps with
        return {}
    sizes = region.shape[-2], region.shape[-1]
    images, window = low_resolution(region, shape)
    unexplained, covered = _unexplained(images, maps)
    # Where there are maps the projection takes as many of the coils' dimensions away; the window takes noise as well.
    noise = noise_level**2 * window * (coils - covered)
    checks: _CalibrationChecks = {
        "calibration_sigmas": root_of(unexplained, noise),
        "calibration_share": share_of(unexplained, noise, energy_of(images)),
        "calibration_shape": sizes,
    }
    grid = [max(-(-size // GRID_STEP), width) for size, width in zip(shape, sizes, strict=True)]
    sets = espirit_maps(region, grid, noise_level=noise_level, n_maps=2, max_iterations=10, tol=1e-2)
    coarse, coarse_window = low_resolution(region, grid)
    own, own_covered = _unexplained(coarse, sets[:, :1])
    checks["own_share"] = share_of(own, noise_level**2 * coarse_window * (coils - own_covered), energy_of(coarse))
    if min(sizes) >= MIN_SETS_WIDTH:
        brightness = coarse.abs().square().sum(1).flatten()
        level = OBJECT_LEVEL**2 * brightness.kthvalue(max(1, round(SCALE_QUANTILE * len(brightness)))).values
        inside, second = brightness >= level, sets[:, 1].abs().amax(1).flatten() > 0
        checks["second_set_energy"] = energy_of((sets[:, 1].conj() * coarse).sum(1)) / energy_of(coarse)
        checks["second_set_pixels"] = float((second & inside).sum() / inside.sum())
    return checks


def _unexplained(images: Tensor, maps: Tensor) -> tuple[float, float]:
    """Return the energy of coil images outside the span of unit maps, and how many maps a pixel has on average.

    Args:
        images: (1, coil, rows, cols).
        maps: (1, set, coil, rows, cols), the sets orthogonal to each other as those of ESPIRiT are.
    """
    outside = images - (maps * (maps.conj() * images[:, None]).sum(2, keepdim=True)).sum(1)
    return energy_of(outside), float(maps.abs().square().sum((1, 2)).mean())


def _worst_line(residual: Tensor, mask: Tensor, noise_level: float, energy: float) -> tuple[float, int, float]:
    """Return ratio, index and share of the column that fits least, see `SliceChecks`; (NaN, -1, NaN) if none can be."""
    if mask.shape[-2] > 1:  # rows are undersampled as well: a column is no readout
        return math.nan, -1, math.nan
    columns = torch.nonzero(mask.reshape(-1)).flatten()
    if len(columns) < FEWEST_COLUMNS:
        return math.nan, -1, math.nan
    energies = residual[0][..., columns].abs().square().sum((0, 1)).double().cpu()
    # The window of neighbours is moved inwards at either end, so that every column has as many.
    count = 2 * NEIGHBOURS + 1
    start = (torch.arange(len(columns)) - NEIGHBOURS).clamp(0, len(columns) - count)
    neighbours = energies[start[:, None] + torch.arange(count)]
    own = torch.arange(len(columns))[:, None] == start[:, None] + torch.arange(count)
    median = neighbours[~own].reshape(len(columns), count - 1).median(1).values
    ratios = (energies / median.clamp_min(torch.finfo(median.dtype).tiny)).sqrt()
    worst = int(ratios.argmax())
    noise = residual.shape[1] * residual.shape[2] * noise_level**2
    return float(ratios[worst]), int(columns[worst]), share_of(float(energies[worst]), noise, energy)


def brightness_of(image: Tensor, zero_filled: Tensor) -> tuple[float, float]:
    """Return the maxima of `|image|` and `|zero_filled|` over the SCALE_QUANTILE of the latter; NaN where it is 0."""
    shown, plain = image.abs(), zero_filled.abs().flatten()
    scale = float(plain.kthvalue(max(1, round(SCALE_QUANTILE * len(plain)))).values)
    return (float(shown.max()) / scale, float(plain.max()) / scale) if scale else (math.nan, math.nan)


def energy_of(values: Tensor) -> float:
    """Return `|values|^2`."""
    return float(values.abs().square().sum(dtype=torch.float64))


def root_of(energy: float, other: float) -> float:
    """Return the root of a ratio of energies, infinite or NaN where there is none."""
    return math.sqrt(energy / other) if other > 0 else (math.inf if energy > 0 else math.nan)


def share_of(energy: float, noise: float, total: float) -> float:
    """Return the share of a total that an energy has beyond that of the noise."""
    return max(0.0, energy - noise) / total if total > 0 else math.nan

"""A simulated fully sampled multi-coil scan of a real image, and undersampled problems of its strips."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from torch import Tensor

from molrecon.scans.preparation import sets_needed
from molrecon.simulation.contrast import augmented_contrast, bias_field, without_noise_floor
from molrecon.simulation.fields import draw_fields
from molrecon.simulation.filters import KSpaceFilter, draw_filter
from molrecon.simulation.images import LARGEST, draw_narrow_view, object_width, placed, wrap
from molrecon.simulation.noise import complex_noise, draw_noise_level, image_noise_level
from molrecon.simulation.phase import chemical_shift, rough_phase, smooth_phase, transplanted
from molrecon.simulation.problem import Problem, robust_maximum
from molrecon.simulation.sampling import draw_calibration_lines, draw_mask, draw_matrix
from operators import Sense, SoftSense, centred_fft, centred_ifft, espirit_maps

VIRTUAL_COILS = 8
CALIBRATION = 24  # rows and columns of the calibration region that maps are estimated from, at most
OWN_NOISE = 0.5  # of a measurement's noise at least, relative to that of the image it is made of
MARGIN = 8

ResidualPhase = Callable[[np.random.Generator], np.ndarray]


@final
@dataclass(frozen=True)
class SimulatedScan:
    """A fully sampled scan before noise and undersampling.

    Attributes:
        coil_images: (coil, rows, cols) complex64.
        sensitivity_maps: (coil, rows, cols) complex64, from the scan's own noisy calibration region; (set, coil, rows,
            cols) where that asks for two sets.
        reference: (rows, cols) complex64, `sum_c conj(s_c) x_c`; of two sets (set, rows, cols), for each, which is what
            fits the coil images best, as the sets are orthogonal. Its 99.5 % quantile of magnitudes is about 1.
        noise_level: standard deviation of the complex noise that this scan is measured with, before any filter.
        calibration_lines: central columns that every mask of the scan samples.
        acquired: (cols,) bool, the acquired matrix where the image's grid is larger; None for all columns.
        kspace_filter: the filter that coil images and maps have seen already, and the noise of a measurement has to.
        wrapped: the object is so many times as wide as its view, along the columns; 1: it fits in.
    """

    coil_images: Tensor
    sensitivity_maps: Tensor
    reference: Tensor
    noise_level: float
    calibration_lines: int
    acquired: np.ndarray | None
    kspace_filter: KSpaceFilter | None = None
    wrapped: float = 1.0


def with_phase(magnitude: np.ndarray, rng: np.random.Generator, residual: ResidualPhase | None = None) -> np.ndarray:
    """Return a magnitude (rows, cols) with a simulated phase, complex64: smooth, rough, of fat, of another scan.

    Args:
        magnitude: not negative.
        rng: source of all randomness.
        residual: draws the rough part of a real scan's phase, (rows, cols) in rad of any size; None: none is used.
    """
    angle = rough_phase(magnitude, rng)
    if residual is not None and rng.random() < 0.35:
        angle = angle + rng.choice([-1.0, 1.0]) * transplanted(residual(rng), (magnitude.shape[0], magnitude.shape[1]))
    image = magnitude * np.exp(1j * angle).astype(np.complex64)
    if rng.random() < 0.25:
        image = chemical_shift(image, rng)
    return np.asarray(image * smooth_phase((image.shape[0], image.shape[1]), rng), np.complex64)


def simulate(
    image: np.ndarray,
    rng: np.random.Generator,
    *,
    residual: ResidualPhase | None = None,
    virtual_coils: int = VIRTUAL_COILS,
    two_sets: float = 0.0,
    largest: int = LARGEST,
) -> SimulatedScan:
    """Return a scan of a real image.

    A complex image keeps its phase and its contrast. A magnitude loses its noise floor, may get another contrast and a
    bias field, and a phase (`with_phase`). Both are placed (`images.placed`), received by 1 to 32 coils
    (`fields.draw_fields`), sometimes filtered (`filters.draw_filter`), and measured with noise of 0.0005 to 0.05, yet
    at least half of what the image was taken with: less would teach that the noise of the reference is signal. The maps
    are ESPIRiT's, from a calibration region of at most 24 x 24 samples with noise of its own.

    Args:
        image: (rows, cols), complex64 or a float32 magnitude.
        rng: source of all randomness.
        residual: see `with_phase`.
        virtual_coils: coils at most.
        two_sets: share of the scans of several coils whose view is smaller than the object, which wraps around
            (`images.draw_narrow_view`). Unless it is zero, all scans have as many sets of maps, 1 or 2, as the pipeline
            would take for their calibration region; else one.
        largest: pixels of the longer side of an object at most.
    """
    own = image_noise_level(image)
    x = placed(image, rng, largest)
    if not np.iscomplexobj(x):
        x = without_noise_floor(x, own)
        x = np.abs(augmented_contrast(x, rng))
        if rng.random() < 0.3:
            x = x * bias_field((x.shape[0], x.shape[1]), rng)
        x = with_phase(x, rng, residual)
    coil_images = torch.from_numpy((draw_fields(x, virtual_coils, rng) * x).astype(np.complex64))
    wrapped = 1.0
    if two_sets and rng.random() < two_sets and len(coil_images) > 1:
        view = draw_narrow_view(coil_images, rng)
        wrapped = max(1.0, object_width(coil_images) / view)
        coil_images = wrap(coil_images, view)
    cols = coil_images.shape[-1]
    acquired = draw_matrix(cols, rng)
    if acquired is not None:
        spectrum = centred_fft(coil_images, (-1,))
        coil_images = centred_ifft(spectrum * torch.from_numpy(acquired), (-1,))
    kspace_filter = draw_filter(rng)
    if kspace_filter is not None:
        coil_images = kspace_filter(coil_images)
    lines = draw_calibration_lines(cols, rng)
    combined = robust_maximum(torch.linalg.vector_norm(coil_images, dim=0))
    coil_images = coil_images / combined
    own = own / max(float(robust_maximum(torch.from_numpy(np.abs(image)))), 1e-9)
    level = max(draw_noise_level(rng), OWN_NOISE * own)
    maps = _maps(coil_images, level, lines, kspace_filter, rng, choose=two_sets > 0)
    reference = torch.linalg.vecdot(maps, coil_images, dim=-3)
    return SimulatedScan(coil_images, maps, reference, level, lines, acquired, kspace_filter, wrapped)


def _maps(
    coil_images: Tensor,
    level: float,
    lines: int,
    kspace_filter: KSpaceFilter | None,
    rng: np.random.Generator,
    *,
    choose: bool,
) -> Tensor:
    """Return maps (coil, rows, cols), or (2, coil, rows, cols) where that is chosen, of a noisy calibration region."""
    coils, rows, cols = coil_images.shape
    if coils == 1:
        return torch.ones_like(coil_images)
    noise = _measured_noise(coil_images.shape, level, kspace_filter, rng)
    noisy = centred_fft(coil_images + noise, (-2, -1))
    height, across = min(CALIBRATION, rows), min(CALIBRATION, lines)
    top, left = rows // 2 - height // 2, cols // 2 - across // 2
    calibration = noisy[None, :, top : top + height, left : left + across]
    sets = sets_needed([calibration], (rows, cols), level) if choose else 1
    return espirit_maps(calibration, (rows, cols), noise_level=level, n_maps=sets)[0]


def _measured_noise(
    shape: torch.Size, level: float, kspace_filter: KSpaceFilter | None, rng: np.random.Generator
) -> Tensor:
    """Return the noise of coil images (coil, rows, cols)."""
    noise = level * complex_noise(shape, rng)
    return noise if kspace_filter is None else kspace_filter(noise)


def strip(scan: SimulatedScan, rows: int, rng: np.random.Generator, *, margin: int = MARGIN) -> Problem:
    """Return the reconstruction of a strip of readout positions, or of the whole slice where it is little larger.

    With a fully sampled readout every position is a problem of its own, so a strip is a complete one; with masks along
    both axes it is a smaller field of view. The first and last rows of a strip do not count: a network sees padding
    beside them that a whole slice does not have.

    Args:
        scan: the scan.
        rows: of the strip, those that do not count included; slices of up to a quarter more are taken whole.
        rng: source of all randomness.
        margin: rows at each end that do not count.
    """
    height, cols = scan.reference.shape[-2:]
    whole = height <= 1.25 * rows
    part = slice(0, height) if whole else _shown(scan.reference, rows, rng)
    images, maps = scan.coil_images[:, part], scan.sensitivity_maps[..., part, :]
    mask = draw_mask((images.shape[-2], cols), scan.calibration_lines, rng, scan.acquired, scan.wrapped)
    operator = Sense(maps[None], mask) if maps.ndim == 3 else SoftSense(maps[None], mask)
    # Its rows being fewer, the filter of the noise is as coarse along them; it falls as fast.
    noisy = images + _measured_noise(images.shape, scan.noise_level, scan.kspace_filter, rng)
    kspace = operator.sampling(centred_fft(noisy, (-2, -1))[None])
    level = torch.tensor([scan.noise_level])
    return Problem(kspace, operator, scan.reference[None, ..., part, :], level, 0 if whole else margin)


def _shown(reference: Tensor, rows: int, rng: np.random.Generator) -> slice:
    """Return `rows` consecutive rows of an image (rows, cols), or (set, rows, cols), where it shows something.

    Slices without signal are left out: the logarithm of their error would dominate the loss.
    """
    energy = reference.abs().square().mean(-1).reshape(-1, reference.shape[-2]).sum(0).unfold(0, rows, 1).mean(1)
    shown = torch.nonzero(energy >= 0.3 * energy.max()).flatten()
    first = int(shown[int(rng.integers(len(shown)))])
    return slice(first, first + rows)

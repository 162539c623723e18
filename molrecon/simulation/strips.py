"""Simulated multi-coil acquisitions of training images: contrast, geometry, phase, coils, calibration and noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
import torch
import torch.nn.functional as nnf
from torch import Tensor

from molrecon.simulation.coils import draw_loops, receive_field
from molrecon.simulation.contrast import augmented_contrast
from molrecon.simulation.noise import complex_noise, draw_noise_level
from molrecon.simulation.phase import smooth_phase
from molrecon.simulation.problem import Problem, magnitude_psnr, measured, robust_maximum, stack_problems
from operators import Sense, centred_fft, equispaced_fraction_mask, espirit_maps, random_mask

NOISE_RANGE = (0.001, 0.03)  # standard deviation of the complex noise of a coil, relative to the image maximum
__all__ = [
    "NOISE_RANGE",
    "Problem",
    "Scan",
    "augmented_contrast",
    "complex_noise",
    "draw_mask",
    "draw_noise_level",
    "draw_strip",
    "magnitude_psnr",
    "measured",
    "robust_maximum",
    "simulate_scan",
    "stack_problems",
    "strip_problem",
]


@final
@dataclass(frozen=True)
class Scan:
    """A simulated fully sampled scan, before noise and undersampling.

    Attributes:
        coil_images: (coil, rows, cols) complex64, noise-free.
        sensitivity_maps: (coil, rows, cols) complex64, ESPIRiT maps from the scan's own noisy calibration region.
        reference: (rows, cols) complex64, `sum_c conj(s_c) x_c`; its 99.5 % quantile of magnitudes is 1.
        noise_level: standard deviation of the complex noise that this scan is measured with.
    """

    coil_images: Tensor
    sensitivity_maps: Tensor
    reference: Tensor
    noise_level: float


def simulate_scan(image: np.ndarray, size: int, rng: np.random.Generator, coils: int = 8) -> Scan:
    """Return a scan of an augmented image: random contrast, rim, geometry, phase, coils, noise and calibration width.

    Args:
        image: (rows, cols) complex64.
        size: rows and columns of the scan.
        rng: source of all randomness.
        coils: coils of the scan; up to half of them may be silent (zero maps).
    """
    x = _geometry(augmented_contrast(image, rng), size, rng) * smooth_phase((size, size), rng)
    active = int(rng.integers(max(4, coils // 2), coils + 1))
    field = _coil_fields(active, size, rng)
    noise_level = draw_noise_level(rng, NOISE_RANGE)
    scan = np.zeros((coils, size, size), np.complex64)
    scan[:active] = field * x
    width = int(rng.integers(16, 33))
    return _calibrated(torch.from_numpy(scan), noise_level, width, rng)


def _calibrated(coil_images: Tensor, noise_level: float, width: int, rng: np.random.Generator) -> Scan:
    """Return the scan of these coil images in any units, the silent coils last; its maps see noise of their own."""
    size = coil_images.shape[-1]
    active = int(coil_images.abs().amax((1, 2)).count_nonzero())
    coil_images = coil_images / robust_maximum(coil_images.abs().square().sum(0).sqrt())
    noisy = coil_images[:active] + noise_level * complex_noise((active, size, size), rng)
    centre = slice(size // 2 - width // 2, size // 2 - width // 2 + width)
    rows = slice(size // 2 - 16, size // 2 + 16)
    calibration = centred_fft(noisy, (-2, -1))[:, rows, centre]
    maps = torch.zeros_like(coil_images)
    maps[:active] = espirit_maps(calibration[None], (size, size))[0]
    reference = torch.linalg.vecdot(maps, coil_images, dim=0)
    return Scan(coil_images, maps, reference, noise_level)


def strip_problem(scan: Scan, rows: int, rng: np.random.Generator) -> Problem:
    """Return the reconstruction of a strip of `rows` readout positions, undersampled along the columns (batch of 1).

    With a fully sampled readout every position is a problem of its own, so a strip is a complete one. One problem
    in eight is undersampled along both axes instead, at random with a density that falls towards the edges.
    """
    size = scan.reference.shape[-1]
    strip = draw_strip(scan.reference, rows, rng)
    maps, images = scan.sensitivity_maps[:, strip], scan.coil_images[:, strip]
    if rng.random() < 0.125:
        mask = _density_mask((rows, size), rng)[None]
    else:
        mask = torch.from_numpy(draw_mask(size, rng))[None, None]
    operator = Sense(maps[None], mask)
    # Coils without a map stay silent: their noise would be pure loss.
    heard = (scan.sensitivity_maps.abs().amax((1, 2)) > 0)[:, None, None]
    noisy = images + heard * scan.noise_level * complex_noise(images.shape, rng)
    kspace = operator.sampling(centred_fft(noisy, (-2, -1))[None])
    return Problem(kspace, operator, scan.reference[None, strip], torch.tensor([scan.noise_level]))


def draw_strip(reference: Tensor, rows: int, rng: np.random.Generator) -> slice:
    """Return `rows` consecutive rows of an image (rows, cols) that is not zero, where it shows something.

    Strips of air teach nothing, and the logarithm of their tiny error would outweigh the rest.
    """
    energy = reference.abs().square().mean(1).unfold(0, rows, 1).mean(1)
    shown = torch.nonzero(energy > 0.3 * reference.abs().square().mean()).flatten()
    first = int(shown[int(rng.integers(len(shown)))])
    return slice(first, first + rows)


def draw_mask(
    cols: int, rng: np.random.Generator, accelerations: tuple[float, float] = (3, 8), fewest_low: int = 0
) -> np.ndarray:
    """Return a random or equispaced mask (cols,) with a centre of 5 to 14 %, and of `fewest_low` lines at least.

    accelerations: the range to draw from; the centre takes at most seven tenths of what the acceleration allows.
    """
    acceleration = rng.uniform(*accelerations)
    center_fraction = min(max(rng.uniform(0.05, 0.14), fewest_low / cols), 0.7 / acceleration)
    seed = int(rng.integers(2**31))
    if rng.random() < 0.5:
        return random_mask(cols, acceleration, center_fraction, seed)
    return equispaced_fraction_mask(cols, acceleration, center_fraction, seed)


def _density_mask(shape: tuple[int, int], rng: np.random.Generator) -> Tensor:
    y, x = np.meshgrid(*[np.abs(np.linspace(-1, 1, n)) for n in shape], indexing="ij")
    density = (1.05 - np.clip(np.hypot(y, x) / np.sqrt(2), 0, 1)) ** rng.uniform(1, 3)
    mask = rng.random(shape) < density * (np.prod(shape) / rng.uniform(4, 9) / density.sum())
    mask |= (y < 0.25) & (x < 24 / shape[1])
    return torch.from_numpy(mask)


def _geometry(image: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    if rng.random() < 0.5:
        image = image.T
    rows, cols = image.shape
    largest = max(rows, cols)
    zoom = rng.uniform(0.7, 1.1) * size / largest  # canvas pixels a pixel of the image
    angle = rng.normal(0, 0.15) + rng.integers(0, 2) * np.pi
    flip = rng.choice([-1.0, 1.0])
    c, s = np.cos(angle) / zoom, np.sin(angle) / zoom
    theta = torch.tensor(
        [
            [flip * c * size / cols, -s * size / cols, rng.uniform(-0.08, 0.08)],
            [flip * s * size / rows, c * size / rows, rng.uniform(-0.08, 0.08)],
        ],
        dtype=torch.float32,
    )
    grid = nnf.affine_grid(theta[None], [1, 2, size, size], align_corners=False)
    channels = torch.view_as_real(torch.from_numpy(np.ascontiguousarray(image))).movedim(-1, 0)[None].contiguous()
    sampled = nnf.grid_sample(channels, grid, mode="bicubic", align_corners=False)[0]
    return torch.view_as_complex(sampled.movedim(0, -1).contiguous()).numpy()


def _coil_fields(coils: int, size: int, rng: np.random.Generator) -> np.ndarray:
    view = rng.uniform(105, 135)  # mm from the centre to the edge
    y, x = np.meshgrid(*[np.linspace(-view, view, size, dtype=np.float32)] * 2, indexing="ij")
    turn = rng.uniform(0, 2 * np.pi)
    points = np.stack([np.cos(turn) * x - np.sin(turn) * y, np.sin(turn) * x + np.cos(turn) * y, np.zeros_like(x)])
    points = points.reshape(3, -1)
    loops = draw_loops(coils, 0.0, rng)
    return np.stack([gain * receive_field(c.astype(np.float32), points).reshape(size, size) for gain, c in loops])

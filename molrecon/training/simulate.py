"""Simulated multi-coil acquisitions of training images: contrast, geometry, phase, coils, calibration and noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
import torch
import torch.nn.functional as nnf
from scipy import ndimage
from torch import Tensor

from molrecon.io.coils import draw_loops, receive_field
from molrecon.metrics import psnr
from operators import Sense, centred_fft, equispaced_fraction_mask, espirit_maps, random_mask

NOISE_RANGE = (0.001, 0.03)  # standard deviation of the complex noise of a coil, relative to the image maximum


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


@final
@dataclass(frozen=True)
class Problem:
    """An undersampled measurement with its answer; the batch is the first axis.

    Attributes:
        kspace: (batch, coil, *spatial).
        operator: A.
        reference: (batch, *spatial).
        noise_level: (batch,).
    """

    kspace: Tensor
    operator: Sense
    reference: Tensor
    noise_level: Tensor

    def to(self, device: torch.device | str) -> Problem:
        """Return the problem on a device, with an operator of its own; this one stays where it is."""
        operator = self.operator.on(device)
        return Problem(self.kspace.to(device), operator, self.reference.to(device), self.noise_level.to(device))


def simulate_scan(image: np.ndarray, size: int, rng: np.random.Generator, coils: int = 8) -> Scan:
    """Return a scan of an augmented image: random contrast, rim, geometry, phase, coils, noise and calibration width.

    Args:
        image: (rows, cols) complex64.
        size: rows and columns of the scan.
        rng: source of all randomness.
        coils: coils of the scan; up to half of them may be silent (zero maps).
    """
    x = _geometry(augmented_contrast(image, rng), size, rng) * _smooth_phase(size, rng)
    active = int(rng.integers(max(4, coils // 2), coils + 1))
    field = _coil_fields(active, size, rng)
    noise_level = draw_noise_level(rng)
    scan = np.zeros((coils, size, size), np.complex64)
    scan[:active] = field * x
    width = int(rng.integers(16, 33))
    return _calibrated(torch.from_numpy(scan), noise_level, width, rng)


def plain_scan(image: np.ndarray, noise_level: float, width: int, rng: np.random.Generator, coils: int = 8) -> Scan:
    """Return a scan of an image as it is, with its own phase, for scores: only coils and noise are drawn.

    Args:
        image: (n, n) complex64.
        noise_level: of the scan.
        width: central k-space columns from which the maps are estimated.
        rng: source of all randomness.
        coils: number of coils.
    """
    field = _coil_fields(coils, len(image), rng)
    return _calibrated(torch.from_numpy((field * image).astype(np.complex64)), noise_level, width, rng)


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


def stack_problems(problems: list[Problem]) -> Problem:
    """Return one batch of problems of the same shapes; masks are broadcast where they differ in kind."""
    shape = torch.broadcast_shapes(*[p.operator.sampling_mask.shape for p in problems])
    return Problem(
        torch.cat([p.kspace for p in problems]),
        Sense(
            torch.cat([p.operator.sensitivity_maps for p in problems]),
            torch.cat([p.operator.sampling_mask.expand(shape) for p in problems]),
            problems[0].operator.encoding.fourier_ndim,
        ),
        torch.cat([p.reference for p in problems]),
        torch.cat([p.noise_level for p in problems]),
    )


def magnitude_psnr(image: Tensor, reference: Tensor) -> float:
    """Return the PSNR in dB of the magnitudes of complex images (batch, *spatial), peak the reference's maximum."""
    magnitudes = [x.detach().abs().flatten(0, -3).cpu().numpy() for x in (reference, image)]
    return psnr(magnitudes[0], magnitudes[1])


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


def draw_noise_level(rng: np.random.Generator) -> float:
    """Return a level of NOISE_RANGE, uniform in its logarithm."""
    return float(np.exp(rng.uniform(*np.log(NOISE_RANGE))))


def measured(
    image: np.ndarray, fields: np.ndarray, mask: Tensor, fourier_ndim: int, noise_level: float, rng: np.random.Generator
) -> Problem:
    """Return the measurement of an object through known receive fields; the batch is 1.

    The maps are the fields over their root-sum-of-squares, and the reference is the object times that, scaled such
    that the 99.5 % quantile of its magnitudes is 1.

    Args:
        image: (*spatial) complex, the object.
        fields: (coil, *spatial) complex, or broadcastable to that.
        mask: broadcastable to (1, *spatial) bool.
        fourier_ndim: how many of the last axes are measured in k-space.
        noise_level: standard deviation of the complex noise in the units of the reference.
        rng: source of the noise.
    """
    combined = np.sqrt((np.abs(fields) ** 2).sum(0))
    maps = torch.from_numpy(np.ascontiguousarray(fields / combined, np.complex64))[None]
    reference = torch.from_numpy((image * combined).astype(np.complex64))[None]
    reference = reference / robust_maximum(reference.abs())
    operator = Sense(maps, mask, fourier_ndim)
    kspace = operator(reference)
    kspace = operator.sampling(kspace + noise_level * complex_noise(kspace.shape, rng))
    return Problem(kspace, operator, reference, torch.tensor([noise_level]))


def robust_maximum(magnitude: Tensor) -> Tensor:
    """Return the 99.5 % quantile of magnitudes of any shape, at least 1e-6."""
    return magnitude.flatten().kthvalue(round(0.995 * magnitude.numel())).values.clamp_min(1e-6)


def complex_noise(shape: tuple[int, ...] | torch.Size, rng: np.random.Generator) -> Tensor:
    """Return complex64 white noise of unit variance, half of it in each part."""
    pair = rng.standard_normal((*shape, 2), dtype=np.float32) * np.float32(np.sqrt(0.5))
    return torch.view_as_complex(torch.from_numpy(pair))


def augmented_contrast(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a complex image of any number of axes with another contrast, its phase kept; maximum about 1.

    Half of them keep their own, but for the scale; the others get a power or a random curve of the magnitude. Three in
    ten have a bright rim besides, as subcutaneous fat makes one.
    """
    magnitude = np.abs(image)
    magnitude = magnitude / max(float(np.quantile(magnitude, 0.998)), 1e-6)
    unit = np.exp(1j * np.angle(image)).astype(np.complex64)
    kind = rng.random()
    new = np.clip(magnitude, 0, 1.5)
    if kind < 0.3:
        new = new ** rng.uniform(0.6, 1.6)
    elif kind < 0.5:
        knots = np.concatenate([[0, 0], rng.uniform(0.1, 1, 4)])
        new = np.interp(new, [0, 0.03, 0.25, 0.5, 0.75, 1.0], knots)
    if rng.random() < 0.3:
        depth = ndimage.distance_transform_edt(ndimage.binary_fill_holes(magnitude > 0.08))
        inner = rng.uniform(1, 4)
        outer = inner + rng.uniform(3, 8)
        rim = ndimage.gaussian_filter(((depth > inner) & (depth < outer)).astype(np.float32), 0.7)
        new = new * (1 + rim * rng.uniform(0.5, 2)) + rim * rng.uniform(0, 0.8)
    return (new * unit).astype(np.complex64)


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


def _smooth_phase(size: int, rng: np.random.Generator) -> np.ndarray:
    y, x = np.meshgrid(*[np.linspace(-1, 1, size)] * 2, indexing="ij")
    phase = rng.uniform(-np.pi, np.pi) + rng.normal(0, 1) * x + rng.normal(0, 1) * y
    for _ in range(4):
        fy, fx = rng.uniform(0.3, 2.2, 2)
        phase = phase + rng.normal(0, 0.4) * np.cos(
            np.pi * (fy * y + rng.choice([-1, 1]) * fx * x) + rng.uniform(0, 6.3)
        )
    return np.exp(1j * phase).astype(np.complex64)


def _coil_fields(coils: int, size: int, rng: np.random.Generator) -> np.ndarray:
    view = rng.uniform(105, 135)  # mm from the centre to the edge
    y, x = np.meshgrid(*[np.linspace(-view, view, size, dtype=np.float32)] * 2, indexing="ij")
    turn = rng.uniform(0, 2 * np.pi)
    points = np.stack([np.cos(turn) * x - np.sin(turn) * y, np.sin(turn) * x + np.cos(turn) * y, np.zeros_like(x)])
    points = points.reshape(3, -1)
    loops = draw_loops(coils, 0.0, rng)
    return np.stack([gain * receive_field(c.astype(np.float32), points).reshape(size, size) for gain, c in loops])

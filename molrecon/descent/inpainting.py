"""Inpainting without training, biharmonic and total variation, and scores of inpainted images.

Images are (batch, rows, cols) or (batch, channels, rows, cols), real, intensities in [0, 1]. `known` is the mask of
`operators.Inpainting`: bool, (batch or 1, ...) with the image's axes, True where a pixel is known.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from skimage.metrics import structural_similarity
from skimage.restoration import inpaint_biharmonic
from torch import Tensor

from molrecon.scans.metrics import psnr
from operators import Inpainting

TV_STEPS = 300  # the PSNR of 24 x 24 faces stays within 0.01 dB from here on


@final
@dataclass(frozen=True)
class InpaintingScore:
    """Means over the images, of each image's own number, data range 1, intensities clipped to [0, 1] and not rounded.

    Attributes:
        psnr: in dB, of the whole image, all channels together.
        ssim: of the whole image: 7 x 7 window, mean over the positions where it fits, and over the channels.
        hole_psnr: in dB, of the unknown pixels alone.
        hole_ssim: mean of the map of SSIM over the unknown pixels; windows beyond the border see the image reflected.
    """

    psnr: float
    ssim: float
    hole_psnr: float
    hole_ssim: float


def inpainting_score(reference: Tensor, image: Tensor, known: Tensor) -> InpaintingScore:
    """Return the score of inpainted images.

    Args:
        reference, image: of one shape, at least 7 x 7.
        known: every image has an unknown pixel.

    Raises:
        ValueError: other shapes, an image without a hole.
    """
    holes = ~known.expand(reference.shape)
    if image.shape != reference.shape or not bool(holes.flatten(1).any(1).all()):
        raise ValueError(
            f"inpainting_score: reference {tuple(reference.shape)} and image {tuple(image.shape)}, expected equal"
            " shapes, and a hole in every image"
        )
    arrays = (planes.double().cpu().numpy() for planes in (_planes(reference), _planes(image.clamp(0, 1))))
    masks = _planes(holes).cpu().numpy()
    return InpaintingScore(*np.mean([_scores(*one) for one in zip(*arrays, masks, strict=True)], axis=0).tolist())


def _scores(reference: np.ndarray, image: np.ndarray, holes: np.ndarray) -> tuple[float, float, float, float]:
    pairs = zip(reference, image, strict=True)
    means, maps = zip(*(structural_similarity(x, y, data_range=1, full=True) for x, y in pairs), strict=True)
    error = float(np.mean((reference - image)[holes] ** 2))
    hole_psnr = -10 * math.log10(error) if error > 0 else math.inf
    return psnr(reference, image, 1.0), float(np.mean(means)), hole_psnr, float(np.stack(maps)[holes].mean())


def _planes(image: Tensor) -> Tensor:
    """Return (batch, channels, rows, cols)."""
    return image[:, None] if image.ndim == 3 else image


def biharmonic_fill(measurements: Tensor, operator: Inpainting) -> Tensor:
    """Return the images whose unknown pixels solve the biharmonic equation, by scikit-image's `inpaint_biharmonic`.

    measurements: the known pixels, the others are not looked at. Every channel is filled by itself.
    """
    masks = _planes(~operator.known.expand(measurements.shape)).cpu().numpy()
    planes = _planes(measurements).double().cpu().numpy()
    filled = [
        [inpaint_biharmonic(channel, hole) if hole.any() else channel for channel, hole in zip(*one, strict=True)]
        for one in zip(planes, masks, strict=True)
    ]
    return torch.from_numpy(np.array(filled)).to(measurements).reshape(measurements.shape)


def tv_fill(measurements: Tensor, operator: Inpainting, *, n_steps: int = TV_STEPS) -> Tensor:
    """Return the image of least isotropic total variation with the given known pixels, computed in double precision.

    Minimises `sum_ij |(x_{i+1,j} - x_ij, x_{i,j+1} - x_ij)|` subject to `M x = b` by primal-dual steps with
    `tau sigma |D|^2 = 1`, `|D|^2 <= 8`, started with the mean of the known pixels in the holes. Channels are apart.

    Args:
        measurements: b, zero where nothing is known.
        operator: M.
        n_steps: primal-dual steps.

    Source: Chambolle, Pock, J. Math. Imaging Vis. 40, 2011, algorithm 1.
    """
    known = operator.known.expand(measurements.shape)
    b = measurements.double()
    axes = (-2, -1)
    mean = (b * known).sum(axes, keepdim=True) / known.sum(axes, keepdim=True).clamp_min(1)
    x = torch.where(known, b, mean)
    extrapolated, dual = x, torch.zeros(2, *x.shape, dtype=x.dtype, device=x.device)
    step = 8**-0.5
    for _ in range(n_steps):
        dual = dual + step * _differences(extrapolated)
        dual = dual / dual.norm(dim=0).clamp_min(1)
        new = torch.where(known, b, x - step * _differences_adjoint(dual))
        extrapolated, x = 2 * new - x, new
    return x.to(measurements)


def total_variation(image: Tensor) -> Tensor:
    """Return the isotropic total variation of each image, (batch,), all channels added up."""
    return _differences(image).norm(dim=0).flatten(1).sum(1)


def _differences(x: Tensor) -> Tensor:
    """Return forward differences along rows and columns, (2, *x.shape), zero at the far border."""
    result = x.new_zeros(2, *x.shape)
    result[0, ..., :-1, :] = x[..., 1:, :] - x[..., :-1, :]
    result[1, ..., :-1] = x[..., 1:] - x[..., :-1]
    return result


def _differences_adjoint(p: Tensor) -> Tensor:
    rows, cols = p[0, ..., :-1, :], p[1, ..., :-1]
    result = torch.zeros_like(p[0])
    result[..., 1:, :] += rows
    result[..., :-1, :] -= rows
    result[..., 1:] += cols
    result[..., :-1] -= cols
    return result

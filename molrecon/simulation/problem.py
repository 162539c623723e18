"""An undersampled measurement with its answer: what training takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from torch import Tensor

from molrecon.scans.metrics import psnr
from molrecon.simulation.noise import complex_noise
from operators import Sense, SoftSense


@final
@dataclass(frozen=True)
class Problem:
    """An undersampled measurement with its answer; the batch is the first axis.

    Attributes:
        kspace: (batch, coil, *spatial).
        operator: A; with several sets of maps there is an image for each.
        reference: (batch, *spatial), or (batch, set, *spatial).
        noise_level: (batch,).
        margin: first and last rows of the last two axes that a loss leaves out: beside a strip lies tissue that the
            model does not see.
    """

    kspace: Tensor
    operator: Sense | SoftSense
    reference: Tensor
    noise_level: Tensor
    margin: int = 0

    def to(self, device: torch.device | str) -> Problem:
        """Return the problem on a device, with an operator of its own; this one stays where it is."""
        operator = self.operator.on(device)
        return Problem(
            self.kspace.to(device), operator, self.reference.to(device), self.noise_level.to(device), self.margin
        )

    def judged(self, image: Tensor) -> Tensor:
        """Return the rows of an image (batch, *spatial) that count.

        The images of several sets, (batch, set, *spatial), are laid one after the other along the first spatial axis:
        a loss judges them alike, and the error of a sample is that of all.
        """
        rows = image[..., self.margin : image.shape[-2] - self.margin, :]
        return rows if self.operator.sets is None else rows.flatten(1, 2)

    def magnitude(self, image: Tensor) -> Tensor:
        """Return the magnitude to show, (batch, *spatial): of several sets `sqrt(sum_k |x_k|^2)`."""
        return image.abs() if self.operator.sets is None else torch.linalg.vector_norm(image, dim=1)


def stack_problems(problems: list[Problem]) -> Problem:
    """Return one batch of problems of the same shapes; masks are broadcast where they differ in kind.

    Raises:
        ValueError: problems with different numbers of sets of maps.
    """
    sets = [p.operator.sets for p in problems]
    if len(set(sets)) > 1:
        raise ValueError(f"stack_problems: {sets} sets of maps, expected as many in each problem")
    kind = type(problems[0].operator)
    shape = torch.broadcast_shapes(*[p.operator.sampling_mask.shape for p in problems])
    return Problem(
        torch.cat([p.kspace for p in problems]),
        kind(
            torch.cat([p.operator.sensitivity_maps for p in problems]),
            torch.cat([p.operator.sampling_mask.expand(shape) for p in problems]),
            problems[0].operator.encoding.fourier_ndim,
        ),
        torch.cat([p.reference for p in problems]),
        torch.cat([p.noise_level for p in problems]),
        problems[0].margin,
    )


def magnitude_psnr(image: Tensor, reference: Tensor) -> float:
    """Return the PSNR in dB of the magnitudes of images (batch, *spatial), peak the reference's maximum."""
    magnitudes = [x.detach().abs().flatten(0, -3).cpu().numpy() for x in (reference, image)]
    return psnr(magnitudes[0], magnitudes[1])


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
    """Return the 99.5 % quantile of magnitudes of any shape and unit: the image maximum without the brightest pixels.

    Where that is zero it is the maximum, and 1 for an image of zeros, which any scale leaves as it is.
    """
    quantile = magnitude.flatten().kthvalue(max(1, round(0.995 * magnitude.numel()))).values
    largest = magnitude.amax()
    return torch.where(quantile > 0, quantile, torch.where(largest > 0, largest, torch.ones_like(largest)))

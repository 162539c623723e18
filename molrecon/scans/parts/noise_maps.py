"""The noise in an image as it is delivered: the root sum of squares of the coil images that it stands for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from molrecon.reconstructors.base import Reconstructor
from molrecon.reconstructors.conditioning import Conditioning
from molrecon.reconstructors.noise_amplification import Acquisition, acceleration, noise_responses
from operators.sensitivity import coil_norm


@final
@dataclass(frozen=True, eq=False)
class NoiseMaps:
    """How much noise is in each pixel, each of the shape of the image.

    Attributes:
        deviation: standard deviation of the magnitude, in its units, to first order: where the image is darker than
            its noise it is too large.
        amplification: that of the complex image over `sigma sqrt(R)`, what the fully sampled scan without
            regularisation has times the root of the acceleration: the g-factor of CG-SENSE. On a trajectory it is
            relative to as many samples spread evenly over k-space, see `acceleration`.
    """

    deviation: Tensor
    amplification: Tensor


def noise_maps(
    model: Reconstructor,
    operator: Acquisition,
    kspace: Tensor,
    noise_level: float,
    image: Tensor,
    conditioning: Conditioning | None,
    probes: int,
    seeds: Sequence[int],
) -> NoiseMaps:
    """Return the noise maps (batch, rows, cols) of some slices, not cropped.

    With coil images `y_c = sum_k s_kc x_k` and their changes `d_c = sum_k s_kc (J n)_k`, the delivered magnitude is
    `m = sqrt(sum_c |y_c|^2)`; `Re(sum_c conj(y_c) d_c) / m` is its change, and `sum_c |d_c|^2` that of the complex
    image.

    Args:
        model, operator, kspace, noise_level, image, conditioning, probes: as of `noise_responses`; the level is that of
            a sample as it was measured.
        seeds: of the noise of each slice.

    Raises ValueError as `noise_responses` does.
    """
    maps = operator.sensitivity_maps if operator.sets else operator.sensitivity_maps[:, None]

    def coil_images(x: Tensor) -> Tensor:
        return (maps * (x if operator.sets else x[:, None])[:, :, None]).sum(1)

    coils = coil_images(image)
    magnitude = coil_norm(coils, 1)
    along = coils.conj() / magnitude.clamp_min(torch.finfo(magnitude.dtype).tiny)[:, None]
    squares, of_magnitude = torch.zeros_like(magnitude), torch.zeros_like(magnitude)
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    responses = noise_responses(
        model, operator, kspace, 1.0, image, conditioning=conditioning, probes=probes, generator=generators
    )
    for response in responses:  # to noise of level 1: the responses are linear in it
        change = coil_images(response)
        squares += change.abs().square().sum(1)
        of_magnitude += (along * change).sum(1).real.square()
    rate = acceleration(operator).to(squares).reshape(-1, 1, 1)
    return NoiseMaps(noise_level * (of_magnitude / probes).sqrt(), (squares / probes / rate).sqrt())

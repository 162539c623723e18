"""The images that guide a network: what is known about a scan before the iteration, and fixed during it."""

from __future__ import annotations

import torch
from torch import Tensor

from molrecon.batched import per_sample
from molrecon.conditioning import Conditioning, to_channels
from molrecon.conjugate_gradient import solve_hermitian
from molrecon.networks.base import REFERENCE_NOISE
from operators import LinearOperator

GUIDE_CHANNELS = 6
SENSE_WEIGHT, SENSE_TOL, SENSE_STEPS = 0.02, 1e-2, 30  # of the CG-SENSE image


def guide_images(kspace: Tensor, operator: LinearOperator, known: Conditioning, first: Tensor) -> Tensor:
    """Return what a guided network sees besides the iterate, (batch, GUIDE_CHANNELS, *spatial) real.

    A first reconstruction and the CG-SENSE image, both without the smooth phase and at unit scale, as two channels
    each; `|A^H A 1|`, which says where coils and sampling see anything; and half the logarithm of the noise level.
    Differentiable in the k-space and in the first image.

    Args:
        kspace: b (batch, coil, *spatial) complex.
        operator: A.
        known: scale, noise level and phase.
        first: (batch, *spatial) complex, in the units of the data.
    """
    scale, without_phase = per_sample(known.scale, known.phase), known.phase.conj().resolve_conj()
    right_side = operator.adjoint(kspace) / scale
    sense = solve_hermitian(
        lambda x: operator.normal(x) + SENSE_WEIGHT * x,
        right_side,
        tol=SENSE_TOL,
        max_steps=SENSE_STEPS,
        smallest_eigenvalue=SENSE_WEIGHT,
    ).value
    with torch.no_grad():
        energy = operator.normal(torch.ones_like(right_side)).abs()[:, None]
        level = (known.noise_level / REFERENCE_NOISE).log() / 2
        level = level.reshape(-1, 1, *[1] * (right_side.ndim - 1)).expand_as(energy)
    images = [to_channels(first / scale * without_phase), to_channels(sense * without_phase), energy, level]
    return torch.cat([image.to(known.noise_level.dtype) for image in images], 1)

"""The images that guide a network: what is known about a scan before the iteration, and fixed during it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from molrecon.networks import Denoiser
from molrecon.networks.denoiser import REFERENCE_NOISE
from molrecon.reconstructors.base import Reconstructor
from molrecon.reconstructors.conditioning import Conditioning
from molrecon.reconstructors.forward_mode import derivative
from molrecon.solvers.batched import per_sample
from molrecon.solvers.conjugate_gradient import solve_hermitian
from molrecon.solvers.solver_settings import SolverSettings
from operators import LinearOperator, principal_coils

FIRST_TOL = 1e-2  # error bound of a first equilibrium, which a second one is guided by and started at
# Of the first equilibrium's trial steps. It is left at a rough tolerance, where longer steps than
# `SolverSettings.relaxation` still pay: on strips 16 to 21 iterations instead of 24 to 27 with alpha = 1.
FIRST_RELAXATION = 3.0
GUIDE_CHANNELS = 6
IMAGE_CHANNELS = 4  # of them, the first: two images in real and imaginary part
SENSE_WEIGHT, SENSE_TOL, SENSE_STEPS = 0.02, 1e-2, 30  # of the CG-SENSE image


def with_guide(
    first: Reconstructor,
    kspace: Tensor,
    operator: LinearOperator,
    conditioning: Conditioning,
    solver: SolverSettings,
) -> Conditioning:
    """Return a conditioning with the guide of a scan, found by a first model from the principal coils.

    Differentiable in the k-space; the mixing of the coils is held fixed.

    Args:
        first: the model whose image guides. With an error bound it is found to FIRST_TOL, in other respects as `solver`
            says.
        kspace: b (batch, coil, *spatial) complex.
        operator: A.
        conditioning: scale, noise level and phase.
        solver: of the model that is guided.
    """
    rough = None
    if first.certificate().kind != "none":  # others have no error bound that could be asked for
        rough = replace(solver, tol=FIRST_TOL, relaxation=FIRST_RELAXATION, on_step=None, keep_residual=False)
    coils = principal_coils(operator)
    kspace = coils.mixed(kspace)
    image = first(kspace, coils.operator, conditioning=replace(conditioning, guide=None), solver=rough).value
    return replace(conditioning, guide=guide_images(kspace, coils.operator, conditioning, image))


def guide_response(
    first: Reconstructor,
    network: Denoiser,
    operator: LinearOperator,
    conditioning: Conditioning,
    root: Tensor,
    kspace: Tensor,
) -> Callable[[Tensor], Tensor] | None:
    """Return `n -> (dH/dc) dc`, dc the change of the guide with the data; None: the first model's is not known.

    Args:
        first, kspace, operator: as of `with_guide`.
        network: the guided H.
        conditioning: with the guide.
        root: the image at unit scale where H is evaluated.
    """
    guide = conditioning.guide
    if guide is None:
        raise ValueError("guide_response: conditioning without a guide, expected one")
    scale, coils = per_sample(conditioning.scale, conditioning.phase), principal_coils(operator)
    image = first_of_guide(guide, network.ndim) * conditioning.phase * scale
    of_first = first.response(coils.operator, replace(conditioning, guide=None), image, coils.mixed(kspace))
    if of_first is None:
        return None

    def guided(images: Tensor) -> Tensor:
        return replace(conditioning, guide=images).denoiser(network)(root)

    def respond(change: Tensor) -> Tensor:
        change = coils.mixed(change)
        return derivative(guided, guide, guide_change(change, coils.operator, conditioning, of_first(change).value))

    return respond


def guide_images(kspace: Tensor, operator: LinearOperator, conditioning: Conditioning, first: Tensor) -> Tensor:
    """Return what a guided network sees besides the iterate, (batch, GUIDE_CHANNELS, *spatial) real.

    With several sets of maps it is (batch, set, GUIDE_CHANNELS, *spatial).

    A first reconstruction and the CG-SENSE image, both without the smooth phase and at unit scale, as two channels
    each; `|A^H A 1|`, which says where coils and sampling see anything; and half the logarithm of the noise level.
    Differentiable in the k-space and in the first image.

    Args:
        kspace: b (batch, coil, *spatial) complex.
        operator: A.
        conditioning: scale, noise level and phase.
        first: like the phase, complex, in the units of the data.
    """
    scale, without_phase = per_sample(conditioning.scale, conditioning.phase), conditioning.phase.conj().resolve_conj()
    right_side = operator.adjoint(kspace) / scale
    sense = solve_hermitian(
        lambda x: operator.normal(x) + SENSE_WEIGHT * x,
        right_side,
        tol=SENSE_TOL,
        max_steps=SENSE_STEPS,
        smallest_eigenvalue=SENSE_WEIGHT,
        verify=False,
    ).value
    with torch.no_grad():
        energy = operator.normal(torch.ones_like(right_side)).abs()
        level = per_sample((conditioning.noise_level / REFERENCE_NOISE).log() / 2, energy).expand_as(energy)
    images = [first / scale * without_phase, sense * without_phase]
    axis = 1 if operator.sets is None else 2
    channels = [torch.view_as_real(image).movedim(-1, axis) for image in images] + [
        energy.unsqueeze(axis),
        level.unsqueeze(axis),
    ]
    return torch.cat([channel.to(conditioning.noise_level.dtype) for channel in channels], axis)


def guide_change(kspace_change: Tensor, operator: LinearOperator, conditioning: Conditioning, first: Tensor) -> Tensor:
    """Return how the guide changes when the k-space changes by so much and the first image by `first`, like the guide.

    Its images are linear in both; what coils, sampling and noise level say does not change. Arguments as of
    `guide_images`.
    """
    change = guide_images(kspace_change, operator, conditioning, first)
    axis = 1 if operator.sets is None else 2
    images = change.narrow(axis, 0, IMAGE_CHANNELS)
    return torch.cat([images, torch.zeros_like(change.narrow(axis, 0, GUIDE_CHANNELS - IMAGE_CHANNELS))], axis)


def first_of_guide(guide: Tensor, ndim: int) -> Tensor:
    """Return the first reconstruction among the images of a guide, as it was shown: without phase and at unit scale."""
    axis = guide.ndim - ndim - 1
    return torch.view_as_complex(guide.narrow(axis, 0, 2).movedim(axis, -1).contiguous())

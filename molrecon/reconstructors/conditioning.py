"""What a learned reconstructor reads off a scan before it starts: intensity, noise level, smooth phase, lambda."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Tensor

from molrecon.networks import Denoiser
from molrecon.networks.denoiser import REFERENCE_NOISE, from_channels, to_channels
from molrecon.solvers.conjugate_gradient import conjugate_gradient
from operators import LinearOperator, Sense, SoftSense, estimate_noise_level
from operators.model_error import coil_model_error

NOISE_COEFFICIENTS = (-0.5, 0.0)  # the other two at the start of training
NOISE_LIMITS = (5e-4, 5e-2)  # outside the trained range of relative noise levels the network is held at its end
SCALE_QUANTILE = 0.995  # of the zero-filled magnitudes: the image maximum, without the few brightest pixels
FIRST_STEPS = 8  # conjugate gradient steps of the first image where the adjoint has no meaningful intensity
PHASE_BANDWIDTH = 0.06  # cycles a pixel: half width of the Hann window that leaves the smooth phase
PHASE_ROUNDING = 1e-5  # of its modulus: H stays as Lipschitz as the network to twice that


@final
@dataclass(frozen=True)
class Conditioning:
    """What a scan tells the model before the iteration starts; fixed during it.

    Attributes:
        scale: (batch,) intensity by which data are divided, in the units of the image.
        noise_level: (batch,) standard deviation of what a coil's sample is off by, divided by `scale`: of its complex
            noise and of the coil maps' error together, `sqrt(sigma^2 + e^2)`.
        phase: (batch, *spatial) unit complex numbers; the network sees the image without this smooth phase. With
            several sets of maps (`SoftSense`) it is (batch, set, *spatial), and H acts on the image of each set by
            itself: a block-diagonal H, whose Lipschitz constant is that of a block.
        mixed: compute the network's convolutions in bfloat16, for the training of unrolled networks. Otherwise they
            are computed in the network's precision, under somebody's autocast as well: the rounding of an equilibrium
            is part of its error bound.
        guide: (batch, channel, *spatial), or (batch, set, channel, *spatial), real images that a guided network sees
            besides the iterate; None where the model has no guide, and where it shall find its own (see `MOL`).
    """

    scale: Tensor
    noise_level: Tensor
    phase: Tensor
    mixed: bool = False
    guide: Tensor | None = None

    def check(self, who: str, batch: int) -> None:
        """Raise ValueError where this cannot be the conditioning of `batch` samples.

        Noise of zero is none either: thresholds and lambda go with its logarithm. `condition` holds it above
        `NOISE_LIMITS`.
        """
        for name, values in (("scale", self.scale), ("noise_level", self.noise_level)):
            if values.shape != (batch,) or not bool((torch.isfinite(values) & (values > 0)).all()):
                raise ValueError(
                    f"{who}: conditioning with {name} {values.tolist()}, expected {batch} finite positive numbers"
                )
        if len(self.phase) != batch or not torch.is_complex(self.phase):
            raise ValueError(
                f"{who}: conditioning with phase {tuple(self.phase.shape)} of dtype {self.phase.dtype}, expected"
                f" {batch} complex images"
            )
        if not bool(((self.phase.detach().abs() - 1).abs() <= PHASE_ROUNDING).all()):
            raise ValueError(f"{who}: conditioning with a phase that is not of modulus 1, as the bound has it")
        if self.guide is not None and (len(self.guide) != batch or not bool(self.guide.detach().isfinite().all())):
            raise ValueError(
                f"{who}: conditioning with guide {tuple(self.guide.shape)}, expected finite images of {batch} samples"
            )

    def in_precision(self, dtype: torch.dtype) -> Conditioning:
        """Return the same with what the network sees in the precision of a complex dtype, that of the network."""
        real = dtype.to_real()
        guide = None if self.guide is None else self.guide.to(real)
        return replace(self, noise_level=self.noise_level.to(real), phase=self.phase.to(dtype), guide=guide)

    def repeated(self, count: int) -> Conditioning:
        """Return the same for `count` images of the one sample that this is of."""
        guide = None if self.guide is None else self.guide.expand(count, *self.guide.shape[1:])
        phase = self.phase.expand(count, *self.phase.shape[1:])
        return replace(
            self, noise_level=self.noise_level.expand(count), scale=self.scale.expand(count), phase=phase, guide=guide
        )

    def denoiser(self, network: Denoiser) -> Callable[[Tensor], Tensor]:
        """Return the network's H on complex images of this scan, shaped as `phase` and divided by `scale`."""
        in_sets = self.phase.ndim > network.ndim + 1
        level = self.noise_level.repeat_interleave(self.phase.shape[1]) if in_sets else self.noise_level
        # Networks without a guide need no second argument.
        guide = () if self.guide is None else (self.guide.flatten(0, 1) if in_sets else self.guide,)
        channels_denoiser = network.denoiser(level, *guide)
        without_phase = self.phase.conj().resolve_conj()

        def denoise(x: Tensor) -> Tensor:
            image = x * without_phase
            channels = to_channels(image.flatten(0, 1) if in_sets else image).to(self.noise_level.dtype)
            with torch.autocast(channels.device.type, torch.bfloat16, enabled=self.mixed):
                denoised = channels_denoiser(channels)
            return from_channels(denoised.to(channels.dtype)).reshape(image.shape) * self.phase

        return denoise


@torch.no_grad()
def condition(
    kspace: Tensor,
    operator: LinearOperator,
    noise_level: float | Tensor | None = None,
    *,
    phase_reference: bool = True,
) -> Conditioning:
    """Return scale, relative noise level and smooth phase of a scan.

    Scale and phase are those of the zero-filled image `A^H b` for `Sense` and `SoftSense`. Other operators may have any
    norm (a radial one weights low frequencies up many times), so theirs are those of a few conjugate gradient steps.

    To the noise level the error of the coil maps is added, `coil_model_error`, in squares. Data that are nearly free of
    noise, or were filtered so that they seem to be, would else be fitted more closely than the maps allow.

    Args:
        kspace: (batch, coil, *spatial) complex, or what else A maps to.
        operator: the acquisition A.
        noise_level: standard deviation of the complex noise in the units of k-space, a number or (batch,);
            estimated from the k-space when None.
        phase_reference: whether to find the smooth phase of the zero-filled image; else it is 1.

    Raises:
        ValueError: no noise level for another operator than Sense and SoftSense.
    """
    image = _first_image(kspace, operator)
    sets = operator.sets
    magnitude = (image.abs() if sets is None else torch.linalg.vector_norm(image, dim=1)).flatten(1)
    rank = max(1, round(SCALE_QUANTILE * magnitude.shape[1]))
    scale = magnitude.kthvalue(rank, dim=1).values
    # An empty slice has no scale. The network's biases make an image of any, which is far below all others with this.
    scale = torch.where(scale > 0, scale, magnitude.amax(1).clamp_min(torch.finfo(scale.dtype).tiny) + 0.0)
    scale = torch.where(magnitude.amax(1) > 0, scale, torch.full_like(scale, torch.finfo(scale.dtype).tiny ** 0.5))
    if noise_level is None:
        if not isinstance(operator, Sense | SoftSense):
            raise ValueError(
                f"condition: noise_level is None for {type(operator).__name__}, expected it for all but Sense and"
                " SoftSense"
            )
        noise_level = estimate_noise_level(kspace, operator.sampling_mask)
    level = torch.as_tensor(noise_level, dtype=scale.dtype, device=scale.device).expand(len(scale))
    level = with_model_error(level, kspace, operator)
    phase = smooth_phase(image, sets) if phase_reference else torch.ones_like(image)
    return Conditioning(scale, (level / scale).clamp(*NOISE_LIMITS), phase)


def with_model_error(noise_level: Tensor, kspace: Tensor, operator: LinearOperator) -> Tensor:
    """Return `sqrt(sigma^2 + e^2)` (batch,) with the error e of the coil maps, see `coil_model_error`."""
    return torch.hypot(noise_level, coil_model_error(kspace, operator).to(noise_level.dtype))


def _first_image(kspace: Tensor, operator: LinearOperator) -> Tensor:
    zero_filled = operator.adjoint(kspace)
    if isinstance(operator, Sense | SoftSense):
        return zero_filled
    return conjugate_gradient(operator.normal, zero_filled, tol=1e-2, max_steps=FIRST_STEPS, verify=False).value


def data_weight(log_data_weight: Tensor, noise_level: Tensor, largest: float) -> Tensor:
    """Return `lambda(sigma) = exp(c0 + c1 log(sigma / sigma0) + c2 log(sigma / sigma0)^2)`, shape (batch,).

    It is at most `largest`: hardly any scan of the training has less noise than where it reaches that, and the
    polynomial means nothing beyond.

    Args:
        log_data_weight: the coefficients (3,) c0, c1, c2; c0 is log lambda at the reference noise level, 0.01.
        noise_level: sigma (batch,), relative to the image scale.
        largest: upper limit of lambda.
    """
    level = (noise_level / REFERENCE_NOISE).log()
    c0, c1, c2 = log_data_weight
    return torch.exp(c0 + c1 * level + c2 * level.square()).clamp(max=largest)


def smooth_phase(image: Tensor, sets: int | None = None) -> Tensor:
    """Return `p / |p|` (1 where p = 0) for the image p low-passed by a Hann window, (batch, *spatial) complex.

    With several `sets` of maps the images are (batch, set, *spatial), and each has its own phase.
    """
    if sets is not None:
        return smooth_phase(image.flatten(0, 1)).reshape(image.shape)
    axes = tuple(range(1, image.ndim))
    spectrum = torch.fft.fftn(image, dim=axes)
    for axis in axes:
        frequency = torch.fft.fftfreq(image.shape[axis], device=image.device, dtype=image.real.dtype)
        window = torch.cos((frequency / PHASE_BANDWIDTH).clamp(-1, 1) * (math.pi / 2)).square()
        spectrum = spectrum * window.reshape(-1, *[1] * (image.ndim - 1 - axis))
    smooth = torch.fft.ifftn(spectrum, dim=axes)
    size = smooth.abs()
    return torch.where(size > 0, smooth / size.clamp_min(torch.finfo(size.dtype).tiny), torch.ones_like(smooth))

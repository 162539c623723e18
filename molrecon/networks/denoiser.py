"""What a denoiser must offer to be solved for its equilibrium."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn

# Noise level, relative to the image scale, at which thresholds and log lambda are as stored.
REFERENCE_NOISE = 0.01
LAYER_ROUNDING = 1.25  # eps of a layer that passes the whole image on, see `Denoiser.rounding_depth`


@final
@dataclass(frozen=True)
class ReceptiveField:
    """How far a network looks, and what looking costs: what evaluating it part by part needs to know.

    Attributes:
        halo: pixels to either side of a pixel, along each spatial axis, that its denoised value may depend on.
        grid: a part of the image that begins at a multiple of this, along each axis, is computed as in the whole.
        live: numbers held for each pixel at the peak of an evaluation without gradients, as measured.
        kept: numbers held for each pixel between the evaluations, of what a guide says.
    """

    halo: tuple[int, ...]
    grid: tuple[int, ...]
    live: int
    kept: int = 0


class Denoiser(nn.Module, ABC):
    """A denoiser H whose score `F = I - H` is m-strongly monotone, by construction or by intention.

    Attributes:
        monotonicity: m.
        strict: whether `lipschitz_bound` is a true upper bound, whatever the parameters are.
        ndim: number of spatial axes; for 2D+time it is 3, and the axes are (time, rows, cols).
        guide_channels: of the images that guide H, see `denoiser`; 0 for networks without a guide.
    """

    monotonicity: float
    strict: bool = False
    ndim: int
    guide_channels: int = 0

    @property
    def certified(self) -> bool:
        """Whether `Lip(H) <= 1 - m` is certain of H as it is now: a strict network in evaluation mode whose parameters
        are finite and whose bound keeps to it. Of weights that are being trained nothing is certified.
        """
        if not self.strict or self.training or not self.finite():
            return False
        # 1 - (1 - m) is m up to one rounding; a bound that is not a number is no bound.
        return 0 < self.monotonicity < 1 and 1 - self.lipschitz_bound() >= self.monotonicity - math.ulp(1.0)

    def finite(self) -> bool:
        """Tell whether all parameters are finite numbers."""
        return all(bool(parameter.isfinite().all()) for parameter in self.parameters())

    @staticmethod
    def from_module(
        module: nn.Module, *, lipschitz: float | None = None, monotonicity: float | None = None, ndim: int = 2
    ) -> ModuleDenoiser:
        """Return a module of one's own on real images (batch, 2, *spatial) as a denoiser, see `ModuleDenoiser`."""
        return ModuleDenoiser(module, lipschitz=lipschitz, monotonicity=monotonicity, ndim=ndim)

    def forward(self, image: Tensor, noise_level: float | Tensor, guide: Tensor | None = None) -> Tensor:
        """Return H of images, of the shape and kind that they have.

        Args:
            image: complex (batch, *spatial), or its real and imaginary part (batch, 2, *spatial), at unit scale.
            noise_level: a number or (batch,): standard deviation of the complex noise, relative to the image scale.
            guide: as of `denoiser`.

        Raises:
            ValueError: an image with other axes.
        """
        channels = to_channels(image) if image.is_complex() else image
        if channels.ndim != self.ndim + 2 or channels.shape[1] != 2:
            raise ValueError(
                f"{type(self).__name__}: image {tuple(image.shape)} of dtype {image.dtype}, expected complex (batch,"
                f" *spatial) or real (batch, 2, *spatial) with {self.ndim} spatial axes"
            )
        level = torch.as_tensor(noise_level, dtype=channels.dtype, device=channels.device).expand(len(channels))
        denoised = self.denoiser(level, guide)(channels)
        return from_channels(denoised) if image.is_complex() else denoised

    @abstractmethod
    def denoiser(self, noise_level: Tensor, guide: Tensor | None = None) -> Callable[[Tensor], Tensor]:
        """Return H on real images (batch, 2, *spatial); what does not depend on the image is computed here, once.

        Args:
            noise_level: (batch,) standard deviation of the complex noise, relative to the image scale.
            guide: (batch, guide_channels, *spatial) images that are fixed during the iteration; None, and only None,
                for a network with `guide_channels = 0`.
        """

    @abstractmethod
    def lipschitz_bound(self) -> float:
        """Return a bound of Lip(H), or the value that was aimed at when nothing is certified."""

    def rounding(self, dtype: torch.dtype) -> float:
        """Return what evaluating H with numbers of a dtype may be off by, relative to the image's norm.

        H is a composition of L maps that do not expand, so what one of them rounds is not magnified by those after it.
        The roundings of different layers are independent and of either sign: their squares add up, and the error grows
        as `sqrt(L)` (Higham and Mary, SIAM J Sci Comput 41, 2019). A convolution that passes the whole image on errs by
        about one eps of its norm, measured against float64 with 8 to 64 channels: sums are taken in many parts, and
        their length does not show. With the eps of what surrounds them (gain, phase, conversion), and never less than
        two: `max(2, 1 + depth) eps`, see `rounding_depth`. The worst case over all roundings is 10^4 times as large
        and never met. What a bias rounds that is larger than the image, and smaller than its threshold, is not counted:
        thresholds of trained networks are hundredths of the image at most.
        """
        return max(2.0, 1 + self.rounding_depth()) * torch.finfo(dtype).eps

    def rounding_depth(self) -> float:
        """Return 1.25 times the root of the number of layers; by default, of the weights.

        A layer errs by one eps where the processor has AVX-512, and by a little more elsewhere, where a sum has fewer
        parts: ten layers of 16 features were off by 4.2 eps in all.
        """
        return LAYER_ROUNDING * math.sqrt(sum(parameter.ndim > 1 for parameter in self.parameters()))

    def settings(self) -> dict[str, Any]:
        """Return the constructor's arguments, without the seed, such that JSON can hold them.

        Raises:
            TypeError: the class does not say them; such a network can be used but not saved.
        """
        raise TypeError(
            f"{type(self).__name__}: has no settings(), expected one that returns the constructor's arguments"
        )

    def receptive_field(self) -> ReceptiveField:
        """Return how far H looks, for networks whose value at a pixel depends on its surroundings only.

        Raises:
            TypeError: the class does not say; such a network is evaluated on whole images only.
            ValueError: this network's borders meet (circular padding).
        """
        raise TypeError(
            f"{type(self).__name__}: has no receptive_field(), expected one that says how far the network looks"
        )


@final
class ModuleDenoiser(Denoiser):
    """A module of one's own as the denoiser H. What its owner says of it is believed, so that bounds are "estimated".

    The noise level is not shown to it; a network that needs one, or that knows a bound of itself, is a subclass of
    `Denoiser`.

    Args:
        module: real images (batch, 2, *spatial) -> the same shape.
        lipschitz: the bound of Lip(H) that its owner vouches for; None for `1 - monotonicity`.
        monotonicity: m, with which equilibria are sought and bounded; None for `1 - lipschitz`.
        ndim: spatial axes.

    Raises:
        ValueError: neither number, a negative `lipschitz`, or m outside (0, 1] or above `1 - lipschitz`; when called,
            a result of another shape.
    """

    def __init__(
        self, module: nn.Module, *, lipschitz: float | None = None, monotonicity: float | None = None, ndim: int = 2
    ) -> None:
        super().__init__()
        m = monotonicity if lipschitz is None or monotonicity is not None else 1 - lipschitz
        bound = lipschitz if m is None or lipschitz is not None else 1 - m
        if m is None or bound is None or not (0 < m <= 1 and 0 <= bound <= 1 - m + math.ulp(1.0)):
            raise ValueError(
                f"Denoiser.from_module: got lipschitz {lipschitz} and monotonicity {monotonicity}, expected one of them"
                " at least, and 0 < monotonicity <= 1 - lipschitz"
            )
        self.module = module
        self.lipschitz = bound
        self.monotonicity = m
        self.ndim = ndim

    def settings(self) -> dict[str, Any]:
        """Return the constructor's arguments; a module can be saved that has a method `settings` too."""
        return {
            "module": self.module,
            "lipschitz": self.lipschitz,
            "monotonicity": self.monotonicity,
            "ndim": self.ndim,
        }

    def lipschitz_bound(self) -> float:
        """Return what its owner said."""
        return self.lipschitz

    def denoiser(self, noise_level: Tensor, guide: Tensor | None = None) -> Callable[[Tensor], Tensor]:
        """Return the module; `noise_level` (batch,) is ignored."""

        def denoise(image: Tensor) -> Tensor:
            denoised: Tensor = self.module(image)
            if denoised.shape != image.shape:
                raise ValueError(
                    f"Denoiser.from_module: {type(self.module).__name__} returned {tuple(denoised.shape)}, expected"
                    f" {tuple(image.shape)} as the image has"
                )
            return denoised

        return denoise


def to_channels(image: Tensor) -> Tensor:
    """Return a complex image (batch, *spatial) as real and imaginary channels (batch, 2, *spatial)."""
    return torch.view_as_real(image.resolve_conj()).movedim(-1, 1)


def from_channels(channels: Tensor) -> Tensor:
    """Return the complex image of real and imaginary channels, the inverse of `to_channels`."""
    return torch.view_as_complex(channels.movedim(1, -1).contiguous())


def largest_below(value: float, dtype: torch.dtype) -> float:
    """Return the largest number of a dtype that is not above `value`, positive: 1 - m as a network may apply it."""
    rounded = torch.tensor(value, dtype=dtype)
    return float(rounded if float(rounded) <= value else torch.nextafter(rounded, torch.zeros_like(rounded)))

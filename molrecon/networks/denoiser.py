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


@final
@dataclass(frozen=True)
class ReceptiveField:
    """How far a network looks, and what looking costs: what evaluating it part by part needs to know.

    Attributes:
        halo: pixels to either side of a pixel, along each spatial axis, that its denoised value may depend on.
        grid: a part of the image that begins at a multiple of this, along each axis, is computed as in the whole.
        live: numbers held for each pixel at the peak of an evaluation without gradients, as measured.
    """

    halo: tuple[int, ...]
    grid: tuple[int, ...]
    live: int


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
        return 1 - self.lipschitz_bound() >= self.monotonicity - math.ulp(1.0)

    def finite(self) -> bool:
        """Tell whether all parameters are finite numbers."""
        return all(bool(parameter.isfinite().all()) for parameter in self.parameters())

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
        at most one eps of its norm, measured against float64 with 8 to 64 channels: sums are taken in many parts, and
        their length does not show. With the eps of what surrounds them (gain, phase, conversion), and never less than
        two: `max(2, 1 + depth) eps`, see `rounding_depth`. The worst case over all roundings is 10^4 times as large
        and never met.
        """
        return max(2.0, 1 + self.rounding_depth()) * torch.finfo(dtype).eps

    def rounding_depth(self) -> float:
        """Return the root of the number of layers, each of which errs by one eps; by default, of the weights."""
        return math.sqrt(sum(parameter.ndim > 1 for parameter in self.parameters()))

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


def largest_below(value: float, dtype: torch.dtype) -> float:
    """Return the largest number of a dtype that is not above `value`, positive: 1 - m as a network may apply it."""
    rounded = torch.tensor(value, dtype=dtype)
    return float(rounded if float(rounded) <= value else torch.nextafter(rounded, torch.zeros_like(rounded)))

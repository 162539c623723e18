"""The strictly monotone network of plain convolutions, each of norm at most 1."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any, final

import torch
from torch import Tensor, nn

from molrecon.networks.cached_function import CachedFunction
from molrecon.networks.convolution import Padding, convolve
from molrecon.networks.denoiser import LAYER_ROUNDING, REFERENCE_NOISE, Denoiser, ReceptiveField, largest_below
from molrecon.networks.initial import cosine_filters
from molrecon.networks.lipschitz import certified_norm_bound, normalised_kernels


@final
class SpectralNetwork(Denoiser):
    """Denoiser `H = (1 - m) W_n a(W_(n-1) ... a(W_1 x))` of convolutions with `|W_i| <= 1`: `Lip(H) <= 1 - m`.

    The activation `a(u) = u - clip(u + b, -t, t)` is soft thresholding of u around -b, 1-Lipschitz, with one
    threshold a feature that grows with the noise level sigma as `t0 (sigma / sigma0)^p`. The first and the last
    convolution start as a tight frame of cosines and its transpose, those between as the identity.

    Each convolution is applied divided by its certified norm where that exceeds 1, in training as in evaluation, and
    differentiably. Without gradients that is computed once for each value of the parameters (see `CachedFunction`).

    Args:
        monotonicity: m, in (0, 1).
        layers: convolutions, at least 2.
        features: channels between them.
        kernel_size: odd size of the filters.
        ndim: spatial axes, 2 or 3.
        padding: of the convolutions.
        seed: of the initial weights.

    Shapes: real images (batch, 2, *spatial), of any size.

    Attributes:
        strict: True; `lipschitz_bound` is a true upper bound.

    References: Pramanik, Zimmerman, Jacob, IEEE TCI 2023, section IV (spectral normalisation); Delattre, Barthelemy,
    Araujo, Allauzen, ICML 2023 (the bound).
    """

    strict = True

    def __init__(
        self,
        *,
        monotonicity: float = 0.01,
        layers: int = 5,
        features: int = 64,
        kernel_size: int = 3,
        ndim: int = 2,
        padding: Padding = "zeros",
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not 0 < monotonicity < 1 or layers < 2 or features < 1 or kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(
                f"SpectralNetwork: got monotonicity {monotonicity}, layers {layers}, features {features}, kernel_size"
                f" {kernel_size}; expected a number between 0 and 1, at least 2, at least 1 and an odd size"
            )
        if ndim not in (2, 3) or padding not in ("zeros", "circular"):
            raise ValueError(
                f"SpectralNetwork: got ndim {ndim}, padding {padding!r}; expected 2 or 3, 'zeros' or 'circular'"
            )
        self.monotonicity = monotonicity
        self.layers = layers
        self.features = features
        self.kernel_size = kernel_size
        self.ndim = ndim
        self.padding: Padding = padding
        channels = [2, *[features] * (layers - 1), 2]
        self.weights = nn.ParameterList(_initial_weights(channels, (kernel_size,) * ndim, seed))
        self.bias = nn.Parameter(torch.zeros(layers - 1, features))
        noise = REFERENCE_NOISE / math.sqrt(kernel_size**ndim)  # of a frame coefficient
        self.log_threshold = nn.Parameter(torch.full((layers - 1, features), math.log(noise / (layers - 1))))
        self.noise_power = nn.Parameter(torch.ones(layers - 1, features))
        self._normalised = CachedFunction(self._normalise)
        self._bounds = CachedFunction(_norm_bounds)

    def settings(self) -> dict[str, Any]:
        """Return the arguments that build a network of this shape."""
        return {
            "monotonicity": self.monotonicity,
            "layers": self.layers,
            "features": self.features,
            "kernel_size": self.kernel_size,
            "ndim": self.ndim,
            "padding": self.padding,
        }

    @staticmethod
    def _normalise(*kernels: Tensor) -> list[Tensor]:
        # What a layer's bound is too large by, the image loses in intensity, layer after layer.
        return [normalised_kernels(k[None], k.ndim - 2, fine=k.ndim < 5)[0] for k in kernels]

    def applied_kernels(self) -> list[Tensor]:
        """Return the convolutions (out, in, *size) as H applies them."""
        return self._normalised(*self.weights)

    def receptive_field(self) -> ReceptiveField:
        """Return how far H looks: half a filter a convolution.

        Raises:
            ValueError: circular padding, where the first pixel sees the last one.
        """
        if self.padding == "circular":
            raise ValueError("SpectralNetwork: padding is 'circular', expected 'zeros' to evaluate it part by part")
        # In double precision a convolution on the CPU gathers the neighbours of all pixels first.
        gathered = self.kernel_size**self.ndim if self.bias.dtype == torch.float64 else 0
        halo = (self.layers * (self.kernel_size // 2),) * self.ndim
        return ReceptiveField(halo, grid=(1,) * self.ndim, live=(3 + gathered) * self.features + 8)

    def rounding_depth(self) -> float:
        """Return 1.25 times the root of the number of convolutions, see `Denoiser.rounding_depth`."""
        return LAYER_ROUNDING * math.sqrt(self.layers)

    @torch.no_grad()
    def lipschitz_bound(self) -> float:
        """Return an upper bound of Lip(H), from the filters as they are applied, in float64 with a rounding margin.

        It is that of the map with the numbers of the network's own precision, before the rounding of its evaluation,
        and NaN where a parameter is not a finite number.
        """
        if not self.finite():
            return math.nan
        norms = self._bounds(*self.applied_kernels())
        return (1 - self.monotonicity) * math.prod(max(float(norm), 1.0) for norm in norms)

    def denoiser(self, noise_level: Tensor, guide: Tensor | None = None) -> Callable[[Tensor], Tensor]:
        """Return H at given noise levels (batch,); what does not depend on the image is computed here, once."""
        power = (noise_level / REFERENCE_NOISE).log()[:, None, None]
        threshold = torch.exp(self.log_threshold + self.noise_power * power)[(..., *[None] * self.ndim)].unbind(1)
        shift = self.bias[(..., *[None] * self.ndim)].unbind()
        first, *others = self.applied_kernels()
        gain = largest_below(1 - self.monotonicity, self.bias.dtype)

        def denoise(image: Tensor) -> Tensor:
            if image.ndim != self.ndim + 2:
                raise ValueError(
                    f"SpectralNetwork: image {tuple(image.shape)}, expected (batch, 2, *spatial) with {self.ndim}"
                    " spatial axes"
                )
            x = convolve(image, first, None, self.padding)
            for kernel, t, b in zip(others, threshold, shift, strict=True):
                x = convolve(x - torch.clamp(x + b, -t, t), kernel, None, self.padding)
            return gain * x

        return denoise


def _initial_weights(channels: list[int], size: tuple[int, ...], seed: int) -> list[Tensor]:
    # The random part is small: what it adds to a norm, the normalisation takes from the intensity of every image.
    generator = torch.Generator().manual_seed(seed)
    features, taps = channels[1], math.prod(size)
    weights = [
        torch.randn((after, before, *size), generator=generator) * (0.005 / math.sqrt(features * taps))
        for before, after in pairwise(channels)
    ]
    cosines = cosine_filters(size) / math.sqrt(taps)
    for channel in range(2):
        chosen = cosines[: (features - channel + 1) // 2]
        rows = slice(channel, channel + 2 * len(chosen), 2)
        weights[0][rows, channel] += chosen
        weights[-1][channel, rows] += chosen.flip(tuple(range(1, chosen.ndim)))
    for weight in weights[1:-1]:
        weight.flatten(2)[:, :, taps // 2] += torch.eye(features)
    return weights


def _norm_bounds(*kernels: Tensor) -> list[Tensor]:
    return [certified_norm_bound(kernel[None], kernel.ndim - 2) for kernel in kernels]

"""The strictly monotone network: 1-Lipschitz convex potential layers on a Haar pyramid."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import final

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from molrecon.lipschitz import convolution_norm_bound
from molrecon.networks.base import ScoreNetwork

REFERENCE_NOISE = 0.01  # noise level, relative to the image scale, at which thresholds start as stored


@final
class ResidualNetwork(ScoreNetwork):
    """Denoiser `H = (1 - m) D` with `Lip(D) <= 1` by construction, so `F = I - H` is m-strongly monotone.

    D lifts the two channels (real, imaginary) isometrically to `channels` by zeros, passes V-cycles over a pyramid of
    orthonormal Haar averages, and projects back. One V-cycle at a level of the pyramid is: a layer, the next coarser
    level on the averages with the details passed through, a layer. Odd cycles see the pyramid shifted by one pixel,
    so that blocks of the decimated averages do not show. Every layer is a convex potential layer

        L(x) = x - 2 W^T s(W x + b),      s(u) = clip(u, -t, t),      |W| <= 1

    with a convolution W and one threshold t a feature that grows with the noise level sigma as `t0 (sigma /
    sigma0)^p`. Since s is monotone with slope at most 1, L is 1-Lipschitz; so are lifts, padding, cropping, the
    pyramid (its averages are orthonormal rows) and compositions. With one tight-frame layer a level this is shrinkage
    of wavelet coefficients, which is also where training starts (3x3 cosine filters).

    Args:
        monotonicity: m, in (0, 1).
        channels: lifted channels, at least 2.
        features: filters of each layer.
        levels: levels of the pyramid, the full resolution included.
        cycles: V-cycles.
        kernel_size: odd size of the filters.
        seed: of the initial weights.

    Shapes: real images (batch, 2, rows, cols), zero-padded at the borders.

    Attributes:
        certified: True; `lipschitz_bound` is a true upper bound.

    References: Meunier, Delattre, Araujo, Allauzen, ICML 2022 (convex potential layers); Pramanik, Zimmerman, Jacob,
    IEEE TCI 2023 (monotone operator learning).
    """

    certified = True

    def __init__(
        self,
        *,
        monotonicity: float = 0.01,
        channels: int = 8,
        features: int = 32,
        levels: int = 4,
        cycles: int = 2,
        kernel_size: int = 3,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not 0 < monotonicity < 1:
            raise ValueError(f"ResidualNetwork: monotonicity is {monotonicity}, expected a number between 0 and 1")
        if channels < 2 or min(features, levels, cycles, kernel_size) < 1 or kernel_size % 2 == 0:
            raise ValueError(
                f"ResidualNetwork: got channels {channels}, features {features}, levels {levels}, cycles {cycles},"
                f" kernel_size {kernel_size}; expected channels >= 2, the others >= 1 and an odd kernel_size"
            )
        self.monotonicity = monotonicity
        self.channels = channels
        self.features = features
        self.levels = levels
        self.cycles = cycles
        self.kernel_size = kernel_size
        n_layers = cycles * (2 * levels - 1)
        self.weight = nn.Parameter(_initial_filters(n_layers, features, channels, kernel_size, seed))
        self.bias = nn.Parameter(torch.zeros(n_layers, features))
        norms = self.weight.detach().flatten(2).norm(dim=2)
        self.log_threshold = nn.Parameter((REFERENCE_NOISE * norms).log())
        self.noise_power = nn.Parameter(torch.full((n_layers, features), 0.5))

    def settings(self) -> dict[str, int | float]:
        """Return the arguments that build a network of this shape."""
        return {
            "monotonicity": self.monotonicity,
            "channels": self.channels,
            "features": self.features,
            "levels": self.levels,
            "cycles": self.cycles,
            "kernel_size": self.kernel_size,
        }

    @torch.no_grad()
    def project(self) -> None:
        """Divide each layer's filters by their certified norm where that exceeds 1.

        To be called after optimiser steps: training is projected gradient descent on the set of 1-Lipschitz layers.
        """
        self.weight.copy_(self._normalised_weight())

    def _normalised_weight(self) -> Tensor:
        bound = convolution_norm_bound(self.weight, 2)
        return self.weight / bound.clamp_min(1.0)[:, None, None, None, None]

    def applied_weight(self) -> Tensor:
        """Return the filters (layer, features, channels, k, k) as H applies them.

        In evaluation they are always divided by their certified norm where that exceeds 1, so the guarantee holds for
        whatever the parameters hold; in training the projection sees to it.
        """
        return self.weight if self.training else self._normalised_weight()

    def lipschitz_bound(self) -> float:
        """Return an upper bound of Lip(H), from the filters as they are applied, in float64 with a rounding margin."""
        with torch.no_grad():
            bound = convolution_norm_bound(self.applied_weight().double(), 2, grid=64, iterations=8)
        # A layer with |W| = 1 + e is at worst (2 (1 + e)^2 - 1)-Lipschitz.
        layers = (2 * bound.square() - 1).clamp_min(1.0)
        return float((1 - self.monotonicity) * layers.prod() * (1 + 1e-12))

    def denoiser(self, noise_level: Tensor) -> Callable[[Tensor], Tensor]:
        """Return H at given noise levels; everything that does not depend on the image is computed here, once.

        Args:
            noise_level: (batch,) standard deviation of the complex noise relative to the image scale.
        """
        weight = self.applied_weight()
        power = (noise_level / REFERENCE_NOISE).log()[:, None, None]
        threshold = torch.exp(self.log_threshold + self.noise_power * power)[..., None, None]  # batch, layer, feature
        layers = [
            _Layer(w, b, t) for w, b, t in zip(weight.unbind(), self.bias.unbind(), threshold.unbind(1), strict=True)
        ]

        def denoise(image: Tensor) -> Tensor:
            return (1 - self.monotonicity) * self._evaluate(layers, image)

        return denoise

    def _evaluate(self, layers: list[_Layer], image: Tensor) -> Tensor:
        rows, cols = image.shape[-2:]
        multiple = 2 ** (self.levels - 1)
        x = nnf.pad(image, (0, 0, 0, 0, 0, self.channels - 2))
        per_cycle = 2 * self.levels - 1
        for cycle in range(self.cycles):
            shift = cycle % 2 if self.levels > 1 else 0
            padding = (shift, -(cols + shift) % multiple, shift, -(rows + shift) % multiple)
            x = nnf.pad(x, padding)
            x = _v_cycle(layers[cycle * per_cycle : (cycle + 1) * per_cycle], x)
            x = x[..., shift : shift + rows, shift : shift + cols]
        return x[:, :2]


@final
class _Layer:
    """`x - 2 W^T clip(W x + b, -t, t)` with fixed numbers."""

    def __init__(self, weight: Tensor, bias: Tensor, threshold: Tensor) -> None:
        self.weight, self.bias, self.threshold = weight, bias, threshold
        self.padding = weight.shape[-1] // 2

    def __call__(self, x: Tensor) -> Tensor:
        u = nnf.conv2d(x, self.weight, self.bias, padding=self.padding)
        u = torch.clamp(u, -self.threshold, self.threshold)
        return torch.sub(x, nnf.conv_transpose2d(u, self.weight, padding=self.padding), alpha=2)


def _v_cycle(layers: list[_Layer], x: Tensor) -> Tensor:
    x = layers[0](x)
    if len(layers) == 1:
        return x
    coarse = 2 * nnf.avg_pool2d(x, 2)  # orthonormal: (a + b + c + d) / 2
    change = _v_cycle(layers[1:-1], coarse) - coarse
    x = x + nnf.interpolate(change / 2, scale_factor=2, mode="nearest")
    return layers[-1](x)


def _initial_filters(n_layers: int, features: int, channels: int, size: int, seed: int) -> Tensor:
    """Cosine filters on the real and on the imaginary channel (norm 1/sqrt(2) together), small random ones."""
    generator = torch.Generator().manual_seed(seed)
    shape = (n_layers, features, channels, size, size)
    filters = torch.randn(shape, generator=generator) * (0.2 / math.sqrt(features * size * size))
    n = torch.arange(size)
    basis = torch.cos(math.pi * n[:, None] * (n[None] + 0.5) / size)
    basis = basis / basis.norm(dim=1, keepdim=True)
    cosines = torch.einsum("ai,bj->abij", basis, basis).flatten(0, 1)[1:] / (size * math.sqrt(2))
    for channel in range(2):
        first = channel * len(cosines)
        chosen = cosines[: max(0, features - first)]
        filters[:, first : first + len(chosen), channel] += chosen
    return filters

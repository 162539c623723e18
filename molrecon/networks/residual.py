"""The strictly monotone network: 1-Lipschitz residual layers on a Haar pyramid."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, final

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from molrecon.networks.cached_function import CachedFunction
from molrecon.networks.convex_potential import ConvexPotential, convex_potential_lipschitz
from molrecon.networks.convolution import Convolution, Padding, SeparableConvolution, composed_kernel
from molrecon.networks.denoiser import REFERENCE_NOISE, Denoiser, ReceptiveField, largest_below
from molrecon.networks.guide import Guide
from molrecon.networks.haar import shifted_v_cycle
from molrecon.networks.initial import residual_filters, temporal_filters
from molrecon.networks.lipschitz import certified_norm_bound, normalised_kernels
from molrecon.networks.sll import SLL, sll_step


@final
class ResidualNetwork(Denoiser):
    """Denoiser `H = (1 - m) D` with `Lip(D) <= 1` by construction, so `F = I - H` is m-strongly monotone.

    D lifts the two channels (real, imaginary) isometrically to `channels` by zeros, passes V-cycles over a pyramid of
    orthonormal Haar averages, and projects back. One V-cycle at a level of the pyramid is: a layer, the next coarser
    level on the averages with the details passed through, a layer. Odd cycles see the pyramid shifted by one pixel,
    so that blocks of the decimated averages do not show. Every layer is a residual one

        L(x) = x - 2 W^T s(W x + b),           |W| <= 1                                  "potential"
        L(x) = x - 2 W^T T^-1 s(W x + b),      T_ii = sum_j |W W^T|_ij q_j / q_i         "sll"

    with `s(u) = clip(u, -t, t)`, a convolution W and one threshold t a feature that grows with the noise level sigma as
    `t0 (sigma / sigma0)^p`. Since s is monotone with slope at most 1, L is 1-Lipschitz; so are lifts, padding,
    cropping, the pyramid (its averages are orthonormal rows) and compositions. With one tight-frame layer a level
    this is shrinkage of wavelet coefficients, which is also where training starts (cosine filters).

    The filters of "potential" are applied divided by their certified norm where that exceeds 1, in training as in
    evaluation, and differentiably: no value of the parameters leaves the 1-Lipschitz layers. "sll" needs none of it.
    Without gradients that is computed once for each value of the parameters (see `CachedFunction`).

    Args:
        monotonicity: m, in (0, 1).
        channels: lifted channels, at least 2.
        features: filters of each layer.
        levels: levels of the pyramid, the full resolution included.
        cycles: V-cycles.
        kernel_size: odd size of the filters.
        ndim: spatial axes, 2 or 3; with 3 the first may be time.
        padding: of the convolutions. "circular" is the torus of the image where its size is a multiple of
            2^(levels - 1) along the pyramid's axes, and that of the image extended by zeros elsewhere.
        layer: "potential" or "sll".
        separable: W is a convolution along the first axis within the channels, then one along the two others (2D+time).
        pyramid_axes: spatial axes that are averaged, e.g. (1, 2) in 2D+time with few frames; None for all of them.
        seed: of the initial weights.

    Shapes: real images (batch, 2, *spatial), of any size.

    With a guide the thresholds vary over the image, `t(p) = t exp(a(p; c))`: layers are 1-Lipschitz in x for any
    positive thresholds, so that bound and certificate hold for every c (see `Guide`).

    Attributes:
        strict: True; `lipschitz_bound` is a true upper bound.

    References: Meunier, Delattre, Araujo, Allauzen, ICML 2022 (convex potential layers); Araujo, Havens, Delattre,
    Allauzen, Hu, ICLR 2023 (SLL); Pramanik, Zimmerman, Jacob, IEEE TCI 2023 (monotone operator learning).
    """

    strict = True

    def __init__(
        self,
        *,
        monotonicity: float = 0.01,
        channels: int = 8,
        features: int = 32,
        levels: int = 4,
        cycles: int = 2,
        kernel_size: int = 3,
        ndim: int = 2,
        padding: Padding = "zeros",
        layer: Literal["potential", "sll"] = "potential",
        separable: bool = False,
        pyramid_axes: Sequence[int] | None = None,
        guide_channels: int = 0,
        guide_width: int = 8,
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
        if ndim not in (2, 3) or padding not in ("zeros", "circular") or layer not in ("potential", "sll"):
            raise ValueError(
                f"ResidualNetwork: got ndim {ndim}, padding {padding!r}, layer {layer!r}; expected 2 or 3, 'zeros' or"
                " 'circular', 'potential' or 'sll'"
            )
        axes = tuple(range(ndim)) if pyramid_axes is None else tuple(pyramid_axes)
        if (separable and ndim != 3) or not axes or len(set(axes)) < len(axes) or not set(axes) <= set(range(ndim)):
            raise ValueError(
                f"ResidualNetwork: got separable {separable} and pyramid_axes {axes} with ndim {ndim}; expected"
                f" separable kernels in 3 dimensions only and different axes between 0 and {ndim - 1}"
            )
        self.monotonicity = monotonicity
        self.channels = channels
        self.features = features
        self.levels = levels
        self.cycles = cycles
        self.kernel_size = kernel_size
        self.ndim = ndim
        self.padding: Padding = padding
        self.layer = layer
        self.separable = separable
        self.pyramid_axes = axes
        n_layers = cycles * (2 * levels - 1)
        size = (kernel_size,) * (ndim - 1 if separable else ndim)
        weight = residual_filters(n_layers, features, channels, size, seed)
        self.weight = nn.Parameter(weight)
        if separable:
            self.temporal = nn.Parameter(temporal_filters(n_layers, channels, kernel_size))
            weight = composed_kernel(weight, self.temporal.detach())
        self.bias = nn.Parameter(torch.zeros(n_layers, features))
        norms = weight.flatten(2).norm(dim=2)
        self.log_threshold = nn.Parameter((REFERENCE_NOISE * norms).log())
        self.noise_power = nn.Parameter(torch.full((n_layers, features), 0.5))
        if layer == "sll":
            self.log_q = nn.Parameter(torch.zeros(n_layers, features))
        self.guide_channels, self.guide_width = guide_channels, guide_width
        self.guide = None
        if guide_channels:
            self.guide = Guide(
                inputs=guide_channels,
                width=guide_width,
                features=features,
                levels=levels,
                cycles=cycles,
                factors=self._factors(),
                padding=padding,
                seed=seed,
            )
        self._normalised = CachedFunction(_normalised)
        self._steps = CachedFunction(_steps)
        self._bound = CachedFunction(_norm_bounds)

    def settings(self) -> dict[str, Any]:
        """Return the arguments that build a network of this shape."""
        return {
            "monotonicity": self.monotonicity,
            "channels": self.channels,
            "features": self.features,
            "levels": self.levels,
            "cycles": self.cycles,
            "kernel_size": self.kernel_size,
            "ndim": self.ndim,
            "padding": self.padding,
            "layer": self.layer,
            "separable": self.separable,
            "pyramid_axes": list(self.pyramid_axes),
            "guide_channels": self.guide_channels,
            "guide_width": self.guide_width,
        }

    def _factors(self) -> tuple[int, ...]:
        return tuple(2 if axis in self.pyramid_axes else 1 for axis in range(self.ndim))

    def receptive_field(self) -> ReceptiveField:
        """Return how far H looks: `n (2^(L-1) (6 p + 1) - 4 p - 1)` pixels along an axis of the pyramid.

        n cycles, L levels, filters of 2 p + 1 pixels. A layer, W and then its transpose, looks 2 p far. A V-cycle that
        looks R far on its averages does so `2 R + 1` far on the pixels of these, and with the layers before and after
        it `R' = 4 p + 2 R + 1` far, from R = 2 p at the coarsest level on. Along an axis without a pyramid all
        2 L - 1 layers of a cycle look at neighbours of the same distance: `n (2 L - 1) 2 p`. The grid is that of the
        coarsest level, `2^(L-1)`, which the shift of odd cycles leaves in place.

        Raises:
            ValueError: circular padding, where the first pixel sees the last one.
        """
        if self.padding == "circular":
            raise ValueError("ResidualNetwork: padding is 'circular', expected 'zeros' to evaluate it part by part")
        p, coarse = self.kernel_size // 2, 2 ** (self.levels - 1)
        along, across = coarse * (6 * p + 1) - 4 * p - 1, (2 * self.levels - 1) * 2 * p
        averaged = [axis in self.pyramid_axes for axis in range(self.ndim)]
        beyond = (0,) * self.ndim if self.guide is None else self.guide.halo()
        return ReceptiveField(
            halo=tuple(self.cycles * (along if a else across) + b for a, b in zip(averaged, beyond, strict=True)),
            grid=tuple(coarse if a else 1 for a in averaged),
            live=2 * self.features + (8 if self.separable else 3) * self.channels + 4 + self._gathered(),
            kept=0 if self.guide is None else self.guide.kept(),
        )

    def _gathered(self) -> int:
        # In double precision a convolution on the CPU gathers the neighbours of all pixels first.
        taps = self.kernel_size ** (self.ndim - 1 if self.separable else self.ndim)
        return taps * self.channels if self.weight.dtype == torch.float64 else 0

    def _kernels(self) -> list[Tensor]:
        return [self.weight, self.temporal] if self.separable else [self.weight]

    def applied_kernels(self) -> list[Tensor]:
        """Return the filters as H applies them: (layer, feature, channel, *size); spatial and temporal if separable."""
        return self._kernels() if self.layer == "sll" else self._normalised(*self._kernels())

    def rounding_depth(self) -> float:
        """Return 0.6 (1 + the root of the number of layers), see `rounding`.

        What a layer passes on unchanged is not rounded. The difference is, by a third of eps on average, and the
        correction's convolutions add to that: half an eps for trained filters. Filters that turn x into -x err most:
        with channels side by side 2.6 eps were measured after 4 layers and 3.3 after 10.
        """
        return 0.6 * (1 + math.sqrt(len(self.weight)))

    @torch.no_grad()
    def lipschitz_bound(self) -> float:
        """Return an upper bound of Lip(H), from the filters as they are applied, in float64 with a rounding margin.

        It is that of the map with the numbers of the network's own precision, before the rounding of its evaluation.
        For "sll" the margin is in T, and H is multiplied by the largest number that is not above `1 - m`. It is NaN
        where a parameter, or what follows from it, is not a finite number.
        """
        if not self.finite():
            return math.nan
        if self.layer == "sll":
            (steps,) = self._steps(self.log_q, *self._kernels())
            return 1 - self.monotonicity if bool(steps.isfinite().all()) else math.nan
        (norm,) = self._bound(*self.applied_kernels())
        return (1 - self.monotonicity) * float(convex_potential_lipschitz(norm).prod())

    def denoiser(self, noise_level: Tensor, guide: Tensor | None = None) -> Callable[[Tensor], Tensor]:
        """Return H at given noise levels (batch,) and, for a guided network, for given images; see `Denoiser`."""
        layers = self._layers(noise_level, self._guiding_factors(guide))
        gain = largest_below(1 - self.monotonicity, self.weight.dtype)

        def denoise(image: Tensor) -> Tensor:
            if image.ndim != self.ndim + 2:
                raise ValueError(
                    f"ResidualNetwork: image {tuple(image.shape)}, expected (batch, 2, *spatial) with {self.ndim}"
                    " spatial axes"
                )
            return gain * self._evaluate(layers, image)

        return denoise

    def _guiding_factors(self, images: Tensor | None) -> list[Tensor] | None:
        if self.guide is None and images is None:
            return None
        if self.guide is None or images is None or images.shape[1] != self.guide_channels:
            given = "no guide" if images is None else f"a guide {tuple(images.shape)}"
            expected = f"(batch, {self.guide_channels}, *spatial)" if self.guide_channels else "none"
            raise ValueError(f"ResidualNetwork: got {given}, expected {expected}")
        factors: list[Tensor] = self.guide(images)
        return factors

    def _layers(self, noise_level: Tensor, factors: Sequence[Tensor] | None) -> Sequence[Callable[[Tensor], Tensor]]:
        power = (noise_level / REFERENCE_NOISE).log()[:, None, None]
        ones = (..., *[None] * self.ndim)
        # (batch, feature, *1), and (batch, feature, *spatial) where a guide varies them over the image
        threshold: Sequence[Tensor] = torch.exp(self.log_threshold + self.noise_power * power)[ones].unbind(1)
        if factors is not None:
            threshold = [t * factor for t, factor in zip(threshold, factors, strict=True)]
        kernels = self.applied_kernels()
        filters: list[Convolution | SeparableConvolution]
        if self.separable:
            filters = [SeparableConvolution(w, t, b, self.padding) for w, t, b in zip(*kernels, self.bias, strict=True)]
        else:
            filters = [Convolution(w, b, self.padding) for w, b in zip(*kernels, self.bias, strict=True)]
        if self.layer == "potential":
            return [ConvexPotential(f, t) for f, t in zip(filters, threshold, strict=True)]
        (steps,) = self._steps(self.log_q, *kernels)
        return [SLL(f, t, s) for f, t, s in zip(filters, threshold, steps[ones], strict=True)]

    def _evaluate(self, layers: Sequence[Callable[[Tensor], Tensor]], image: Tensor) -> Tensor:
        x = nnf.pad(image, (0, 0) * self.ndim + (0, self.channels - 2))
        if self.ndim == 2:
            x = x.contiguous(memory_format=torch.channels_last)
        factors = self._factors()
        per_cycle = 2 * self.levels - 1
        for cycle in range(self.cycles):
            shift = cycle % 2 if self.levels > 1 else 0
            x = shifted_v_cycle(layers[cycle * per_cycle : (cycle + 1) * per_cycle], x, factors, shift, self.padding)
        return x[:, :2]


def _normalised(*kernels: Tensor) -> list[Tensor]:
    return [normalised_kernels(k, k.ndim - 3) for k in kernels]


def _norm_bounds(*kernels: Tensor) -> list[Tensor]:
    norm = torch.ones(len(kernels[0]), dtype=torch.float64, device=kernels[0].device)
    for k in kernels:
        norm = norm * certified_norm_bound(k, k.ndim - 3)
    return [norm]


def _steps(log_q: Tensor, weight: Tensor, temporal: Tensor | None = None) -> list[Tensor]:
    if temporal is None:
        return [sll_step(weight, log_q)]
    w, t = weight.double(), temporal.double()  # in float32 products that cancel would leave T too small
    return [sll_step(composed_kernel(w, t), log_q, magnitudes=composed_kernel(w.abs(), t.abs()))]

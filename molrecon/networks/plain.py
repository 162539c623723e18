"""A plain convolutional denoiser: nothing about it is guaranteed."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any, final

import torch
from torch import Tensor, nn

from molrecon.networks.cached_function import CachedFunction
from molrecon.networks.convolution import Convolution, Padding
from molrecon.networks.denoiser import Denoiser, ReceptiveField

CONVOLUTION = {2: nn.Conv2d, 3: nn.Conv3d}


@final
class PlainNetwork(Denoiser):
    """Denoiser `H = N` or `H(x) = (1 - m) x + N(x)`, N: 3x3 convolutions with rectified linear units between them.

    Its weights are free: its Lipschitz constant is only what its training aimed at, by a penalty on an estimate or not
    at all. Without `skip` this is the network of the published MOL weights (5 layers, 64 channels).

    Args:
        monotonicity: the m that training aimed at, used in error bounds that are therefore estimates.
        layers: convolutions, at least 2.
        features: channels between them.
        ndim: spatial axes, 2 or 3.
        padding: of the convolutions.
        skip: add `(1 - m) x`; the last convolution then starts at zero, and so H at `(1 - m) I`.
        spectral: apply each kernel divided by the spectral norm of its matrix (out, in * size) where that exceeds 1.
            The norm of the convolution itself can be up to three times that (3x3): it tempers, it bounds nothing.
        seed: of the initial weights.

    Shapes: real images (batch, 2, *spatial). The noise level is ignored.

    References: Pramanik, Zimmerman, Jacob, IEEE TCI 2023, section V; Miyato et al., ICLR 2018 (`spectral`).
    """

    def __init__(
        self,
        *,
        monotonicity: float = 0.02,
        layers: int = 5,
        features: int = 64,
        ndim: int = 2,
        padding: Padding = "zeros",
        skip: bool = False,
        spectral: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not 0 < monotonicity < 1 or layers < 2:
            raise ValueError(
                f"PlainNetwork: got monotonicity {monotonicity} and layers {layers}, expected a number between 0 and 1"
                " and at least 2"
            )
        if ndim not in (2, 3) or padding not in ("zeros", "circular") or features < 1:
            raise ValueError(
                f"PlainNetwork: got ndim {ndim}, padding {padding!r}, features {features}; expected 2 or 3, 'zeros' or"
                " 'circular' and at least 1"
            )
        self.monotonicity = monotonicity
        self.features = features
        self.ndim = ndim
        self.padding: Padding = padding
        self.skip = skip
        self.spectral = spectral
        channels = [2, *[features] * (layers - 1), 2]
        generator = torch.Generator().manual_seed(seed)
        self.convolutions = nn.ModuleList(
            nn.utils.skip_init(CONVOLUTION[ndim], before, after, 3, padding=1, padding_mode=padding)
            for before, after in pairwise(channels)
        )
        with torch.no_grad():
            for parameter in self.parameters():
                fan_in = parameter[0].numel()
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * (fan_in**-0.5 if fan_in > 1 else 0))
            if skip:
                for parameter in self.convolutions[-1].parameters():
                    parameter.zero_()
        self._tempered = CachedFunction(_tempered)

    def settings(self) -> dict[str, Any]:
        """Return the arguments that build a network of this shape."""
        return {
            "monotonicity": self.monotonicity,
            "layers": len(self.convolutions),
            "features": self.features,
            "ndim": self.ndim,
            "padding": self.padding,
            "skip": self.skip,
            "spectral": self.spectral,
        }

    def receptive_field(self) -> ReceptiveField:
        """Return how far H looks: one pixel a convolution.

        Raises:
            ValueError: circular padding, where the first pixel sees the last one.
        """
        if self.padding == "circular":
            raise ValueError("PlainNetwork: padding is 'circular', expected 'zeros' to evaluate it part by part")
        # In double precision a convolution on the CPU gathers the neighbours of all pixels first.
        gathered = 3**self.ndim if self.convolutions[0].weight.dtype == torch.float64 else 0
        halo = (len(self.convolutions),) * self.ndim
        return ReceptiveField(halo, grid=(1,) * self.ndim, live=(3 + gathered) * self.features + 8)

    def layers(self) -> list[Callable[[Tensor], Tensor]]:
        """Return the convolutions as H applies them."""
        if not self.spectral:
            return list(self.convolutions)
        kernels = self._tempered(*[convolution.get_parameter("weight") for convolution in self.convolutions])
        biases = [convolution.get_parameter("bias") for convolution in self.convolutions]
        return [Convolution(kernel, bias, self.padding) for kernel, bias in zip(kernels, biases, strict=True)]

    def lipschitz_bound(self) -> float:
        """Return `1 - m`: what training aimed at, not a bound."""
        return 1 - self.monotonicity

    def denoiser(self, noise_level: Tensor, guide: Tensor | None = None) -> Callable[[Tensor], Tensor]:
        """Return H; `noise_level` (batch,) is ignored."""
        layers = self.layers()

        def denoise(image: Tensor) -> Tensor:
            # With the channels of a pixel next to each other a convolution takes little more than half the time.
            x = image.contiguous(memory_format=torch.channels_last) if self.ndim == 2 else image
            for i, layer in enumerate(layers):
                x = layer(x if i == 0 else torch.relu_(x))
            return (1 - self.monotonicity) * image + x if self.skip else x

        return denoise


def _tempered(*kernels: Tensor) -> list[Tensor]:
    return [kernel / torch.linalg.matrix_norm(kernel.flatten(1), 2).clamp_min(1) for kernel in kernels]

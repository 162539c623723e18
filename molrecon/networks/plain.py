"""A plain convolutional denoiser: nothing about it is guaranteed."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import final

import torch
from torch import Tensor, nn

from molrecon.networks.base import ScoreNetwork


@final
class PlainNetwork(ScoreNetwork):
    """Denoiser `H(x)` of 3x3 convolutions with rectified linear units between them, free weights, zero padding.

    This is the network of the published MOL weights (5 layers, 64 channels). Its Lipschitz constant is only what its
    training aimed at.

    Args:
        monotonicity: the m that training aimed at, used in error bounds that are therefore estimates.
        layers: convolutions, at least 2.
        features: channels between them.
        seed: of the initial weights.

    Attributes:
        certified: False.

    Shapes: real images (batch, 2, rows, cols). The noise level is ignored.

    Reference: Pramanik, Zimmerman, Jacob, IEEE TCI 2023, section V.
    """

    certified = False

    def __init__(self, *, monotonicity: float = 0.02, layers: int = 5, features: int = 64, seed: int = 0) -> None:
        super().__init__()
        if not 0 < monotonicity < 1 or layers < 2:
            raise ValueError(
                f"PlainNetwork: got monotonicity {monotonicity} and layers {layers}, expected a number between 0 and 1"
                " and at least 2"
            )
        self.monotonicity = monotonicity
        channels = [2, *[features] * (layers - 1), 2]
        generator = torch.Generator().manual_seed(seed)
        self.convolutions = nn.ModuleList(
            nn.utils.skip_init(nn.Conv2d, before, after, 3, padding=1) for before, after in pairwise(channels)
        )
        with torch.no_grad():
            for parameter in self.parameters():
                fan_in = parameter[0].numel()
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * (fan_in**-0.5 if fan_in > 1 else 0))

    def lipschitz_bound(self) -> float:
        """Return `1 - m`: what training aimed at, not a bound."""
        return 1 - self.monotonicity

    def denoiser(self, noise_level: Tensor) -> Callable[[Tensor], Tensor]:
        """Return H; `noise_level` (batch,) is ignored."""

        def denoise(image: Tensor) -> Tensor:
            x = image
            for i, convolution in enumerate(self.convolutions):
                x = convolution(x if i == 0 else torch.relu(x))
            return x

        return denoise

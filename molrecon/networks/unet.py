"""A small U-Net: what a reconstruction that is one network on an image usually is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, final

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from molrecon.networks.denoiser import Denoiser

SLOPE = 0.2  # of the rectifier below zero


@final
class UNet(Denoiser):
    """Denoiser `H(x) = (1 - m) x + N(x)`, N a U-Net; nothing about it is guaranteed.

    Each level has two 3x3 convolutions with leaky rectifiers on the way down and two on the way up; levels are joined
    by averages of 2x2 pixels, by transposed convolutions and by concatenation. The last 1x1 convolution starts at zero,
    and so H at `(1 - m) I`. It deviates from the source in having few channels and no instance normalisation: the
    images come at unit scale. Sizes that the pyramid does not divide are continued by zeros.

    Args:
        channels: of each level, the full resolution first; the default has 42,048 parameters.
        monotonicity: m, a shrinkage here, to which nothing holds the network.
        seed: of the initial weights.

    Attributes:
        strict: False.

    Shapes: real images (batch, 2, rows, cols), of any size. The noise level is ignored.

    Raises:
        ValueError: no channels, or `monotonicity` outside (0, 1).

    References: Ronneberger, Fischer, Brox, MICCAI 2015; Zbontar et al., fastMRI, 2018, arXiv 1811.08839 (this form).
    """

    ndim = 2

    def __init__(self, *, channels: Sequence[int] = (10, 20, 36), monotonicity: float = 0.01, seed: int = 0) -> None:
        super().__init__()
        if not channels or min(channels) < 1 or not 0 < monotonicity < 1:
            raise ValueError(
                f"UNet: got channels {tuple(channels)} and monotonicity {monotonicity}, expected at least one positive"
                " number and a number between 0 and 1"
            )
        self.channels = tuple(channels)
        self.monotonicity = monotonicity
        self.down = nn.ModuleList(_block(before, after) for before, after in pairwise((2, *channels)))
        self.up = nn.ModuleList(
            nn.utils.skip_init(nn.ConvTranspose2d, coarse, fine, 2, stride=2) for fine, coarse in pairwise(channels)
        )
        self.merge = nn.ModuleList(_block(2 * fine, fine) for fine in self.channels[:-1])
        self.last = nn.utils.skip_init(nn.Conv2d, self.channels[0], 2, 1)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in self.parameters():
                if parameter.ndim == 1:
                    parameter.zero_()
                else:
                    fan_in = parameter[0].numel()
                    parameter.copy_(torch.randn(parameter.shape, generator=generator) * (2 / fan_in) ** 0.5)
            for up in self.up:
                # (in, out, 2, 2): each output pixel depends on one tap of each input
                weight = up.get_parameter("weight")
                weight.mul_((weight[0].numel() / (2 * weight.shape[0])) ** 0.5)
            self.last.get_parameter("weight").zero_()

    def settings(self) -> dict[str, Any]:
        """Return the arguments that build a network of this shape."""
        return {"channels": list(self.channels), "monotonicity": self.monotonicity}

    def lipschitz_bound(self) -> float:
        """Return `1 - m`: where H starts, not a bound."""
        return 1 - self.monotonicity

    def denoiser(self, noise_level: Tensor, guide: Tensor | None = None) -> Callable[[Tensor], Tensor]:
        """Return H; `noise_level` (batch,) is ignored."""

        def denoise(image: Tensor) -> Tensor:
            if image.ndim != self.ndim + 2:
                raise ValueError(f"UNet: image {tuple(image.shape)}, expected (batch, 2, rows, cols)")
            rows, cols = image.shape[2:]
            block = 2 ** (len(self.channels) - 1)
            padded = nnf.pad(image, (0, -cols % block, 0, -rows % block))
            return (1 - self.monotonicity) * image + self._evaluate(padded)[:, :, :rows, :cols]

        return denoise

    def _evaluate(self, x: Tensor) -> Tensor:
        finer: list[Tensor] = []
        for level, block in enumerate(self.down):
            x = block(nnf.avg_pool2d(x, 2) if level else x)
            finer.append(x)
        finer.pop()
        for up, merge in zip(reversed(self.up), reversed(self.merge), strict=True):
            x = merge(torch.cat([finer.pop(), up(x)], 1))
        return self.last(x)


def _block(before: int, after: int) -> nn.Sequential:
    convolutions = [nn.utils.skip_init(nn.Conv2d, n, after, 3, padding=1) for n in (before, after)]
    return nn.Sequential(convolutions[0], nn.LeakyReLU(SLOPE), convolutions[1], nn.LeakyReLU(SLOPE))

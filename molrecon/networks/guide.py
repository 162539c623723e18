"""What guides a network: a small free U-Net on images that are fixed during the iteration, run once a scan."""

from __future__ import annotations

import math
from typing import final

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from molrecon.networks.convolution import Padding, convolve
from molrecon.networks.haar import AVERAGE, to_multiples

SLOPE = 0.2  # of the leaky rectifiers
LARGEST = 4.0  # logarithm of the largest factor that a threshold may be changed by
CONVOLUTION: dict[int, type[nn.Conv2d] | type[nn.Conv3d]] = {2: nn.Conv2d, 3: nn.Conv3d}


@final
class Guide(nn.Module):
    """Factors of the thresholds of every layer, feature and pixel: `t(p) = t exp(a(p; c))`, `|a| <= 4`.

    c are images of the scan, and a is a U-Net of them with one convolution a level on the way down and one on the way
    up, on the pyramid of the network that it guides, with its shifts. For every c the thresholds are positive numbers,
    and that is all that the Lipschitz bound of a layer in the iterate asks of them. In c nothing is bounded. The last
    convolutions start at zero: a guided network starts as it would be without.

    Args:
        inputs: channels of c.
        width: channels of the U-Net.
        features: of each layer of the network.
        levels, cycles: of the network's pyramid, see `ResidualNetwork`.
        factors: 2 for an axis that the pyramid averages, 1 for one that it does not.
        padding: of the convolutions.
        seed: of the initial weights.

    Shapes: c real (batch, inputs, *spatial).

    Relatives: spatially adaptive regularisation by networks (Kofler et al., SIAM J Imaging Sci 16, 2023; Neumayer,
    Pourya, Unser, 2023-24; deep attentive least squares, 2025), none of which bounds what the iteration does.
    """

    def __init__(
        self,
        *,
        inputs: int,
        width: int,
        features: int,
        levels: int,
        cycles: int,
        factors: tuple[int, ...],
        padding: Padding,
        seed: int,
    ) -> None:
        super().__init__()
        if min(inputs, width) < 1:
            raise ValueError(f"Guide: got inputs {inputs} and width {width}, expected both to be positive")
        self.features, self.levels, self.cycles = features, levels, cycles
        self.factors = factors
        self.padding: Padding = padding
        kind = CONVOLUTION[len(factors)]
        self.down = nn.ModuleList(
            nn.utils.skip_init(kind, inputs if level == 0 else width, width, 3) for level in range(levels)
        )
        self.up = nn.ModuleList(nn.utils.skip_init(kind, width, width, 3) for _ in range(levels))
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in self.parameters():
                gain = math.sqrt(2 / parameter[0].numel()) if parameter.ndim > 1 else 0.0
                parameter.copy_(gain * torch.randn(parameter.shape, generator=generator))
        # A level has two layers in a cycle, on the way down and up; the coarsest has one.
        self.heads = nn.ModuleList(
            nn.utils.skip_init(kind, width, (1 if level == levels - 1 else 2) * features, 1)
            for _ in range(cycles)
            for level in range(levels)
        )
        with torch.no_grad():
            for parameter in self.heads.parameters():
                parameter.zero_()

    def halo(self) -> tuple[int, ...]:
        """Return how far a looks along each axis: from `R = 2` at the coarsest level on, `R' = 2 R + 3` a level."""
        along = 2
        for _ in range(self.levels - 1):
            along = 2 * along + 3
        return tuple(along if factor == 2 else 2 * self.levels for factor in self.factors)

    def kept(self) -> int:
        """Return how many numbers a pixel has in what is kept during an iteration: thresholds and their negatives."""
        fewer = math.prod(self.factors)  # pixels a level down
        layers = sum((1 if level == self.levels - 1 else 2) / fewer**level for level in range(self.levels))
        return math.ceil(2 * self.cycles * self.features * layers)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return `exp(a)` of each layer in the order in which the network applies them, on the layer's own grid."""
        if images.ndim == 4:
            images = images.contiguous(memory_format=torch.channels_last)  # as the features that the factors are for
        pyramids: dict[int, list[Tensor]] = {}
        factors: list[Tensor] = []
        for cycle in range(self.cycles):
            shift = cycle % 2 if self.levels > 1 else 0
            if shift not in pyramids:
                extended = to_multiples(images, self.factors, self.levels, shift, self.padding)
                pyramids[shift] = self._pyramid(extended)
            down: list[Tensor] = []
            up: list[Tensor] = []
            for level, features in enumerate(pyramids[shift]):
                head = self.heads[cycle * self.levels + level]
                # A layer's factors are computed by themselves, so that they lie in memory as its features do.
                weights, biases = head.weight.split(self.features), head.bias.split(self.features)  # type: ignore[operator]
                first, *second = (
                    limited_exponential(convolve(features, weight, bias, self.padding))
                    for weight, bias in zip(weights, biases, strict=True)
                )
                down.append(first)
                up += second
            factors += [*down, *reversed(up)]
        return factors

    def _pyramid(self, images: Tensor) -> list[Tensor]:
        """Return features (batch, width, ...) of each level, the finest first."""
        skipped: list[Tensor] = []
        x = images
        for level, layer in enumerate(self.down):
            x = self._layer(AVERAGE[len(self.factors)](x, self.factors) if level else x, layer)
            skipped.append(x)
        features: list[Tensor] = []
        for level, layer in reversed(list(enumerate(self.up))):
            y = skipped[level]
            if features:
                y = y + nnf.interpolate(features[-1], scale_factor=[float(f) for f in self.factors], mode="nearest")
            features.append(self._layer(y, layer))
        return features[::-1]

    def _layer(self, x: Tensor, layer: nn.Module) -> Tensor:
        return nnf.leaky_relu(convolve(x, layer.weight, layer.bias, self.padding), SLOPE)  # type: ignore[arg-type]


def limited_exponential(x: Tensor) -> Tensor:
    """Return `exp(4 tanh(x / 4))`, as `exp(8 sigmoid(x / 2) - 4)`.

    torch's tanh takes four times as long as its sigmoid, and a new array of this size three times as long as a step of
    the computation: without a graph there is one.
    """
    limited = torch.mul(x, 2 / LARGEST).sigmoid_()
    scaled = limited * (2 * LARGEST) if limited.requires_grad else limited.mul_(2 * LARGEST)
    return scaled.sub_(LARGEST).exp_()

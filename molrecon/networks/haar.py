"""The orthonormal Haar pyramid of averages, in any number of dimensions or along chosen axes only."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as nnf
from torch import Tensor

from molrecon.networks.convolution import Padding

AVERAGE = {1: nnf.avg_pool1d, 2: nnf.avg_pool2d, 3: nnf.avg_pool3d}


def v_cycle(layers: Sequence[Callable[[Tensor], Tensor]], x: Tensor, factors: tuple[int, ...]) -> Tensor:
    """Return x after a layer, the same on its averages with the details passed through, and another layer.

    With P the orthonormal averages, `P P^T = I`, the middle step is `x + P^T (C(P x) - P x)`: C on the averages and
    the identity on their complement, 1-Lipschitz if C is.

    Args:
        layers: an odd number of 1-Lipschitz maps, from the finest to the coarsest level and back.
        x: (batch, channel, *spatial), multiples of 2 to the power of the levels along the averaged axes.
        factors: 2 for an axis that is averaged, 1 for one that is not.
    """
    x = layers[0](x)
    if len(layers) == 1:
        return x
    scale = 2 ** (factors.count(2) / 2)
    coarse = scale * AVERAGE[len(factors)](x, factors)
    change = v_cycle(layers[1:-1], coarse, factors) - coarse
    x = x + nnf.interpolate(change / scale, scale_factor=[float(f) for f in factors], mode="nearest")
    return layers[-1](x)


def shifted_v_cycle(
    layers: Sequence[Callable[[Tensor], Tensor]], x: Tensor, factors: tuple[int, ...], shift: int, padding: Padding
) -> Tensor:
    """Return the V-cycle of x on a pyramid shifted by `shift` along the averaged axes, for any size of x.

    The image is extended by zeros to the multiples that the pyramid needs, which is isometric. With circular padding
    it is rolled instead of shifted, so that nothing is lost of the periodicity if its size is such a multiple.
    """
    sizes = x.shape[2:]
    x = v_cycle(layers, to_multiples(x, factors, len(layers) // 2 + 1, shift, padding), factors)
    if padding == "circular" and shift:
        axes = tuple(axis for axis, factor in enumerate(factors, start=2) if factor == 2)
        x = torch.roll(x, [-shift] * len(axes), axes)
    for axis, (factor, n) in enumerate(zip(factors, sizes, strict=True), start=2):
        x = x.narrow(axis, shift if factor == 2 and padding == "zeros" else 0, n)
    return x


def to_multiples(x: Tensor, factors: tuple[int, ...], levels: int, shift: int, padding: Padding) -> Tensor:
    """Return x on the grid of a shifted pyramid: extended by zeros to multiples of `2^(levels - 1)`.

    The image begins `shift` pixels behind the border along the averaged axes; with circular padding it is rolled by as
    many.
    """
    multiple = 2 ** (levels - 1)
    roll = shift if padding == "circular" else 0
    before = [shift - roll if factor == 2 else 0 for factor in factors]
    after = [-(n + b) % multiple if f == 2 else 0 for n, b, f in zip(x.shape[2:], before, factors, strict=True)]
    margins = [m for pair in zip(reversed(before), reversed(after), strict=True) for m in pair]
    if any(margins):
        x = nnf.pad(x, margins)
    if roll:
        axes = tuple(axis for axis, factor in enumerate(factors, start=2) if factor == 2)
        x = torch.roll(x, [roll] * len(axes), axes)
    return x

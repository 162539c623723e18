"""Stride-1 convolutions of odd size with their exact adjoints, for zero or circular padding."""

from __future__ import annotations

from typing import Literal, final

import torch
import torch.nn.functional as nnf
from torch import Tensor

from molrecon.networks.paired import adjoint_in_pairs, fills_registers, paired_kernel

Padding = Literal["zeros", "circular"]

CONVOLVE = {1: nnf.conv1d, 2: nnf.conv2d, 3: nnf.conv3d}
TRANSPOSE = {1: nnf.conv_transpose1d, 2: nnf.conv_transpose2d, 3: nnf.conv_transpose3d}


def wrap(x: Tensor, margins: tuple[int, ...]) -> Tensor:
    """Return (batch, channel, *spatial) continued periodically by `margins` at both ends of each spatial axis."""
    if all(margin <= size for margin, size in zip(margins, x.shape[2:], strict=True)):
        return nnf.pad(x, [margin for margin in reversed(margins) for _ in range(2)], mode="circular")
    # torch wraps at most once around; a short axis of time is passed several times.
    for axis, margin in enumerate(margins, start=2):
        size = x.shape[axis]
        x = x.index_select(axis, torch.arange(-margin, size + margin, device=x.device) % size)
    return x


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, padding: Padding) -> Tensor:
    """Return the convolution (correlation, as in torch) of the same size.

    Args:
        x: (batch, in, *spatial).
        weight: (out, in, *size), odd sizes.
        bias: (out,) or None.
        padding: what lies beyond the borders.
    """
    margins = tuple(size // 2 for size in weight.shape[2:])
    apply = CONVOLVE[len(margins)]
    if padding == "circular":
        return apply(wrap(x, margins), weight, bias)
    return apply(x, weight, bias, padding=margins)


def convolve_adjoint(u: Tensor, weight: Tensor, padding: Padding) -> Tensor:
    """Return the adjoint of `convolve` without bias at u (batch, out, *spatial): (batch, in, *spatial)."""
    if padding == "circular":
        mirrored = weight.flip(tuple(range(2, weight.ndim))).transpose(0, 1)
        return convolve(u, mirrored, None, padding)
    margins = tuple(size // 2 for size in weight.shape[2:])
    return TRANSPOSE[len(margins)](u, weight, padding=margins)


@final
class Convolution:
    """`W x + b` and `W^T u` with fixed numbers."""

    def __init__(self, weight: Tensor, bias: Tensor, padding: Padding) -> None:
        if weight.ndim == 4:
            # Few channels lie side by side: with those of a pixel next to each other a layer takes a third of the time.
            weight = weight.contiguous(memory_format=torch.channels_last)
        self.weight, self.bias, self.padding = weight, bias, padding
        # Many small convolutions are called in a loop: what is fixed is looked up once.
        self._margins = tuple(size // 2 for size in weight.shape[2:])
        self._convolve, self._transpose = CONVOLVE[weight.ndim - 2], TRANSPOSE[weight.ndim - 2]
        self._pairing = weight.ndim == 4 and padding == "zeros" and fills_registers(weight)
        self._paired: Tensor | None = None

    def __call__(self, x: Tensor) -> Tensor:
        if self.padding == "circular":
            return convolve(x, self.weight, self.bias, self.padding)
        return self._convolve(x, self.weight, self.bias, 1, self._margins)

    def adjoint(self, u: Tensor) -> Tensor:
        if self.padding == "circular":
            return convolve_adjoint(u, self.weight, self.padding)
        graph = torch.is_grad_enabled() and (u.requires_grad or self.weight.requires_grad)
        # Where a graph is kept, transposed convolutions have the faster gradient.
        if self._pairing and not graph and u.shape[-1] % 2 == 0:
            if self._paired is None:
                self._paired = paired_kernel(self.weight.detach())
            return adjoint_in_pairs(u, self._paired)
        return self._transpose(u, self.weight, None, 1, self._margins)


@final
class SeparableConvolution:
    """`W = W_s W_t`: a convolution along the first axis (time), then one along the others (space).

    Args:
        spatial: W_s (out, between, *size), without the first axis.
        temporal: W_t (between, in, size).
        bias: (out,).
        padding: of both.

    `|W| <= |W_s| |W_t|`. Reference: Tran et al., CVPR 2018 ((2+1)D convolutions), with the cheap factor first.
    """

    def __init__(self, spatial: Tensor, temporal: Tensor, bias: Tensor, padding: Padding) -> None:
        self.spatial = spatial.unsqueeze(2)
        self.temporal = temporal[(..., *[None] * (spatial.ndim - 2))]
        self.bias, self.padding = bias, padding

    def __call__(self, x: Tensor) -> Tensor:
        return convolve(convolve(x, self.temporal, None, self.padding), self.spatial, self.bias, self.padding)

    def adjoint(self, u: Tensor) -> Tensor:
        return convolve_adjoint(convolve_adjoint(u, self.spatial, self.padding), self.temporal, self.padding)


def composed_kernel(spatial: Tensor, temporal: Tensor) -> Tensor:
    """Return the kernel (..., out, in, time, *size) that a separable convolution applies.

    Args:
        spatial: (..., out, between, *size) with two axes of size.
        temporal: (..., between, in, time).
    """
    return torch.einsum("...obyx,...bit->...oityx", spatial, temporal)

"""SDP-based Lipschitz layers (SLL): 1-Lipschitz whatever the filters are."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from molrecon.networks.clip import Clip
from molrecon.networks.convolution import CONVOLVE, Convolution, SeparableConvolution

ROUNDING = 1e-12  # of sums of at most 1000 products in float64, relative to the sum of their magnitudes
SMALLEST = 1e-12  # of T: filters of squared norm below it act as nothing, without a division by zero


@final
class SLL:
    """`L(x) = x - W^T D s(W x + b)`, `s(u) = clip(u, -t, t)`, D diagonal with `D <= 2 T^-1`, `T >= W W^T`.

    With `du = W (x - y)` and `ds` the change of s, `|x - y|^2 - |L(x) - L(y)|^2 = 2 <du, D ds> - |W^T D ds|^2`, which
    is at least `2 <du, D ds> - <D ds, T D ds> >= 2 sum_i D_i ds_i (du_i - ds_i) >= 0`, since `D T <= 2`.

    Args:
        filters: W and b.
        threshold: t (batch, feature, *1), or (batch, feature, *spatial) where it varies over the image; not negative.
        step: D (feature, *1), from `sll_step`.

    Reference: Araujo, Havens, Delattre, Allauzen, Hu, ICLR 2023.
    """

    def __init__(self, filters: Convolution | SeparableConvolution, threshold: Tensor, step: Tensor) -> None:
        self.filters, self.clip, self.step = filters, Clip(threshold), step

    def __call__(self, x: Tensor) -> Tensor:
        return x - self.filters.adjoint(self.step * self.clip(self.filters(x)))


def sll_step(weight: Tensor, log_q: Tensor, *, magnitudes: Tensor | None = None) -> Tensor:
    """Return D (layer, feature), at most `2 / T_i` with `T_i = sum_j |W W^T|_ij q_j / q_i`, q > 0.

    W W^T is the convolution with the kernels' correlations, so `|W W^T|_ij` is the sum of the magnitudes of the
    correlation of kernels i and j. `T - W W^T` is then diagonally dominant in the metric of q, hence positive. It holds
    for circular padding, where correlations may wrap onto each other, and for zero padding, whose `W W^T` is at most a
    compression of the unbounded one's.

    T is computed in float64 from the filters as they are applied. The products' rounding is covered by `ROUNDING` times
    what the sums would be without any cancellation, and the last rounding, to the filters' own precision, by two
    units in the last place: D as a number in that precision is a valid one.

    Args:
        weight: (layer, feature, channel, *size).
        log_q: (layer, feature), in the precision in which D is applied.
        magnitudes: what the magnitudes of the weights would be without cancellation, where they are sums themselves
            (shape of weight); those of the weights when None.
    """
    size = weight.shape[3:]
    kernels = weight.double()
    margins = [n - 1 for n in size]
    correlation = torch.stack([CONVOLVE[len(size)](k, k, padding=margins) for k in kernels])  # layer, feature, feature
    sums = (kernels.abs() if magnitudes is None else magnitudes.double()).flatten(2).sum(2)
    total = correlation.abs().flatten(3).sum(3) + ROUNDING * sums[:, :, None] * sums[:, None, :]
    q = log_q.double()
    bound = (total * torch.exp(q[:, None, :] - q[:, :, None])).sum(2) * (1 + ROUNDING)
    shrink = 1 - 2 * torch.finfo(log_q.dtype).eps
    return (2 * shrink / bound.clamp_min(SMALLEST)).to(log_q.dtype)

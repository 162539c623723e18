"""Convex potential layers: 1-Lipschitz when the convolution's norm is at most 1."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from molrecon.networks.clip import Clip
from molrecon.networks.convolution import Convolution, SeparableConvolution


@final
class ConvexPotential:
    """`L(x) = x - 2 W^T s(W x + b)`, `s(u) = clip(u, -t, t)`, with fixed numbers.

    s is diagonal with slopes in [0, 1], so the derivative is `I - 2 W^T S W` with `0 <= S <= I`, symmetric with
    eigenvalues in `[1 - 2 |W|^2, 1]`: `Lip(L) <= max(1, 2 |W|^2 - 1)`.

    Args:
        filters: W and b.
        threshold: t (batch, feature, *1), or (batch, feature, *spatial) where it varies over the image; not negative.

    Reference: Meunier, Delattre, Araujo, Allauzen, ICML 2022.
    """

    def __init__(self, filters: Convolution | SeparableConvolution, threshold: Tensor) -> None:
        self.filters, self.clip = filters, Clip(threshold)

    def __call__(self, x: Tensor) -> Tensor:
        return torch.sub(x, self.filters.adjoint(self.clip(self.filters(x))), alpha=2)


def convex_potential_lipschitz(norm_bound: Tensor) -> Tensor:
    """Return the bound of Lip(L) from a bound of |W|."""
    return (2 * norm_bound.square() - 1).clamp_min(1.0)

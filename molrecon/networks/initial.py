"""Filters that training starts from: tight frames of cosines, with which a network shrinks wavelet coefficients."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def cosine_filters(size: tuple[int, ...]) -> Tensor:
    """Return the orthonormal basis of products of cosines, (filter, *size), the constant one first.

    Divided by `sqrt(prod(size))` they are a tight frame: the convolution with all of them has `W^T W = I`.
    """
    filters = torch.ones(1)
    for length in size:
        n = torch.arange(length)
        basis = torch.cos(math.pi * n[:, None] * (n[None] + 0.5) / length)
        basis = basis / basis.norm(dim=1, keepdim=True)
        filters = torch.einsum("a...,bi->ab...i", filters, basis).flatten(0, 1)
    return filters


def low_frequencies(size: tuple[int, ...], count: int) -> Tensor:
    """Return the `count` lowest-frequency non-constant filters at most, in the order of `cosine_filters`."""
    order = torch.cartesian_prod(*[torch.arange(length) for length in size]).reshape(-1, len(size)).sum(1)
    chosen = torch.argsort(order, stable=True)[1 : 1 + count].sort().values
    return cosine_filters(size)[chosen]


def residual_filters(n_layers: int, features: int, channels: int, size: tuple[int, ...], seed: int) -> Tensor:
    """Return (layer, feature, channel, *size): cosines on the real and on the imaginary channel, small random ones.

    The cosines have norm 1/sqrt(2) together, since two layers share a level of the pyramid.
    """
    generator = torch.Generator().manual_seed(seed)
    taps = math.prod(size)
    filters = torch.randn((n_layers, features, channels, *size), generator=generator) * (
        0.2 / math.sqrt(features * taps)
    )
    cosines = low_frequencies(size, (features + 1) // 2) / math.sqrt(2 * taps)
    for channel in range(2):
        first = channel * len(cosines)
        chosen = cosines[: max(0, features - first)]
        filters[:, first : first + len(chosen), channel] += chosen
    return filters


def temporal_filters(n_layers: int, channels: int, size: int) -> Tensor:
    """Return (layer, channel, channel, size): a tight frame of cosines in time of the real and the imaginary channel.

    Average, then first and second differences, as far as there are channels; fewer than two times `size` channels
    start with what they are at the time itself.
    """
    filters = torch.zeros(channels, channels, size)
    for channel in range(2):
        if channels < 2 * size:
            filters[channel, channel, size // 2] = 1
        else:
            filters[channel : channel + 2 * size : 2, channel] = cosine_filters((size,)) / math.sqrt(size)
    return filters.expand(n_layers, -1, -1, -1).clone()

"""The clip `s(u) = clip(u, -t, t)` of the 1-Lipschitz layers, with thresholds prepared once a scan."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor


@final
class Clip:
    """`s(u) = clip(u, -t, t)` with fixed thresholds t, which are not negative.

    The thresholds of a guided network are as large as the features that they clip. They and their negatives are
    laid out once as the features are, channels last in 2D: read in another order the clip took three times as long as
    the convolution before it, and read alike a fifth of it.

    Args:
        threshold: t (batch, feature, *1), or (batch, feature, *spatial) where it varies over the image.
    """

    def __init__(self, threshold: Tensor) -> None:
        if threshold.ndim == 4:
            threshold = threshold.contiguous(memory_format=torch.channels_last)
        self.threshold, self.negative = threshold, -threshold

    def __call__(self, u: Tensor) -> Tensor:
        """Return s(u) of features (batch, feature, *spatial); without a graph it is written over u."""
        if torch.is_grad_enabled() and (u.requires_grad or self.threshold.requires_grad):
            return _linearised(u, self.negative, self.threshold)
        return torch.clamp_(u, self.negative, self.threshold)


def _linearised(u: Tensor, negative: Tensor, threshold: Tensor) -> Tensor:
    """Return the clip as what it is around u, `inside u + beyond t` with constant masks 0, 1 and -1.

    The gradient's linear system pulls ten or more vectors back through one graph. With the mask kept as numbers that
    is one product; torch's own gradient of clamp compares u with both bounds each time, and takes seven times as long.
    """
    with torch.no_grad():
        clipped = torch.clamp(u, negative, threshold)
        inside = torch.eq(u, clipped).to(u.dtype)
        beyond = torch.sub(u, clipped).sign_()
    return (inside * u).addcmul_(beyond, threshold)

"""What a denoiser must offer to be solved for its equilibrium."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

# Noise level, relative to the image scale, at which thresholds and log lambda are as stored.
REFERENCE_NOISE = 0.01


class ScoreNetwork(nn.Module, ABC):
    """A denoiser H whose score `F = I - H` is m-strongly monotone, by construction or by intention.

    Attributes:
        monotonicity: m.
        certified: whether `lipschitz_bound` is a true upper bound.
        ndim: number of spatial axes; for 2D+time it is 3, and the axes are (time, rows, cols).
    """

    monotonicity: float
    certified: bool
    ndim: int

    @abstractmethod
    def denoiser(self, noise_level: Tensor) -> Callable[[Tensor], Tensor]:
        """Return H on real images (batch, 2, *spatial) at noise levels (batch,), relative to the image scale."""

    @abstractmethod
    def lipschitz_bound(self) -> float:
        """Return a bound of Lip(H), or the value that was aimed at when nothing is certified."""

    def settings(self) -> dict[str, Any]:
        """Return the constructor's arguments, without the seed, such that JSON can hold them.

        Raises:
            TypeError: the class does not say them; such a network can be used but not saved.
        """
        raise TypeError(
            f"{type(self).__name__}: has no settings(), expected one that returns the constructor's arguments"
        )

    def project(self) -> None:
        """Bring the parameters back to where the promise holds; called after optimiser steps. Nothing by default."""


def largest_below(value: float, dtype: torch.dtype) -> float:
    """Return the largest number of a dtype that is not above `value`, positive: 1 - m as a network may apply it."""
    rounded = torch.tensor(value, dtype=dtype)
    return float(rounded if float(rounded) <= value else torch.nextafter(rounded, torch.zeros_like(rounded)))

"""What a denoiser must offer to be solved for its equilibrium."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

from torch import Tensor, nn


class ScoreNetwork(nn.Module, ABC):
    """A denoiser H whose score `F = I - H` is m-strongly monotone, by construction or by intention.

    Attributes:
        monotonicity: m.
        certified: whether `lipschitz_bound` is a true upper bound.
    """

    monotonicity: float
    certified: bool

    @abstractmethod
    def denoiser(self, noise_level: Tensor) -> Callable[[Tensor], Tensor]:
        """Return H on real images (batch, 2, *spatial) at noise levels (batch,), relative to the image scale."""

    @abstractmethod
    def lipschitz_bound(self) -> float:
        """Return a bound of Lip(H), or the value that was aimed at when nothing is certified."""

"""How a stage of an unrolled network learns about the measurements: outside of its network (GDM), or in it (GIN)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import final

import torch
from torch import Tensor, nn

FIRST_STEP = 0.5  # rho of every stage before training


class DataStep(nn.Module, ABC):
    """What stage k does with the gradient `g_k = A^H (A x_k - b)` before its network.

    Args:
        n_stages: number of stages, each with a learned step size rho_k.

    Attributes:
        copies: images that the network gets, one after the other along the channels.
    """

    copies: int

    def __init__(self, n_stages: int) -> None:
        super().__init__()
        self.step = nn.Parameter(torch.full((n_stages,), FIRST_STEP))

    @abstractmethod
    def forward(self, stage: int, image: Tensor, gradient: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
        """Return (inputs of the network, what its output is added to).

        Args:
            stage: k, from 0.
            image, gradient: x_k and g_k as channels (batch, channels, *spatial).
            share: (batch, 1), measured numbers over pixels.
        """

    def descend(self, stage: int, image: Tensor, gradient: Tensor) -> Tensor:
        """Return `r_k = x_k - rho_k g_k`."""
        return image - self.step[stage] * gradient


@final
class GDM(DataStep):
    """Gradient descent module: the network gets `r_k = x_k - rho_k g_k`, and its output is added to r_k.

    Source: Zhang and Ghanem, ISTA-Net, CVPR 2018, equation 5.
    """

    copies = 1

    def forward(self, stage: int, image: Tensor, gradient: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
        """Return (r_k, r_k)."""
        descended = self.descend(stage, image, gradient)
        return descended, descended


@final
class GIN(DataStep):
    """Gradient-informed network: it gets r_k and, apart from it, the gradient as an image of the error.

    For random measurements `A^H A` is on average the measured share c = M / N times the identity. `g_k / c` is then an
    unbiased, noisy image of the error `x_k - x`, its unmeasured part included, which the network sees beside r_k and
    weighs as it likes; from r_k alone it could not tell. Filters for g_k start at zero, where this is GDM.

    Only the abstract of the source is public: the way in is ours, the one of six that did best on held-out images when
    training went on from the published weights of ISTA-Net+. The others were (r_k, g_k) and (r_k, g_k / |g_k|) with
    the output added to r_k, and (x_k, g_k), (x_k, rho_k g_k) and (x_k, g_k / |g_k|) with the output added to x_k, which
    fell behind GDM in a short training from scratch.

    Source: Listen to your gradients, Pattern Recognition Letters 192, 2025 (abstract).
    """

    copies = 2

    def forward(self, stage: int, image: Tensor, gradient: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
        """Return ((r_k, g_k / c), r_k)."""
        descended = self.descend(stage, image, gradient)
        return torch.cat([descended, gradient / share[..., None, None]], 1), descended

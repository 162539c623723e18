"""How a stage of an unrolled network learns about the measurements: outside of its network (GDM), or in it (GIN)."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any, final

import torch
from torch import Tensor, nn

FIRST_STEP = 0.5  # rho of every stage before training
GRADIENT_SCALE = 30.0  # errors of block sensing are some 0.03 of an image of order one


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

    def settings(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {"n_stages": len(self.step)}

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

    The scale s decides how large the network sees the error. At s = 1, beside an image of order one, the filters for it
    hardly move in a short training from scratch; where errors are large (undersampled MRI) s = 30 is unstable. Only the
    abstract of the source is public: the way in is ours, chosen on held-out images.

    Args:
        n_stages: number of stages.
        scale: s.

    Raises:
        ValueError: a scale that is not a positive number.

    Source: Listen to your gradients, Pattern Recognition Letters 192, 2025 (abstract).
    """

    copies = 2

    def __init__(self, n_stages: int, scale: float = GRADIENT_SCALE) -> None:
        super().__init__(n_stages)
        if not 0 < scale < math.inf:
            raise ValueError(f"GIN: got scale {scale}, expected a positive number")
        self.scale = scale

    def settings(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {**super().settings(), "scale": self.scale}

    def forward(self, stage: int, image: Tensor, gradient: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
        """Return ((r_k, s g_k / c), r_k)."""
        descended = self.descend(stage, image, gradient)
        return torch.cat([descended, self.scale / share[..., None, None] * gradient], 1), descended

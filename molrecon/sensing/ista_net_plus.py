"""ISTA-Net+: soft thresholding of learned features, nine stages of 37,442 parameters."""

from __future__ import annotations

from typing import final

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from molrecon.sensing.stage import Host, Refinement, widened

FEATURES = 32
FIRST_THRESHOLD = 0.01


@final
class ISTANetPlus(Host):
    """Stage `N(x) = G B(soft(F(D x), theta))`, D, G convolutions, F, B two convolutions with a rectifier between.

    All filters are 3x3 with zero padding and without bias. F and B should be inverse to each other: the penalty of a
    stage is the mean of `(B(F(d)) - d)^2`, d = D x.

    Args:
        channels: 1 for real and 2 for complex images.
        copies: images among the inputs, 1 for GDM and 2 for GIN.
        n_stages: number of stages.
        seed: of the initial weights.

    Reference: Zhang and Ghanem, ISTA-Net: interpretable optimization-inspired deep network for image compressive
    sensing, CVPR 2018, section 3.3.
    """

    whole_image = False

    def __init__(self, *, channels: int = 1, copies: int = 1, n_stages: int = 9, seed: int = 0) -> None:
        super().__init__()
        self.channels, self.copies, self.n_stages = channels, copies, n_stages
        generator = torch.Generator().manual_seed(seed)
        self.networks = nn.ModuleList(_ISTAStage(channels, copies, generator) for _ in range(n_stages))

    def refine(self, stage: int, inputs: Tensor, carry: Tensor | None) -> Refinement:
        """Return `N_k(inputs)`, and in training the penalty."""
        change, penalty = self.networks[stage](inputs)
        return Refinement(change, penalty=penalty)


@final
class _ISTAStage(nn.Module):
    def __init__(self, channels: int, copies: int, generator: torch.Generator) -> None:
        super().__init__()

        def xavier(outputs: int, inputs: int) -> nn.Parameter:
            return nn.Parameter(nn.init.xavier_normal_(torch.empty(outputs, inputs, 3, 3), generator=generator))

        self.threshold = nn.Parameter(torch.tensor([FIRST_THRESHOLD]))
        self.conv_d = nn.Parameter(widened(xavier(FEATURES, channels).detach(), channels, copies))
        self.forward_1 = xavier(FEATURES, FEATURES)
        self.forward_2 = xavier(FEATURES, FEATURES)
        self.backward_1 = xavier(FEATURES, FEATURES)
        self.backward_2 = xavier(FEATURES, FEATURES)
        self.conv_g = xavier(channels, FEATURES)

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor | None]:
        lifted = nnf.conv2d(inputs, self.conv_d, padding=1)
        features = nnf.conv2d(torch.relu(nnf.conv2d(lifted, self.forward_1, padding=1)), self.forward_2, padding=1)
        shrunk = features.sign() * torch.relu(features.abs() - self.threshold)
        change = nnf.conv2d(self._backward(shrunk), self.conv_g, padding=1)
        if not self.training:
            return change, None
        return change, (self._backward(features) - lifted).square().mean()

    def _backward(self, features: Tensor) -> Tensor:
        return nnf.conv2d(torch.relu(nnf.conv2d(features, self.backward_1, padding=1)), self.backward_2, padding=1)

"""COAST: residual blocks that follow the sampling ratio, twenty stages, one model for all ratios."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

from molrecon.sensing.stage import Host, Refinement, seeded_convolution, widened

FEATURES = 32
BLOCKS = 3


@final
class COAST(Host):
    """Stage `N(x) = tail(R_3 R_2 R_1 head(x))`, `R(u) = u + s conv(relu(conv(u)))`, 3x3 convolutions with bias.

    The scales s = W c + v of the 32 features follow the sampling ratio c (measured numbers over pixels); W and v are
    shared by all residual blocks of all stages. Tails start at zero, so that an untrained model is gradient descent:
    the noise of twenty random tails would add up.

    Args:
        channels: 1 for real and 2 for complex images.
        copies: images among the inputs, 1 for GDM and 2 for GIN.
        n_stages: number of stages.
        seed: of the initial weights.

    Reference: You, Zhang, Xie, Chen, Ma, COAST: controllable arbitrary-sampling network for compressive sensing,
    IEEE TIP 30, 2021.
    """

    whole_image = True

    def __init__(self, *, channels: int = 1, copies: int = 1, n_stages: int = 20, seed: int = 0) -> None:
        super().__init__()
        self.channels, self.copies, self.n_stages = channels, copies, n_stages
        generator = torch.Generator().manual_seed(seed)
        self.scale = nn.utils.skip_init(nn.Linear, 1, FEATURES)
        with torch.no_grad():
            for parameter in self.scale.parameters():
                parameter.uniform_(-1, 1, generator=generator)
        self.networks = nn.ModuleList(_COASTStage(channels, copies, generator) for _ in range(n_stages))

    def begin(self, image: Tensor, share: Tensor) -> Tensor:
        """Return the scales (batch, features, 1, 1) of the sampling ratio."""
        return self.scale(share)[:, :, None, None]

    def refine(self, stage: int, inputs: Tensor, carry: Tensor | None) -> Refinement:
        """Return `N_k(inputs)`; the scales are carried on as they are."""
        return Refinement(self.networks[stage](inputs, carry), carry)


@final
class _COASTStage(nn.Module):
    def __init__(self, channels: int, copies: int, generator: torch.Generator) -> None:
        super().__init__()
        self.head = seeded_convolution(channels, FEATURES, generator)
        self.head.weight = nn.Parameter(widened(self.head.weight.detach(), channels, copies))
        self.first = nn.ModuleList(seeded_convolution(FEATURES, FEATURES, generator) for _ in range(BLOCKS))
        self.second = nn.ModuleList(seeded_convolution(FEATURES, FEATURES, generator) for _ in range(BLOCKS))
        self.tail = seeded_convolution(FEATURES, channels, generator)
        with torch.no_grad():
            for parameter in self.tail.parameters():
                parameter.zero_()

    def forward(self, inputs: Tensor, scale: Tensor) -> Tensor:
        u = self.head(inputs)
        for first, second in zip(self.first, self.second, strict=True):
            u = u + scale * second(torch.relu(first(u)))
        return self.tail(u)

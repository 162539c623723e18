"""DPC-DUN without its gates: stages that hand features on, the largest host here."""

from __future__ import annotations

from typing import final

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from molrecon.sensing.stage import Host, Refinement, seeded_convolution, widened

FEATURES = 32
BLOCKS = 2


@final
class DPCDUN(Host):
    """Stage `(x, z) + G(R_2 R_1 D(x, z))`, `R(u) = u + conv(relu(conv(u)))`; the memory z goes from stage to stage.

    Image and memory z have 32 channels together; z_0 is a convolution of x_0. D and G are 3x3 convolutions without
    bias, the others have one. G starts at zero: an untrained model is gradient descent, see `COAST`.

    This is the path of the published network on which every gate is open. Its gates choose, for each image, which
    modules to skip in favour of speed; they need 9,932 of the 65,357 parameters of a stage and leave 1,385,935 of
    1,634,235. We take it rather than MADUN (3.0 M) because a stage is half as expensive and its way from x_k to
    x_{k+1} is the same as in the two smaller hosts, with a memory added.

    Args:
        channels: 1 for real and 2 for complex images.
        copies: images among the inputs, 1 for GDM and 2 for GIN.
        n_stages: number of stages.
        seed: of the initial weights.

    Reference: Song, Chen, Zhang, Dynamic path-controllable deep unfolding network for compressive sensing, IEEE TIP
    32, 2023.
    """

    whole_image = True

    def __init__(self, *, channels: int = 1, copies: int = 1, n_stages: int = 25, seed: int = 0) -> None:
        super().__init__()
        self.channels, self.copies, self.n_stages = channels, copies, n_stages
        generator = torch.Generator().manual_seed(seed)
        self.extract = seeded_convolution(channels, FEATURES - channels, generator)
        self.networks = nn.ModuleList(_DPCDUNStage(channels, copies, generator) for _ in range(n_stages))

    def begin(self, image: Tensor, share: Tensor) -> Tensor:
        """Return z_0 (batch, 32 - channels, rows, cols)."""
        return self.extract(image)

    def refine(self, stage: int, inputs: Tensor, carry: Tensor | None) -> Refinement:
        """Return the change of the image, and the memory with its change added."""
        change = self.networks[stage](inputs, carry)
        return Refinement(change[:, : self.channels], carry + change[:, self.channels :])


@final
class _DPCDUNStage(nn.Module):
    def __init__(self, channels: int, copies: int, generator: torch.Generator) -> None:
        super().__init__()
        filters = nn.init.xavier_normal_(torch.empty(FEATURES, FEATURES, 3, 3), generator=generator)
        self.conv_d = nn.Parameter(widened(filters, channels, copies))
        self.conv_g = nn.Parameter(torch.zeros(FEATURES, FEATURES, 3, 3))
        self.first = nn.ModuleList(seeded_convolution(FEATURES, FEATURES, generator) for _ in range(BLOCKS))
        self.second = nn.ModuleList(seeded_convolution(FEATURES, FEATURES, generator) for _ in range(BLOCKS))

    def forward(self, inputs: Tensor, memory: Tensor) -> Tensor:
        u = nnf.conv2d(torch.cat([inputs, memory], 1), self.conv_d, padding=1)
        for first, second in zip(self.first, self.second, strict=True):
            u = u + second(torch.relu(first(u)))
        return nnf.conv2d(u, self.conv_g, padding=1)

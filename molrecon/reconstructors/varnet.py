"""Variational network: gradient steps on the data and a learned regulariser, a fixed number of times."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, final

import torch
from torch import Tensor, nn

from molrecon.networks import Denoiser
from molrecon.reconstructors.unrolled import Disturb, UnrolledReconstructor
from operators import LinearOperator


@final
class VarNet(UnrolledReconstructor):
    """The unrolled reconstructor `x_k = x_{k-1} - eta_k(sigma) A^H (A x_{k-1} - b) - N(x_{k-1})`, k = 1..K.

    `N = I - H` is the score of the network and `eta_k(sigma) = s_k lambda(sigma) / (1 + lambda(sigma))`, with s_k
    learned for each stage and starting at 1. At s = 1 the step is in (0, 1), stable for `|A| <= 1` (`Sense` with maps
    of unit norm), and where `A^H A` is a projection it is what the inverse of MoDL does. There is no inner solver. With
    steps that do not change it converges, where it does, to `N(x) + eta A^H (A x - b) = 0`.

    It deviates from the sources in the prior, one network shared by the stages (there: other filters or another U-Net
    in each of them), so that all methods are compared on the same one; in the sensitivity maps, which are given and not
    estimated by a network; and in the step, which depends on the noise level. Arguments, shapes and errors as of
    `UnrolledReconstructor`.

    References: Hammernik et al., MRM 79, 2018; Sriram et al., End-to-end variational networks, MICCAI 2020, whose
    k-space iteration this is in image space.
    """

    def __init__(
        self, network: Denoiser, *, n_unrolls: int = 10, data_weight: float = 60.0, phase_reference: bool = True
    ) -> None:
        super().__init__(network, n_unrolls=n_unrolls, data_weight=data_weight, phase_reference=phase_reference)
        self.stage_step = nn.Parameter(torch.ones(n_unrolls))

    def settings(self) -> dict[str, Any]:
        """Return the constructor's arguments besides what is learned."""
        return {**super().settings(), "n_unrolls": len(self.stage_step)}

    def iterate(
        self,
        zero_filled: Tensor,
        operator: LinearOperator,
        weight: Tensor,
        denoise: Callable[[Tensor], Tensor],
        disturb: Disturb,
    ) -> Iterator[Tensor]:
        """Yield x_1 .. x_K, see `UnrolledReconstructor.iterate`."""
        x = zero_filled
        step = weight / (1 + weight)
        for k in range(self.n_unrolls):
            x = denoise(x) - self.stage_step[k] * step * (operator.normal(x) - zero_filled)
            x = disturb(k + 1, x)
            yield x

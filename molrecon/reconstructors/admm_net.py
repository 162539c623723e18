"""ADMM-Net: the alternating direction method of multipliers with a learned denoiser, a fixed number of times."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, final

import torch
from torch import Tensor, nn

from molrecon.networks import Denoiser
from molrecon.reconstructors.unrolled import Disturb, UnrolledReconstructor
from operators import LinearOperator


@final
class ADMMNet(UnrolledReconstructor):
    """The unrolled reconstructor of the splitting x = z with the scaled multiplier u, k = 1..K,

        z_k = H(x_{k-1} + u_{k-1}),     u_k = u_{k-1} + eta_k (x_{k-1} - z_k),
        x_k = (I + lambda_k A^H A)^-1 (z_k - u_k + lambda_k A^H b),

    from `x_0 = A^H b` and `u_0 = 0`, with `lambda_k = exp(rho_k) lambda(sigma)`, at most `largest_data_weight`. eta_k
    and rho_k are learned for each stage, as in the source; eta_k starts at 1, the classical method, and rho_k at 0. At
    eta = 0 it is MoDL. Where the classical method converges, it does so to `x = H(x - lambda A^H (A x - b))`.

    It deviates from the source in the prior: there `z` is a shrinkage of learned filters with piecewise linear
    functions, different in each stage; here it is one denoiser, shared by the stages, so that all methods are compared
    on the same network. Its lambda is constant; ours depends on the noise level. Arguments, shapes and errors as of
    `UnrolledReconstructor`.

    Attributes:
        largest_data_weight: of every stage, a third of what other unrolled methods have: with more the network is no
            better, its inner solves take longer, and changes of the data that are chosen to harm move its image twice
            as far (docs/results/ablations.md).

    Reference: Yang, Sun, Li, Xu, Deep ADMM-Net for compressive sensing MRI, NeurIPS 2016.
    """

    largest_data_weight = 100.0

    def __init__(
        self, network: Denoiser, *, n_unrolls: int = 10, data_weight: float = 60.0, phase_reference: bool = True
    ) -> None:
        super().__init__(network, n_unrolls=n_unrolls, data_weight=data_weight, phase_reference=phase_reference)
        self.multiplier_step = nn.Parameter(torch.ones(n_unrolls))
        self.log_stage_weight = nn.Parameter(torch.zeros(n_unrolls))

    def settings(self) -> dict[str, Any]:
        """Return the constructor's arguments besides what is learned."""
        return {**super().settings(), "n_unrolls": len(self.multiplier_step)}

    def iterate(
        self,
        zero_filled: Tensor,
        operator: LinearOperator,
        weight: Tensor,
        denoise: Callable[[Tensor], Tensor],
        disturb: Disturb,
    ) -> Iterator[Tensor]:
        """Yield x_1 .. x_K, see `UnrolledReconstructor.iterate`."""
        x, u = zero_filled, torch.zeros_like(zero_filled)
        for k in range(self.n_unrolls):
            z = denoise(x + u)
            u = u + self.multiplier_step[k] * (x - z)
            stage_weight = (self.log_stage_weight[k].exp() * weight).clamp(max=self.largest_data_weight)
            x = self.data_consistent(z - u, zero_filled, operator, stage_weight)
            x = disturb(k + 1, x)
            yield x

"""MoDL: data consistency and a learned denoiser in turn, a fixed number of times."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import final

import torch
from torch import Tensor, nn

from molrecon.batched import per_sample
from molrecon.conditioning import NOISE_COEFFICIENTS, Conditioning, condition, data_weight
from molrecon.conjugate_gradient import solve_hermitian
from molrecon.networks import ScoreNetwork
from operators import LinearOperator

INNER_TOL = 1e-2  # of the conjugate gradients, relative to the residual at the denoised image
INNER_STEPS = 30


@final
class MoDL(nn.Module):
    """The unrolled reconstructor `x_k = (I + lambda A^H A)^-1 (H(x_{k-1}) + lambda A^H b)`, k = 1..K, shared weights.

    This is the plain iteration of the equilibrium model at alpha = 1, stopped after K steps and trained end to end:
    the same network, data consistency and lambda(sigma) can be compared as an equilibrium and as an unrolled network.
    The inverse is conjugate gradients started at H(x), with the implicit gradient of the exact solution. The graph of
    all K stages is held for the gradient. Nothing is guaranteed about the result.

    Args:
        network: the denoiser H.
        n_unrolls: K.
        data_weight: lambda at the reference noise level.
        phase_reference: show the network the image without its smooth phase (see `Conditioning`).

    Shapes: k-space (batch, coil, *spatial), image (batch, *spatial), complex.

    Raises:
        ValueError: `n_unrolls` or `data_weight` that is not positive.

    Reference: Aggarwal, Mani, Jacob, MoDL, IEEE TMI 38, 2019, equations 8-10.
    """

    def __init__(
        self, network: ScoreNetwork, *, n_unrolls: int = 10, data_weight: float = 60.0, phase_reference: bool = True
    ) -> None:
        super().__init__()
        if n_unrolls < 1 or data_weight <= 0:
            raise ValueError(
                f"MoDL: got n_unrolls {n_unrolls} and data_weight {data_weight}, expected both to be positive"
            )
        self.network = network
        self.n_unrolls = n_unrolls
        self.phase_reference = phase_reference
        self.log_data_weight = nn.Parameter(torch.tensor([math.log(data_weight), *NOISE_COEFFICIENTS]))

    def forward(
        self,
        kspace: Tensor,
        operator: LinearOperator,
        noise_level: float | Tensor | None = None,
        *,
        conditioning: Conditioning | None = None,
    ) -> Tensor:
        """Return the image after the last stage, in the units of the data.

        Args:
            kspace: b (batch, coil, *spatial) complex; unsampled entries zero.
            operator: the acquisition A.
            noise_level: see `conditioning.condition`.
            conditioning: given in place of what `condition` finds.

        Raises:
            TypeError: real k-space.
        """
        *_, image = self.stages(kspace, operator, noise_level, conditioning=conditioning)
        return image

    def stages(
        self,
        kspace: Tensor,
        operator: LinearOperator,
        noise_level: float | Tensor | None = None,
        *,
        conditioning: Conditioning | None = None,
    ) -> Iterator[Tensor]:
        """Yield x_1 .. x_K in the units of the data; the start is the zero-filled image. Arguments as of `forward`."""
        if not torch.is_complex(kspace):
            raise TypeError(f"MoDL: kspace has dtype {kspace.dtype}, expected a complex dtype")
        known = conditioning
        if known is None:
            known = condition(kspace, operator, noise_level, phase_reference=self.phase_reference)
        scale = per_sample(known.scale, known.phase)
        weight = per_sample(data_weight(self.log_data_weight, known.noise_level), known.phase)
        denoise = known.denoiser(self.network)

        def regularised(x: Tensor) -> Tensor:
            return x + weight * operator.normal(x)

        zero_filled = operator.adjoint(kspace) / scale
        x = zero_filled
        for _ in range(self.n_unrolls):
            denoised = denoise(x)
            residual = weight * (zero_filled - operator.normal(denoised))
            x = denoised + solve_hermitian(regularised, residual, tol=INNER_TOL, max_steps=INNER_STEPS).value
            yield x * scale

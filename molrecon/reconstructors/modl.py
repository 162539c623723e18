"""MoDL: data consistency and a learned denoiser in turn, a fixed number of times."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import final

from torch import Tensor

from molrecon.networks import Denoiser
from molrecon.reconstructors.unrolled import Disturb, UnrolledReconstructor
from operators import LinearOperator


@final
class MoDL(UnrolledReconstructor):
    """The unrolled reconstructor `x_k = (I + lambda A^H A)^-1 (H(x_{k-1}) + lambda A^H b)`, k = 1..K, shared weights.

    This is the plain iteration of the equilibrium model at alpha = 1, stopped after K steps and trained end to end:
    the same network, data consistency and lambda(sigma) can be compared as an equilibrium and as an unrolled network.
    Arguments, shapes and errors as of `UnrolledReconstructor`.

    Reference: Aggarwal, Mani, Jacob, MoDL, IEEE TMI 38, 2019, equations 8-10.
    """

    def __init__(
        self, network: Denoiser, *, n_unrolls: int = 10, data_weight: float = 60.0, phase_reference: bool = True
    ) -> None:
        super().__init__(network, n_unrolls=n_unrolls, data_weight=data_weight, phase_reference=phase_reference)

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
        for stage in range(1, self.n_unrolls + 1):
            x = disturb(stage, self.data_consistent(denoise(x), zero_filled, operator, weight))
            yield x

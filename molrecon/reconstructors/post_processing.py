"""Post-processing: one network on the zero-filled image, which never sees the data again."""

from __future__ import annotations

from typing import final

from torch import Tensor

from molrecon.networks import Denoiser
from molrecon.reconstructors.conditioning import Conditioning
from molrecon.reconstructors.learned import LearnedReconstructor
from molrecon.solvers.batched import per_sample
from molrecon.solvers.solution import Solution, unbounded_solution
from molrecon.solvers.solver_settings import SolverSettings
from operators import LinearOperator


@final
class PostProcessing(LearnedReconstructor):
    """The reconstructor `x = H(A^H b)`.

    The image need not fit the data, and the noise level reaches it only through H.

    Args:
        network: the denoiser H, usually a `UNet`.
        phase_reference: show the network the image without its smooth phase (see `Conditioning`).

    Shapes: k-space (batch, coil, *spatial), image (batch, *spatial), complex.

    Reference: Jin, McCann, Froustey, Unser, IEEE TIP 26, 2017 (a U-Net after a direct inversion).
    """

    def __init__(self, network: Denoiser, *, phase_reference: bool = True) -> None:
        super().__init__(network, data_weight=None, phase_reference=phase_reference)

    def _solve(
        self,
        kspace: Tensor,
        operator: LinearOperator,
        conditioning: Conditioning | None,
        start: Tensor | None,
        solver: SolverSettings | None,
    ) -> Solution:
        narrow = self.precision
        conditioning = (conditioning or self.condition(kspace, operator)).in_precision(narrow)
        scale = per_sample(conditioning.scale, conditioning.phase).to(narrow.to_real())
        zero_filled = operator.adjoint(kspace).to(narrow) / scale
        return unbounded_solution(conditioning.denoiser(self.network)(zero_filled) * scale, n_steps=1)

"""Post-processing: one network on the zero-filled image, which never sees the data again."""

from __future__ import annotations

from typing import Any, final

from torch import Tensor

from molrecon.networks import Denoiser
from molrecon.reconstructors.base import Reconstructor
from molrecon.reconstructors.conditioning import Conditioning, condition
from molrecon.solvers.batched import per_sample
from molrecon.solvers.solution import Solution, unbounded_solution
from molrecon.solvers.solver_settings import SolverSettings
from operators import LinearOperator


@final
class PostProcessing(Reconstructor):
    """The reconstructor `x = H(A^H b)`.

    The image need not fit the data, and the noise level reaches it only through H.

    Args:
        network: the denoiser H, usually a `UNet`.
        phase_reference: show the network the image without its smooth phase (see `Conditioning`).

    Shapes: k-space (batch, coil, *spatial), image (batch, *spatial), complex.

    Reference: Jin, McCann, Froustey, Unser, IEEE TIP 26, 2017 (a U-Net after a direct inversion).
    """

    def __init__(self, network: Denoiser, *, phase_reference: bool = True) -> None:
        super().__init__()
        self.network = network
        self.phase_reference = phase_reference

    def settings(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {"network": self.network, "phase_reference": self.phase_reference}

    def condition(
        self, kspace: Tensor, operator: LinearOperator, noise_level: float | Tensor | None = None
    ) -> Conditioning:
        """Return scale, relative noise level and smooth phase of a scan, see `conditioning.condition`."""
        return condition(kspace, operator, noise_level, phase_reference=self.phase_reference)

    def _solve(
        self,
        kspace: Tensor,
        operator: LinearOperator,
        conditioning: Conditioning | None,
        start: Tensor | None,
        solver: SolverSettings | None,
    ) -> Solution:
        narrow = next(self.network.parameters()).dtype.to_complex()
        known = (conditioning or self.condition(kspace, operator)).in_precision(narrow)
        scale = per_sample(known.scale, known.phase).to(narrow.to_real())
        zero_filled = operator.adjoint(kspace).to(narrow) / scale
        return unbounded_solution(known.denoiser(self.network)(zero_filled) * scale, n_steps=1)

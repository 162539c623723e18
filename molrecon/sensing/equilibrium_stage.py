"""One stage of an unrolled network, solved to its fixed point: the unrolled network of infinitely many equal stages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

from torch import Tensor, nn

from molrecon.sensing.gradient import DataStep
from molrecon.sensing.stage import Host, Unrolled
from molrecon.solvers.equilibrium import EquilibriumSolver
from molrecon.solvers.solution import Solution
from operators import LinearOperator


@final
class EquilibriumStage(nn.Module):
    """The image that a stage leaves as it is, `x = base(x, g) + N(inputs(x, g))`, `g = A^H (A x - b)`.

    With GIN the network at the equilibrium sees both the image and what still disagrees with the data; with GDM only
    their difference. Nothing about the stage is constrained: see `EquilibriumSolver` for what that means.

    Args:
        model: an unrolled network of one stage that hands nothing on; its `repeats` play no part.
        solver: tolerances and limits.

    Shapes and dtypes: as of `Unrolled`.

    Raises:
        ValueError: a model of several stages.

    Reference: Bai, Kolter, Koltun, Deep equilibrium models, NeurIPS 2019.
    """

    def __init__(self, model: Unrolled, solver: EquilibriumSolver | None = None) -> None:
        super().__init__()
        if model.host.n_stages != 1:
            raise ValueError(f"EquilibriumStage: model of {model.host.n_stages} stages, expected 1")
        self.model = model
        self.solver = solver or EquilibriumSolver()

    def settings(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {"model": self.model, "solver": self.solver}

    @property
    def host(self) -> Host:
        """Return the host of the stage."""
        return self.model.host

    @property
    def data_step(self) -> DataStep:
        """Return the data step of the stage."""
        return self.model.data_step

    def forward(
        self,
        measurements: Tensor,
        operator: LinearOperator,
        start: Tensor | None = None,
        *,
        on_backward: Callable[[Solution], None] | None = None,
    ) -> Solution:
        """Return the fixed point of each sample as far as it was found.

        Args:
            measurements: b.
            operator: A.
            start: x_0; `A^H b` when None.
            on_backward: see `EquilibriumSolver`.

        Raises:
            TypeError: a complex image for a host of one channel, a real one for a host of two.
            FloatingPointError: the network has no finite value at x_0.
        """

        def residual(image: Tensor) -> Tensor:
            return next(self.model.stages(measurements, operator, image)).image - image

        first = operator.adjoint(measurements) if start is None else start
        return self.solver(residual, first, on_backward=on_backward, who="EquilibriumStage")

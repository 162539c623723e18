"""Deep equilibrium models without monotonicity: DE-GRAD and DE-PROX."""

from __future__ import annotations

from typing import Any, Literal, final

from torch import Tensor, nn

from molrecon.networks import Denoiser
from molrecon.reconstructors.conditioning import Conditioning
from molrecon.reconstructors.learned import LearnedReconstructor
from molrecon.solvers.batched import per_sample
from molrecon.solvers.equilibrium import EquilibriumSolver
from molrecon.solvers.solution import Solution, in_units
from molrecon.solvers.solver_settings import SolverSettings
from operators import LinearOperator

Step = Literal["gradient", "proximal"]

DEFAULT = SolverSettings(max_steps=50, backward_max_steps=30)


@final
class DeepEquilibrium(LearnedReconstructor):
    """The fixed point of one stage of an unrolled network, of which nothing is known.

    With `R = I - H`, lambda = lambda(sigma) and `eta = 1 / (1 + lambda)` the map is, for `step`

        "gradient"  (DE-GRAD)   f(x) = x - eta (lambda A^H (A x - b) + R(x)),
        "proximal"  (DE-PROX)   f(x) = H(x - eta lambda A^H (A x - b)).

    `eta lambda` is in (0, 1), a stable step for `|A| <= 1` (`Sense` with maps of unit norm). In DE-GRAD eta scales
    both terms: it changes how the fixed point is found but not the fixed point, so it has no gradient and cannot be
    learned; what is learned is lambda(sigma), for which the size of R stands in the source. The fixed point of DE-GRAD
    is the equation of MOL: what it lacks is a network for which it has one solution. Networks are trained as in the
    source, with the spectral norms of their layers held (`PlainNetwork(skip=True, spectral=True)`), which is no bound.

    It is sought by Anderson acceleration with the plain step as its fallback, which promises nothing here, and its
    gradient is the implicit one, solved likewise. Whether there is a fixed point, only one, and how far it is, is
    unknown: `error_bound` is NaN, and `residuals` are relative ones, `|f(x) - x| / |x|`. A sample has converged
    when that is at most `tol`. One that has not keeps its best iterate; so does a gradient.

    Args:
        network: the denoiser H.
        step: which map.
        data_weight: lambda at the reference noise level, 0.01.
        phase_reference: show the network the image without its smooth phase (see `Conditioning`).
        solver: how the fixed point is looked for where a call does not say it; goals are for relative residuals.

    Raises:
        ValueError: another `step`, or `data_weight` that is not positive.
        FloatingPointError: the network has no finite value at the first iterate.

    Reference: Gilton, Ongie, Willett, Deep equilibrium architectures for inverse problems in imaging, IEEE TCI 7, 2021.
    """

    log_data_weight: nn.Parameter
    solver: SolverSettings

    def __init__(
        self,
        network: Denoiser,
        *,
        step: Step = "gradient",
        data_weight: float = 10.0,
        phase_reference: bool = True,
        solver: SolverSettings = DEFAULT,
    ) -> None:
        if step not in ("gradient", "proximal") or not data_weight > 0:
            raise ValueError(
                f"DeepEquilibrium: got step {step!r} and data_weight {data_weight}, expected 'gradient' or 'proximal'"
                " and a positive number"
            )
        super().__init__(network, data_weight=data_weight, phase_reference=phase_reference)
        self.step: Step = step
        self.solver = solver

    def settings(self) -> dict[str, Any]:
        """Return the constructor's arguments besides what is learned."""
        return {**super().settings(), "step": self.step, "solver": self.solver}

    def _solve(
        self,
        kspace: Tensor,
        operator: LinearOperator,
        conditioning: Conditioning | None,
        start: Tensor | None,
        solver: SolverSettings | None,
    ) -> Solution:
        settings = solver or self.solver
        narrow = self.precision
        conditioning = (conditioning or self.condition(kspace, operator)).in_precision(narrow)
        scale = per_sample(conditioning.scale, conditioning.phase).to(narrow.to_real())
        weight = per_sample(self.data_weight(conditioning.noise_level), conditioning.phase)
        denoise = conditioning.denoiser(self.network)
        zero_filled = operator.adjoint(kspace).to(narrow) / scale
        eta = 1 / (1 + weight)

        def residual(x: Tensor) -> Tensor:
            gradient = weight * (operator.normal(x) - zero_filled)
            if self.step == "gradient":
                return (eta * (denoise(x) - x - gradient)).to(narrow)
            return denoise(x - eta * gradient) - x

        first = zero_filled if start is None else start.to(narrow) / scale
        solve = EquilibriumSolver(
            settings.tol, settings.max_steps, settings.window, settings.backward_tol, settings.backward_max_steps
        )
        on_step = in_units(scale, settings.on_step)
        solution = solve(
            residual,
            first,
            on_backward=settings.on_backward,
            who="DeepEquilibrium",
            on_step=on_step,
            keep_residual=settings.keep_residual,
        )
        return solution.with_residual_in(scale, narrow).with_value(solution.value * scale)

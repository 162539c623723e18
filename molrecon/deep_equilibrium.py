"""Deep equilibrium models without monotonicity: DE-GRAD and DE-PROX."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, final

import torch
from torch import Tensor, nn

from molrecon.batched import per_sample
from molrecon.conditioning import NOISE_COEFFICIENTS, Conditioning, condition, data_weight
from molrecon.equilibrium import EquilibriumSolver
from molrecon.networks import ScoreNetwork
from molrecon.solution import Solution
from operators import LinearOperator

Step = Literal["gradient", "proximal"]


@final
class DeepEquilibrium(nn.Module):
    """The fixed point of one stage of an unrolled network, of which nothing is known: `model(kspace, A)`.

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
    unknown: `error_bound` is infinite, and `residuals` are relative ones, `|f(x) - x| / |x|`. A sample has converged
    when that is at most `tol`. One that has not keeps its best iterate; so does a gradient.

    Args:
        network: the denoiser H.
        step: which map.
        data_weight: lambda at the reference noise level, 0.01.
        phase_reference: show the network the image without its smooth phase (see `Conditioning`).

    Attributes:
        tol: goal for the relative residual of each sample.
        max_steps: iterations at most.
        window: Anderson differences; 0 for the plain iteration.
        backward_tol, backward_max_steps: the same for the gradient's linear system.

    Raises:
        ValueError: another `step`, or `data_weight` that is not positive.

    Reference: Gilton, Ongie, Willett, Deep equilibrium architectures for inverse problems in imaging, IEEE TCI 7, 2021.
    """

    def __init__(
        self,
        network: ScoreNetwork,
        *,
        step: Step = "gradient",
        data_weight: float = 10.0,
        phase_reference: bool = True,
    ) -> None:
        super().__init__()
        if step not in ("gradient", "proximal") or data_weight <= 0:
            raise ValueError(
                f"DeepEquilibrium: got step {step!r} and data_weight {data_weight}, expected 'gradient' or 'proximal'"
                " and a positive number"
            )
        self.network = network
        self.step: Step = step
        self.phase_reference = phase_reference
        self.log_data_weight = nn.Parameter(torch.tensor([math.log(data_weight), *NOISE_COEFFICIENTS]))
        default = EquilibriumSolver()
        self.tol = default.tol
        self.max_steps = default.max_steps
        self.window = default.window
        self.backward_tol = default.backward_tol
        self.backward_max_steps = default.backward_max_steps

    def settings(self) -> dict[str, Any]:
        """Return the constructor's arguments besides the network and what is learned."""
        return {"step": self.step, "phase_reference": self.phase_reference}

    def condition(
        self, kspace: Tensor, operator: LinearOperator, noise_level: float | Tensor | None = None
    ) -> Conditioning:
        """Return scale, relative noise level and smooth phase of a scan, see `conditioning.condition`."""
        return condition(kspace, operator, noise_level, phase_reference=self.phase_reference)

    def forward(
        self,
        kspace: Tensor,
        operator: LinearOperator,
        noise_level: float | Tensor | None = None,
        *,
        conditioning: Conditioning | None = None,
        start: Tensor | None = None,
        on_backward: Callable[[Solution], None] | None = None,
    ) -> Solution:
        """Return the fixed point of each sample as far as it was found, in the units of the data.

        Args:
            kspace: b (batch, coil, *spatial) complex; unsampled entries zero.
            operator: the acquisition A.
            noise_level: see `condition`.
            conditioning: given in place of what `condition` finds.
            start: first iterate, in the units of the image; the zero-filled image when None.
            on_backward: called with the Solution of the gradient's linear system. Without it a system that misses
                `backward_tol` is logged as a warning.

        Raises:
            TypeError: real k-space.
            ValueError: k-space that is not finite.
            FloatingPointError: the network has no finite value at the first iterate.
        """
        if not torch.is_complex(kspace):
            raise TypeError(f"DeepEquilibrium: kspace has dtype {kspace.dtype}, expected a complex dtype")
        if not bool(torch.isfinite(torch.view_as_real(kspace.detach())).all()):
            raise ValueError("DeepEquilibrium: kspace holds NaN or infinite values, expected finite numbers")
        known = self.condition(kspace, operator, noise_level) if conditioning is None else conditioning
        scale = per_sample(known.scale, known.phase)
        weight = per_sample(data_weight(self.log_data_weight, known.noise_level), known.phase)
        denoise = known.denoiser(self.network)
        zero_filled = operator.adjoint(kspace) / scale
        eta = 1 / (1 + weight)

        def residual(x: Tensor) -> Tensor:
            gradient = weight * (operator.normal(x) - zero_filled)
            if self.step == "gradient":
                return eta * (denoise(x) - x - gradient)
            return denoise(x - eta * gradient) - x

        first = zero_filled if start is None else start / scale
        solver = EquilibriumSolver(self.tol, self.max_steps, self.window, self.backward_tol, self.backward_max_steps)
        solution = solver(residual, first, on_backward=on_backward, who="DeepEquilibrium")
        return solution.with_value(solution.value * scale)

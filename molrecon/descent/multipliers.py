"""The multipliers of layer-by-layer constraints, as cooper-optim has them."""

from __future__ import annotations

from typing import Any, final

import torch
from torch import Tensor

from molrecon.training.processes import average_gradients

try:
    import cooper
except ImportError as error:
    raise ImportError(
        f"molrecon.descent.multipliers: cooper cannot be imported ({error}), expected the package cooper-optim, as"
        " pip install 'molrecon[train]' brings it"
    ) from error


@final
class Layerwise(cooper.ConstrainedMinimizationProblem):
    """One inequality and one multiplier a layer: the problem in Cooper's form.

    Args:
        n_layers: L.
        dual_rate: of the multipliers' ascent, from zero.
        augmented: weight c of the augmented Lagrangian, 0 for the plain one.
        like: the multipliers have its device and dtype.
    """

    def __init__(self, n_layers: int, dual_rate: float, augmented: float, like: Tensor) -> None:
        super().__init__()
        weight = like.new_zeros(n_layers, dtype=like.real.dtype).detach()
        self.multiplier = cooper.multipliers.DenseMultiplier(init=weight, device=like.device, dtype=weight.dtype)
        self.descent = cooper.Constraint(
            cooper.ConstraintType.INEQUALITY,
            cooper.formulations.AugmentedLagrangian if augmented > 0 else cooper.formulations.Lagrangian,
            self.multiplier,
            cooper.penalty_coefficients.DensePenaltyCoefficient(torch.full_like(weight, augmented))
            if augmented > 0
            else None,
        )
        ascent = torch.optim.SGD(self.dual_parameters(), lr=dual_rate, maximize=True)
        # The primal variables are the loop's.
        self._optimiser = cooper.optim.SimultaneousOptimizer(self, [], ascent)

    def compute_cmp_state(self, loss: Tensor, violation: Tensor) -> cooper.CMPState:
        """Return Cooper's state of a batch: a scalar, and the ratios minus their limits (L,)."""
        return cooper.CMPState(loss, {self.descent: cooper.ConstraintState(violation)})

    def lagrangian(self, loss: Tensor, violation: Tensor) -> Tensor:
        """Return what the weights descend on."""
        total = self.compute_cmp_state(loss, violation).compute_primal_lagrangian().lagrangian
        if total is None:
            raise RuntimeError("Layerwise: Cooper returned no Lagrangian")
        return total

    def ascend(self, violation: Tensor) -> None:
        """Take the dual step, with the mean violation over all processes."""
        self._optimiser.zero_grad()
        self.compute_cmp_state(violation.new_zeros(()), violation).compute_dual_lagrangian().backward()
        average_gradients(self.multiplier.parameters())
        self._optimiser.dual_step()

    def state(self) -> dict[str, Any]:
        """Return multipliers, penalty coefficients and the dual optimiser's state."""
        return {"problem": self.state_dict(), "optimiser": dict(self._optimiser.state_dict())}

    def load(self, state: dict[str, Any]) -> None:
        """Take back what `state` returned."""
        self.load_state_dict(state["problem"])
        self._optimiser.load_state_dict(state["optimiser"])

"""How an equilibrium is looked for: passed to a call, never written into somebody's model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import final

from molrecon.solvers.fixed_point import WINDOW
from molrecon.solvers.solution import Iterate, Solution

# Error bound of images to look at: no pixel is further than a tenth of the noise from where it would converge to. The
# largest of 1, 2, 5 x 10^-k with which that holds on three scans, noise 0.5 to 1.2 % of their maximum (docs/bound.md).
IMAGE_TOL = 2e-4


@final
@dataclass(frozen=True)
class SolverSettings:
    """Goals and limits of an equilibrium's solves. `dataclasses.replace` makes variants.

    Attributes:
        tol: goal of each sample: for its relative error bound where the model has one, else for the relative residual.
        max_steps: iterations at most.
        window: Anderson differences; 0 for the plain iteration.
        relaxation: alpha of the trial steps (MOL), whose safeguard keeps to alpha = 1.
        backward_tol, backward_max_steps: the same for the gradient's linear system.
        refine: hold image and data term in double precision around a network in single precision (MOL); turn it off for
            devices without double precision.
        on_backward: called with the Solution of the gradient's linear system. Without it a system that misses
            `backward_tol` is logged as a warning. It belongs to a call and is not stored with weights.
        on_step: called with every iterate, the first one included, to show progress or to look at them. It belongs to a
            call too.
        keep_residual: return `Solution.last_residual`, at the cost of one more iterate in memory. It belongs to a call
            too.

    Raises:
        ValueError: goals or limits that are negative, a relaxation that is not positive.
    """

    tol: float = 1e-4
    max_steps: int = 100
    window: int = WINDOW
    relaxation: float = 1.3
    backward_tol: float = 1e-2
    backward_max_steps: int = 100
    refine: bool = True
    on_backward: Callable[[Solution], None] | None = field(default=None, compare=False, repr=False)
    on_step: Callable[[Iterate], None] | None = field(default=None, compare=False, repr=False)
    keep_residual: bool = field(default=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        if (
            not (self.tol >= 0 and self.backward_tol >= 0)
            or min(self.max_steps, self.window, self.backward_max_steps) < 0
        ):
            raise ValueError(f"SolverSettings: got {self}, expected goals and limits of at least 0")
        if not self.relaxation > 0:
            raise ValueError(f"SolverSettings: relaxation is {self.relaxation}, expected a positive number")

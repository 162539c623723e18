"""Methods as they are put to the test: held fixed on one scan, differentiable, with a bound of their change."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from molrecon.batched import norm
from molrecon.classical import CGSense, zero_filled
from molrecon.conditioning import condition
from molrecon.deep_equilibrium import DeepEquilibrium
from molrecon.mol import MOL
from molrecon.perturbation import data_robustness_bound, warm_started, weight_ratio, with_tolerance
from molrecon.solution import Solution, explicit_solution
from molrecon.weights import Reconstructor
from operators import Sense

ASCENT_TOL, ASCENT_BACKWARD_TOL = 1e-2, 1e-1  # a direction of ascent wants no more


@final
@dataclass(frozen=True, eq=False)
class Frozen:
    """A method on one slice, with all it was told about the scan (maps, noise level, scale, phase) held fixed.

    Attributes:
        solve: k-space (1, coil, rows, cols) and first iterate (or None) -> Solution, as accurate as a user gets it.
        ascend: k-space -> image (1, rows, cols), differentiable, as accurate as a direction of ascent needs.
        bound: d -> (1,), upper bound of `|x(b + d) - x(b)|` for any b; None where none is known.
    """

    solve: Callable[[Tensor, Tensor | None], Solution]
    ascend: Callable[[Tensor], Tensor]
    bound: Callable[[Tensor], Tensor] | None


@final
@dataclass(frozen=True, eq=False)
class Subject:
    """A method to be tested.

    Attributes:
        freeze: k-space, operator and noise level of a slice -> the method with what it reads off them held fixed.
        guarantee: "certified", "estimated" or "none": what its bound rests on.
    """

    freeze: Callable[[Tensor, Sense, float], Frozen]
    guarantee: str


def zero_filled_subject() -> Subject:
    """Return `x = A^H b`; the bound is `|A^H d| <= |d| max sqrt(sum_c |s_c|^2)`."""

    def freeze(kspace: Tensor, A: Sense, noise_level: float) -> Frozen:
        largest = torch.linalg.vector_norm(A.sensitivity_maps, dim=1).flatten(1).amax(1)
        return Frozen(lambda b, _: explicit_solution(zero_filled(b, A)), A.adjoint, lambda d: largest * norm(d))

    return Subject(freeze, "certified")


def cg_sense_subject(regularisation: float) -> Subject:
    """Return CG-SENSE; it is the equilibrium of `m x + lambda A^H (A x - b)` with `lambda / m = 1 / mu`."""
    method = CGSense(regularisation)
    # At 1e-2 the ascent misjudges the worst case by half a dB; at the method's own 1e-5 rounding of the gradient shows.
    rough = CGSense(regularisation, tol=1e-4)

    def freeze(kspace: Tensor, A: Sense, noise_level: float) -> Frozen:
        ratio = torch.full((1,), 1 / regularisation, device=kspace.device)
        return Frozen(
            lambda b, _: method(b, A), lambda b: rough(b, A).value, lambda d: data_robustness_bound(ratio, A, d)
        )

    return Subject(freeze, "certified")


def model_subject(model: Reconstructor) -> Subject:
    """Return a trained model; without monotonicity no bound is known.

    The gradient of an unrolled one goes through all its stages, that of an equilibrium is the implicit one.
    """
    return _mol_subject(model) if isinstance(model, MOL) else _unbounded_subject(model)


def _mol_subject(model: MOL) -> Subject:
    rough = with_tolerance(model, ASCENT_TOL, ASCENT_BACKWARD_TOL)
    certificate = model.certificate()
    monotone = certificate.monotonicity > 0

    def freeze(kspace: Tensor, A: Sense, noise_level: float) -> Frozen:
        known = model.condition(kspace, A, noise_level)
        ratio = weight_ratio(model, known) if monotone else None
        return Frozen(
            lambda b, start: model(b, A, conditioning=known, start=start),
            warm_started(lambda b, start: rough(b, A, conditioning=known, start=start).value, A.adjoint(kspace)),
            None if ratio is None else lambda d: data_robustness_bound(ratio, A, d),
        )

    return Subject(freeze, certificate.kind if monotone else "none")


def _unbounded_subject(model: Reconstructor) -> Subject:
    rough = with_tolerance(model, ASCENT_TOL, ASCENT_BACKWARD_TOL) if isinstance(model, DeepEquilibrium) else None

    def freeze(kspace: Tensor, A: Sense, noise_level: float) -> Frozen:
        known = condition(kspace, A, noise_level, phase_reference=model.phase_reference)

        def solve(b: Tensor, start: Tensor | None) -> Solution:
            if isinstance(model, DeepEquilibrium):
                return model(b, A, conditioning=known, start=start)
            return explicit_solution(model(b, A, conditioning=known))

        if rough is None:
            return Frozen(solve, lambda b: model(b, A, conditioning=known), None)
        near = warm_started(lambda b, start: rough(b, A, conditioning=known, start=start).value, A.adjoint(kspace))
        return Frozen(solve, near, None)

    return Subject(freeze, "none")

"""Every model on every family of operators, plain and accelerated, against what its certificate promises."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from molrecon.guarantees.checks import absolute_error, check_decrease, check_equilibrium, check_locally
from molrecon.guarantees.perturbation import PerturbationCheck, check_data_perturbations, check_map_perturbations
from molrecon.reconstructors.conditioning import Conditioning
from molrecon.reconstructors.mol import MOL
from molrecon.solvers.batched import norm
from molrecon.solvers.fixed_point import WINDOW
from tests.convergence.problems import FAMILIES, TIGHTNESS, Family

PLAIN, ANDERSON = 0, WINDOW
TOL = {PLAIN: 1e-2, ANDERSON: 1e-3}  # of the bound; the plain iteration is slow, as it promises to be
ATTACK_STEPS = 10


def conditioned(model: MOL, family: str) -> tuple[Family, Conditioning]:
    """Return a family's problem and the conditioning that the model finds for it."""
    case = FAMILIES[family]()
    return case, model.condition(case.problem.kspace, case.problem.operator, case.problem.noise_level)


def with_settings(model: MOL, *, window: int = ANDERSON, tol: float = 1e-3, max_steps: int = 2000) -> MOL:
    """Return the same model, weights shared, with other settings of the solver."""
    other = copy.copy(model)
    other.solver = replace(other.solver, window=window, tol=tol, max_steps=max_steps)
    return other


def test_the_bound_of_the_plain_iteration_falls_at_the_promised_rate(model: MOL, family: str) -> None:
    case, conditioning = conditioned(model, family)
    found = check_decrease(model, case.problem.kspace, case.problem.operator, conditioning)
    assert found.n_steps == 10
    assert found.worst <= found.promised * (1 + 1e-5)


@torch.no_grad()
def test_plain_steps_are_as_many_as_promised_and_anderson_needs_no_more(model: MOL, family: str) -> None:
    case, conditioning = conditioned(model, family)
    kspace, operator = case.problem.kspace, case.problem.operator
    start = operator.adjoint(kspace)
    plain, anderson = (
        with_settings(model, window=window, tol=TOL[PLAIN])(kspace, operator, conditioning=conditioning, start=start)
        for window in (PLAIN, ANDERSON)
    )
    assert plain.converged.all()
    assert anderson.converged.all()
    # Inner solves to a quarter of m of the residual slow the contraction down to this.
    m = model.certificate().monotonicity
    rate = (1 - m) * (1 + m / 4) + m / 4
    first = plain.residuals[0] * norm(start) / norm(plain.value)
    promised = torch.log(first / TOL[PLAIN]).clamp_min(0) / -math.log(rate) + 1
    assert (plain.n_steps <= promised).all()
    assert (anderson.n_steps <= plain.n_steps).all()
    distance = norm(plain.value - anderson.value)
    assert (distance <= absolute_error(plain) + absolute_error(anderson)).all()


@pytest.mark.parametrize("window", [PLAIN, ANDERSON], ids=["plain", "anderson"])
def test_one_equilibrium_from_five_starts(model: MOL, family: str, window: int) -> None:
    case, conditioning = conditioned(model, family)
    settings = with_settings(model, window=window, tol=TOL[window])
    found = check_equilibrium(settings, case.problem.kspace, case.problem.operator, conditioning)
    assert len(found.starts) == 5
    assert found.converged
    assert found.excess <= 0


def test_local_estimates_do_not_contradict_the_certificate(model: MOL, family: str) -> None:
    case, conditioning = conditioned(model, family)
    with torch.no_grad():
        image = model(case.problem.kspace, case.problem.operator, conditioning=conditioning).value
    stretch, monotone = check_locally(model, image, conditioning, power_steps=10, ascent_steps=1, lanczos_steps=8)
    promised = model.certificate()
    assert stretch.value.max() <= promised.lipschitz * (1 + 1e-6)
    assert monotone.value.min() >= promised.monotonicity - 1e-6


def test_data_perturbations_stay_within_the_robustness_bound(
    model: MOL, family: str, record_property: Callable[[str, object], None]
) -> None:
    case, conditioning = conditioned(model, family)
    checks = check_data_perturbations(
        with_settings(model), case.problem.kspace, case.problem.operator, conditioning, attack_steps=ATTACK_STEPS
    )
    report(checks, record_property)


def test_map_perturbations_stay_within_the_robustness_bound(
    model: MOL, family: str, record_property: Callable[[str, object], None]
) -> None:
    case, conditioning = conditioned(model, family)
    if case.maps is None or case.rebuild is None:
        pytest.skip(f"{family}: no coil maps")
    checks = check_map_perturbations(
        with_settings(model),
        case.problem.kspace,
        case.problem.operator,
        conditioning,
        maps=case.maps,
        rebuild=case.rebuild,
        attack_steps=ATTACK_STEPS,
    )
    report(checks, record_property)


def report(checks: list[PerturbationCheck], record_property: Callable[[str, object], None]) -> None:
    """Say how much of each bound was reached, and assert that none was exceeded."""
    assert [check.kind for check in checks] == ["Gaussian", "worst case"]
    record_property(
        TIGHTNESS, ", ".join(f"{c.kind} {c.tightness:.3f} (|d| = {c.size:.0%}, |dx| = {c.change:.2g})" for c in checks)
    )
    assert not any(check.violated for check in checks)
    assert checks[1].change > 0

"""ISTA and FISTA find the lasso's optimum, and the two averages of the error of codes are what they say."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from molrecon.descent.sparse import (
    FISTA,
    ISTA,
    duality_gap,
    lasso_objective,
    mean_nmse_db,
    nmse_by_layer,
    pooled_nmse_db,
    soft_threshold,
    squared_norm,
)
from operators import Dense

MU = 0.3


def problem(m: int = 20, n: int = 40, batch: int = 6) -> tuple[Tensor, Dense]:
    generator = torch.Generator().manual_seed(3)
    dictionary = torch.randn(m, n, generator=generator, dtype=torch.float64)
    dictionary /= dictionary.norm(dim=0)
    return torch.randn(batch, m, generator=generator, dtype=torch.float64), Dense(dictionary)


def test_fista_satisfies_the_conditions_of_an_optimum_and_ista_agrees() -> None:
    measurements, operator = problem()
    fast, slow = (solver(measurements, operator) for solver in (FISTA(MU, tol=1e-12), ISTA(MU, tol=1e-12)))
    assert fast.converged.all() and slow.converged.all()
    assert (fast.n_steps < slow.n_steps).all()
    torch.testing.assert_close(fast.value, slow.value, rtol=0, atol=1e-9)
    # KKT: the correlation with the residual is mu sign(x) where x is not zero, and at most mu elsewhere.
    correlation = operator.adjoint(measurements - operator(fast.value))
    support = fast.value != 0
    assert 0 < int(support.sum()) < support.numel() // 2
    torch.testing.assert_close(correlation[support], MU * fast.value[support].sign(), rtol=0, atol=1e-9)
    assert correlation[~support].abs().max() <= MU + 1e-9


def test_orthonormal_dictionary_is_solved_by_one_threshold() -> None:
    measurements, operator = problem(12, 12)
    q = Dense(torch.linalg.qr(operator.phi).Q)
    solution = ISTA(MU)(measurements, q)
    torch.testing.assert_close(solution.value, soft_threshold(q.adjoint(measurements), MU), rtol=0, atol=1e-9)


def test_the_gap_bounds_the_objective() -> None:
    measurements, operator = problem()
    best = lasso_objective(FISTA(MU)(measurements, operator).value, measurements, operator, MU)
    energy = 0.5 * measurements.square().sum(1)
    for codes in itertools.islice(FISTA(MU).stages(measurements, operator), 30):
        above = (lasso_objective(codes, measurements, operator, MU) - best) / energy
        assert (above <= duality_gap(codes, measurements, operator, MU) + 1e-12).all()


def test_samples_do_not_see_each_other_and_budgets_are_reported() -> None:
    measurements, operator = problem()
    together, alone = FISTA(MU)(measurements, operator), FISTA(MU)(measurements[2:3], operator)
    torch.testing.assert_close(together.value[2:3], alone.value, rtol=0, atol=1e-13)
    assert together.n_steps[2] == alone.n_steps[0]
    short = FISTA(MU, max_steps=15)(measurements, operator)
    assert not short.converged.any() and (short.n_steps == 15).all() and short.residuals.shape == (3, 6)
    assert "ran out of steps" in short.shortfall()


def test_the_step_is_the_exact_one() -> None:
    _, operator = problem()
    exact = float(torch.linalg.svdvals(operator.phi)[0]) ** 2
    assert exact <= squared_norm(operator) <= exact * (1 + 1e-9) < float(operator.phi.square().sum()) / 3


def test_both_averages() -> None:
    reference = torch.tensor([[1.0, 0.0], [0.0, 2.0], [0.0, 0.0]])
    codes = torch.tensor([[1.0, 0.1], [0.0, 0.0], [0.0, 0.0]])
    assert pooled_nmse_db(codes, reference) == pytest.approx(10 * math.log10((0.01 + 4) / 5))
    assert mean_nmse_db(codes, reference) == pytest.approx((-20 + 0) / 2)
    pooled, mean = nmse_by_layer(iter([codes, reference, codes]), reference, 2)
    assert pooled.shape == mean.shape == (2,) and pooled[1] < -300
    for average in (pooled_nmse_db, mean_nmse_db):
        with pytest.raises(ValueError, match="reference of zeros, expected codes"):
            average(codes, torch.zeros(3, 2))


def test_refusals() -> None:
    measurements, operator = problem()
    with pytest.raises(ValueError, match=r"FISTA: regularisation is 0\.0, expected a positive number"):
        FISTA(0.0)
    for call in (ISTA(MU), lambda b, d: next(ISTA(MU).stages(b, d))):
        with pytest.raises(TypeError, match=r"ISTA: measurements have dtype torch\.complex128, expected real"):
            call(measurements.to(torch.complex128), operator)

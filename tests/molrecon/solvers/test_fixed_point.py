"""The solver: it bounds its error, keeps the plain iteration's promise, and is gentle with bad samples."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from molrecon.solvers.fixed_point import solve_fixed_point
from molrecon.solvers.solution import Solution


def _identity(r: Tensor) -> Tensor:
    return r


def _affine(batch: int, n: int, factor: float, seed: int) -> tuple[Tensor, Tensor]:
    """Return K with |K| = factor and b, for the map x -> K x + b."""
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.randn(batch, n, n, dtype=torch.complex128, generator=generator)
    matrix = factor * matrix / torch.linalg.matrix_norm(matrix, ord=2)[:, None, None]
    return matrix, torch.randn(batch, n, dtype=torch.complex128, generator=generator)


@pytest.mark.parametrize("window", [0, 1, 5])
def test_error_bound_bounds_at_every_step(window: int) -> None:
    matrix, b = _affine(4, 12, 0.9, seed=0)
    truth = torch.linalg.solve(torch.eye(12) - matrix, b)

    for max_steps in range(12):
        solution = solve_fixed_point(
            lambda x: (matrix @ x[..., None])[..., 0] + b - x,
            _identity,
            b,
            tol=1e-12,
            max_steps=max_steps,
            monotonicity=0.1,
            contraction=0.9,
            window=window,
        )
        error = torch.linalg.vector_norm(solution.value - truth, dim=1)
        size = torch.linalg.vector_norm(solution.value, dim=1)
        assert (error <= solution.error_bound * size * (1 + 1e-9)).all()
        assert solution.residuals.shape == (int(solution.n_steps.max()) + 1, 4)


def test_plain_iteration_contracts_at_the_promised_rate() -> None:
    matrix, b = _affine(3, 10, 0.8, seed=1)
    sizes: list[Tensor] = []

    def residual(x: Tensor) -> Tensor:
        r = (matrix @ x[..., None])[..., 0] + b - x
        sizes.append(torch.linalg.vector_norm(r, dim=1))
        return r

    solve_fixed_point(residual, _identity, torch.zeros_like(b), tol=1e-10, max_steps=30, monotonicity=0.2, window=0)
    ratios = torch.stack(sizes[1:]) / torch.stack(sizes[:-1])
    assert (ratios[:20] <= 0.8 + 1e-9).all()


def test_anderson_needs_fewer_steps() -> None:
    matrix, b = _affine(1, 40, 0.97, seed=2)

    def steps(window: int) -> int:
        solution = solve_fixed_point(
            lambda x: (matrix @ x[..., None])[..., 0] + b - x,
            _identity,
            torch.zeros_like(b),
            tol=1e-6,
            max_steps=1000,
            monotonicity=0.03,
            contraction=0.98,
            window=window,
        )
        assert solution.converged.all()
        return int(solution.n_steps)

    assert steps(5) < steps(0)


def _unguarded_anderson(func: Callable[[Tensor], Tensor], start: Tensor, steps: int, window: int) -> Tensor:
    """Textbook type-II Anderson; returns the residual norms of every step."""
    x, xs, fs, sizes = start, [], [], []
    for _ in range(steps):
        f = func(x) - x
        sizes.append(torch.linalg.vector_norm(f))
        xs.append(x)
        fs.append(f)
        xs, fs = xs[-window - 1 :], fs[-window - 1 :]
        if len(fs) > 1:
            df = torch.stack([b - a for a, b in itertools.pairwise(fs)], dim=-1)[0]
            dx = torch.stack([b - a for a, b in itertools.pairwise(xs)], dim=-1)[0]
            gamma = torch.linalg.lstsq(df, f[0]).solution
            x = x + f - ((dx + df) @ gamma)[None]
        else:
            x = x + f
    return torch.stack(sizes)


def _atan(x: Tensor) -> Tensor:
    """`x - g(x)` with g of slope 0.05 far out and 1 at the root: a 0.95-contraction with the root 0."""
    return x - (0.05 * x + 0.95 * torch.atan(x))


def test_safeguard_converges_where_unguarded_anderson_cycles() -> None:
    # With one difference Anderson is the secant method on g, which jumps from one flat side of the root to the other.
    start = torch.tensor([[6.0]], dtype=torch.float64)
    sizes = _unguarded_anderson(_atan, start, 300, window=1)
    assert sizes[-1] > 1.0

    guarded = solve_fixed_point(
        lambda x: _atan(x) - x, _identity, start, tol=1e-6, max_steps=300, monotonicity=0.05, contraction=0.95, window=1
    )
    # The root is 0, so a bound relative to the value says nothing; the value itself does.
    assert guarded.value.abs() < 1e-9


def test_finished_samples_are_frozen_and_a_failing_one_disturbs_nobody() -> None:
    matrix, b = _affine(3, 8, 0.6, seed=4)
    matrix[1] = 0  # solved after one step
    expanding = torch.eye(8, dtype=matrix.dtype) * 3  # diverges

    def solve(maps: Tensor) -> Solution:
        return solve_fixed_point(
            lambda x: (maps @ x[..., None])[..., 0] + b - x,
            _identity,
            torch.zeros_like(b),
            tol=1e-10,
            max_steps=60,
            monotonicity=0.4,
            contraction=0.7,
        )

    clean = solve(matrix)
    assert clean.converged.all()
    assert clean.n_steps[1] < clean.n_steps[0]
    spoilt = matrix.clone()
    spoilt[2] = expanding
    mixed = solve(spoilt)
    assert mixed.converged.tolist()[:2] == [True, True]
    torch.testing.assert_close(mixed.value[:2], clean.value[:2], rtol=1e-12, atol=1e-12)


def test_values_that_are_not_finite_are_reported_and_the_last_good_iterate_is_kept() -> None:
    start = torch.ones(2, 3, dtype=torch.float64)

    def residual(x: Tensor) -> Tensor:
        r = 1.5 - x
        return torch.where(torch.tensor([[False], [True]]) & (x > 1.2), torch.nan, r)

    solution = solve_fixed_point(residual, lambda r: 0.5 * r, start, tol=1e-8, max_steps=100, contraction=0.6)
    assert solution.converged.tolist() == [True, False]
    assert torch.isfinite(solution.value).all()


def test_stagnation_stops_early_and_is_not_called_convergence() -> None:
    generator = torch.Generator().manual_seed(0)
    b = torch.randn(1, 50, generator=generator)

    def residual(x: Tensor) -> Tensor:
        return b - x + 1e-3 * torch.randn(1, 50, generator=generator)

    solution = solve_fixed_point(residual, _identity, torch.zeros_like(b), tol=1e-7, max_steps=500, contraction=0.9)
    assert not solution.converged.any()
    assert solution.n_steps < 50
    assert solution.stalled is not None and solution.stalled.all()
    assert "attainable" in solution.shortfall()


@pytest.mark.parametrize("window", [0, 10])
def test_a_residual_below_its_rounding_stops_the_iteration_and_says_so(window: int) -> None:
    matrix, b = _affine(1, 12, 0.5, seed=6)
    rounding = torch.tensor([1e-4], dtype=torch.float64)

    def solve(tol: float, max_steps: int = 200) -> Solution:
        return solve_fixed_point(
            lambda x: (matrix @ x[..., None])[..., 0] + b - x,
            _identity,
            b,
            tol=tol,
            max_steps=max_steps,
            monotonicity=0.5,
            contraction=0.5,
            window=window,
            rounding=rounding,
        )

    reached = solve(4.1e-4)
    assert reached.stalled is not None
    assert reached.converged.all()
    assert not reached.stalled.any()
    assert reached.shortfall() == ""
    missed = solve(1e-8)
    assert missed.stalled is not None
    assert not missed.converged.any()
    assert missed.stalled.all()
    assert 2e-4 <= missed.error_bound <= 4e-4  # at least rounding / m: the bound counts what the residual cannot see
    assert missed.n_steps <= reached.n_steps + 2
    at_the_last_step = solve(1e-8, int(missed.n_steps))
    assert at_the_last_step.stalled is not None
    assert at_the_last_step.stalled.all()


@pytest.mark.parametrize("window", [0, 10])
def test_each_sample_gets_what_it_would_get_alone(window: int) -> None:
    matrix, b = _affine(4, 8, 0.8, seed=7)
    matrix[1] = 0.1 * matrix[1]  # finished long before the others
    matrix[3] = 5 * matrix[0]  # the plain iteration diverges, Anderson may not

    def solve(samples: list[int]) -> Solution:
        maps, right_side = matrix[samples], b[samples]
        broken = torch.tensor([[sample == 2] for sample in samples])
        calls = itertools.count()

        def residual(x: Tensor) -> Tensor:
            r = (maps @ x[..., None])[..., 0] + right_side - x
            return torch.where(broken & (next(calls) > 3), torch.nan, r)

        return solve_fixed_point(
            residual,
            _identity,
            right_side,
            tol=1e-9,
            max_steps=150,
            monotonicity=0.2,
            contraction=0.9,
            window=window,
        )

    together = solve([0, 1, 2, 3])
    assert together.converged.tolist()[:3] == [True, True, False]
    assert bool(together.converged[3]) == (window > 0 and float(together.error_bound[3]) <= 1e-9)
    assert torch.isfinite(together.value.abs()).all()
    assert "of 4 samples did not converge" in together.shortfall()
    for sample in (0, 1):
        alone = solve([sample])
        assert together.n_steps[sample] == alone.n_steps[0]
        torch.testing.assert_close(together.value[sample], alone.value[0], rtol=1e-12, atol=1e-12)


def test_a_history_in_single_precision_serves_an_iterate_in_double() -> None:
    matrix, b = _affine(2, 30, 0.95, seed=8)
    solution = solve_fixed_point(
        lambda x: (matrix @ x[..., None])[..., 0] + b - x,
        lambda r: r.to(torch.complex64),
        torch.zeros_like(b),
        tol=1e-11,
        max_steps=400,
        monotonicity=0.05,
        contraction=0.96,
    )
    assert solution.value.dtype == torch.complex128
    assert solution.converged.all()
    truth = torch.linalg.solve(torch.eye(30) - matrix, b)
    torch.testing.assert_close(solution.value, truth, rtol=1e-9, atol=1e-9)


def test_empty_samples_converge_at_once() -> None:
    zero = torch.zeros(2, 4, dtype=torch.complex64)
    solution = solve_fixed_point(lambda x: -x, _identity, zero, tol=1e-4, max_steps=10)
    assert solution.converged.all()
    assert (solution.n_steps == 0).all()


def test_the_residual_of_the_solution_is_handed_over_on_demand() -> None:
    matrix, b = _affine(4, 12, 0.9, seed=3)
    start = b * torch.tensor([1.0, 1.0, 1e6, 1.0], dtype=b.dtype)[:, None]  # so that samples finish at different steps

    def residual(x: Tensor) -> Tensor:
        return (matrix @ x[..., None])[..., 0] + b - x

    for max_steps in (0, 3, 100):
        solution = solve_fixed_point(residual, _identity, start, tol=1e-8, max_steps=max_steps, keep_residual=True)
        assert solution.last_residual is not None
        torch.testing.assert_close(solution.last_residual, residual(solution.value), rtol=0, atol=1e-13)
    assert solve_fixed_point(residual, _identity, start, tol=1e-8, max_steps=3).last_residual is None

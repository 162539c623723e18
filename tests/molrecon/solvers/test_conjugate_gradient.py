"""Conjugate gradients against dense solves: the answer, the stopping of each sample, the bound and the gradients."""

from __future__ import annotations

import logging
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from molrecon.solvers.conjugate_gradient import conjugate_gradient, solve_hermitian
from molrecon.solvers.solution import Solution


def random_tensor(*shape: int, seed: int, dtype: torch.dtype = torch.complex128) -> Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def spectrum_matrix(eigenvalues: Tensor, seed: int, dtype: torch.dtype = torch.complex128) -> Tensor:
    """Return Hermitian matrices (batch, n, n) with the given eigenvalues (batch, n) and random eigenvectors."""
    batch, n = eigenvalues.shape
    basis = torch.linalg.qr(random_tensor(batch, n, n, seed=seed, dtype=dtype)).Q
    matrix = (basis * eigenvalues[:, None]) @ basis.mH
    return (matrix + matrix.mH) / 2


def multiply(matrix: Tensor, x: Tensor) -> Tensor:
    return (matrix @ x[..., None])[..., 0]


def relative_error(value: Tensor, truth: Tensor) -> Tensor:
    return torch.linalg.vector_norm(value - truth, dim=1) / torch.linalg.vector_norm(value, dim=1)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(
    batch=st.integers(1, 4),
    n=st.integers(1, 12),
    condition=st.floats(1, 100),
    dtype=st.sampled_from([torch.complex128, torch.float64]),
    warm=st.booleans(),
    seed=st.integers(0, 999),
)
def test_agrees_with_a_dense_solve(
    batch: int, n: int, condition: float, dtype: torch.dtype, warm: bool, seed: int
) -> None:
    matrix = spectrum_matrix(torch.linspace(1, condition, n, dtype=torch.float64).expand(batch, n), seed, dtype)
    y = random_tensor(batch, n, seed=seed + 1, dtype=dtype)
    start = random_tensor(batch, n, seed=seed + 2, dtype=dtype) if warm else None
    solution = conjugate_gradient(lambda x: multiply(matrix, x), y, start=start, tol=1e-13, max_steps=200)
    truth = torch.linalg.solve(matrix, y)
    assert solution.converged.all()
    assert (relative_error(solution.value, truth) < 1e-10).all()


def test_shapes_of_the_report() -> None:
    matrix = spectrum_matrix(torch.linspace(1, 50, 20, dtype=torch.float64).expand(3, 20), seed=0)
    y = random_tensor(3, 4, 5, seed=1)
    solution = conjugate_gradient(lambda x: multiply(matrix, x.flatten(1)).reshape(x.shape), y, tol=1e-8)
    steps = int(solution.n_steps.max())
    assert solution.value.shape == (3, 4, 5)
    assert solution.value.dtype == torch.complex128
    assert solution.residuals.shape == (steps + 1, 3)
    assert solution.error_bound.shape == solution.converged.shape == solution.n_steps.shape == (3,)
    assert solution.converged.dtype == torch.bool
    assert solution.n_steps.dtype == torch.int64
    assert torch.equal(solution.residuals[-1], solution.error_bound)


def test_at_most_n_steps() -> None:
    matrix = spectrum_matrix(torch.linspace(1, 4, 8, dtype=torch.float64)[None], seed=0)
    y = random_tensor(1, 8, seed=1)
    assert int(conjugate_gradient(lambda x: multiply(matrix, x), y, tol=1e-10).n_steps) <= 8
    identity = conjugate_gradient(lambda x: x, y, tol=1e-10)
    assert int(identity.n_steps) == 1
    torch.testing.assert_close(identity.value, y)


def mixed_system() -> tuple[Tensor, Tensor]:
    """Return a batch of an easy (two eigenvalues) and a hard system (condition 10^4)."""
    easy = torch.tensor([1.0, 2.0], dtype=torch.float64).repeat(15)
    hard = torch.logspace(0, 4, 30, dtype=torch.float64)
    return spectrum_matrix(torch.stack([easy, hard]), seed=3), random_tensor(2, 30, seed=4)


def test_samples_stop_on_their_own() -> None:
    matrix, y = mixed_system()
    seen: list[Tensor] = []

    def apply(x: Tensor) -> Tensor:
        seen.append(x)
        return multiply(matrix, x)

    together = conjugate_gradient(apply, y, tol=1e-8, max_steps=200)
    assert together.converged.all()
    assert int(together.n_steps[0]) == 2
    assert int(together.n_steps[1]) > 20
    assert len(seen) == int(together.n_steps.max()) + 1  # and one to verify the last residual
    for i in range(2):
        alone = conjugate_gradient(partial(multiply, matrix[i]), y[i : i + 1], tol=1e-8, max_steps=200)
        # On the hard system rounding alone moves the last steps.
        assert abs(int(alone.n_steps) - int(together.n_steps[i])) <= 3 * i
        torch.testing.assert_close(alone.value[0], together.value[i], rtol=1e-6, atol=1e-9)


def test_finished_samples_are_frozen() -> None:
    matrix, y = mixed_system()
    early = conjugate_gradient(lambda x: multiply(matrix, x), y, tol=1e-8, max_steps=2)
    late = conjugate_gradient(lambda x: multiply(matrix, x), y, tol=1e-8, max_steps=200)
    assert early.converged.tolist() == [True, False]
    assert torch.equal(early.value[0], late.value[0])
    assert not torch.equal(early.value[1], late.value[1])
    assert (late.residuals[2:-1, 0] == late.residuals[2, 0]).all()  # the last one is verified


def test_one_tolerance_per_sample() -> None:
    matrix = spectrum_matrix(torch.logspace(0, 2, 30, dtype=torch.float64).expand(2, 30), seed=3)
    y = random_tensor(1, 30, seed=4).expand(2, 30)
    matrix = matrix[:1].expand(2, 30, 30)
    solution = conjugate_gradient(lambda x: multiply(matrix, x), y, tol=torch.tensor([1e-2, 1e-8]))
    assert solution.converged.all()
    assert solution.n_steps[0] < solution.n_steps[1]
    residual = torch.linalg.vector_norm(y - multiply(matrix, solution.value), dim=1)
    assert (residual <= torch.tensor([1e-2, 1e-8]) * torch.linalg.vector_norm(y, dim=1) * 1.001).all()


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_zero_right_side(dtype: torch.dtype) -> None:
    matrix = spectrum_matrix(torch.linspace(1, 4, 8, dtype=torch.float64).expand(2, 8), seed=0).to(dtype)
    y = random_tensor(2, 8, seed=1, dtype=dtype)
    y[0] = 0
    solution = conjugate_gradient(lambda x: multiply(matrix, x), y, tol=1e-4)
    assert torch.equal(solution.value[0], torch.zeros(8, dtype=dtype))
    assert float(solution.error_bound[0]) == 0
    assert int(solution.n_steps[0]) == 0
    assert solution.converged.all()
    assert torch.isfinite(solution.residuals[:, 0]).all()


def test_warm_start() -> None:
    matrix, y = mixed_system()
    truth = torch.linalg.solve(matrix, y)

    def apply(x: Tensor) -> Tensor:
        return multiply(matrix, x)

    done = conjugate_gradient(apply, y, start=truth, tol=1e-8)
    assert done.n_steps.tolist() == [0, 0]
    assert done.converged.all()
    assert torch.equal(done.value, truth)
    start = truth + 1e-4 * random_tensor(2, 30, seed=5)
    before = start.clone()
    warm, cold = (conjugate_gradient(apply, y, start=s, tol=1e-8, max_steps=200) for s in (start, None))
    assert warm.converged.all()
    assert warm.n_steps[1] < cold.n_steps[1]
    assert torch.equal(start, before)


@pytest.mark.parametrize("smallest", [0.1, 1.0])
def test_error_bound_bounds(smallest: float) -> None:
    eigenvalues = smallest * torch.logspace(0, 2, 30, dtype=torch.float64)
    matrix = spectrum_matrix(eigenvalues.expand(4, 30), seed=3)
    y = random_tensor(4, 30, seed=4)
    truth = torch.linalg.solve(matrix, y)
    for max_steps in range(1, 40):
        solution = conjugate_gradient(
            lambda x: multiply(matrix, x), y, tol=1e-9, max_steps=max_steps, smallest_eigenvalue=smallest
        )
        assert (relative_error(solution.value, truth) <= solution.error_bound * (1 + 1e-6)).all()
    per_sample = conjugate_gradient(
        lambda x: multiply(matrix, x), y, tol=1e-9, smallest_eigenvalue=torch.full((4,), smallest)
    )
    torch.testing.assert_close(per_sample.error_bound, solution.error_bound)


@pytest.mark.parametrize("tol", [1e-4, 1e-6, 0.0])
def test_error_bound_bounds_in_single_precision(tol: float) -> None:
    # The residual of the recursion goes on falling where the true one has stopped at rounding level.
    eigenvalues = torch.logspace(-2, 0, 40, dtype=torch.float32).expand(2, 40)
    matrix = spectrum_matrix(eigenvalues, seed=3, dtype=torch.complex64)
    y = random_tensor(2, 40, seed=4, dtype=torch.complex64)
    solution = conjugate_gradient(lambda x: multiply(matrix, x), y, tol=tol, max_steps=200, smallest_eigenvalue=0.0099)
    truth = torch.linalg.solve(matrix.to(torch.complex128), y.to(torch.complex128))
    assert (relative_error(solution.value.to(torch.complex128), truth) <= solution.error_bound).all()


def test_reports_what_did_not_converge() -> None:
    matrix, y = mixed_system()
    solution = conjugate_gradient(lambda x: multiply(matrix, x), y, tol=1e-8, max_steps=5)
    assert solution.converged.tolist() == [True, False]
    assert solution.n_steps.tolist() == [2, 5]
    broken = y.clone()
    broken[1, 0] = torch.nan
    solution = conjugate_gradient(lambda x: multiply(matrix, x), broken, tol=1e-8)
    assert solution.converged.tolist() == [True, False]
    assert torch.isfinite(solution.value[0].abs()).all()


def test_no_gradient_flows_through_the_iterations() -> None:
    y = random_tensor(1, 4, seed=0).requires_grad_()
    assert not conjugate_gradient(lambda x: 2 * x, y).value.requires_grad


@pytest.mark.parametrize("dtype", [torch.complex128, torch.float64])
def test_gradients(dtype: torch.dtype) -> None:
    factor = random_tensor(2, 4, 4, seed=0, dtype=dtype).requires_grad_()
    y = random_tensor(2, 4, seed=1, dtype=dtype).requires_grad_()
    weight = torch.tensor([0.5, 2.0], dtype=torch.float64, requires_grad=True)

    def solve(factor: Tensor, weight: Tensor, y: Tensor) -> Tensor:
        def matrix(x: Tensor) -> Tensor:
            return weight[:, None] * multiply(factor.mH, multiply(factor, x)) + x

        return solve_hermitian(matrix, y, tol=1e-14, max_steps=50).value

    assert torch.autograd.gradcheck(solve, (factor, weight, y), rtol=1e-5, atol=1e-7)
    # Against autograd through the dense solve: the same numbers by another road.
    loss_weight = random_tensor(2, 4, seed=2, dtype=dtype)
    ours = torch.autograd.grad(solve(factor, weight, y), (factor, weight, y), loss_weight)
    dense = weight[:, None, None] * factor.mH @ factor + torch.eye(4)
    theirs = torch.autograd.grad(torch.linalg.solve(dense, y), (factor, weight, y), loss_weight)
    for first, second in zip(ours, theirs, strict=True):
        torch.testing.assert_close(first, second, rtol=1e-9, atol=1e-11)


def test_solve_hermitian_reports_and_obeys_no_grad() -> None:
    y = random_tensor(2, 4, seed=1).requires_grad_()
    weight = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    with torch.no_grad():
        assert not solve_hermitian(lambda x: weight * x, y).value.requires_grad
    solution = solve_hermitian(lambda x: weight * x, y)
    assert solution.converged.all()
    assert solution.value.requires_grad
    torch.testing.assert_close(solution.value.detach(), y.detach() / 3)


def test_a_backward_solve_that_does_not_converge_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    matrix = spectrum_matrix(torch.linspace(1, 100, 20, dtype=torch.float64)[None], seed=0)
    y = random_tensor(1, 20, seed=1).requires_grad_()
    reports: list[Solution] = []
    with caplog.at_level(logging.WARNING):
        solution = solve_hermitian(lambda x: multiply(matrix, x), y, tol=1e-9, max_steps=3, on_backward=reports.append)
        solution.value.abs().square().sum().backward()
    assert not reports[0].converged.any() and not caplog.records
    with caplog.at_level(logging.WARNING):
        solve_hermitian(lambda x: multiply(matrix, x), y, tol=1e-9, max_steps=3).value.abs().square().sum().backward()
    assert "1 of 1 samples did not converge" in caplog.text

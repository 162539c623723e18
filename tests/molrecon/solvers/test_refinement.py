"""Residuals in double precision by single precision: how far they are off, and that no bound rests on them."""

from __future__ import annotations

import torch
from torch import Tensor

from molrecon.solvers.batched import norm
from molrecon.solvers.fixed_point import solve_fixed_point
from molrecon.solvers.refinement import SHARE, RefinedResidual

WEIGHT = 40.0


class _Counting:
    """`P x = x + 40 Q x` with a projection Q; counts the applications in each precision."""

    def __init__(self, batch: int, n: int) -> None:
        generator = torch.Generator().manual_seed(0)
        basis = torch.linalg.qr(torch.randn(batch, n, n // 3, dtype=torch.complex128, generator=generator))[0]
        self.projection = basis @ basis.mH
        self.calls = {torch.complex64: 0, torch.complex128: 0}

    def __call__(self, x: Tensor) -> Tensor:
        self.calls[x.dtype] += 1
        return x + WEIGHT * (self.projection.to(x.dtype) @ x[..., None])[..., 0]


def _problem(batch: int = 3, n: int = 60) -> tuple[_Counting, RefinedResidual, Tensor, list[Tensor]]:
    matrix = _Counting(batch, n)
    right_side = torch.randn(batch, n, dtype=torch.complex128, generator=torch.Generator().manual_seed(1))
    asked: list[Tensor] = []

    def source(x: Tensor) -> Tensor:
        asked.append(x)
        return right_side + 0.9 * torch.sin(x.real)

    weight = torch.full((batch, 1), WEIGHT, dtype=torch.float64)
    return matrix, RefinedResidual(source, matrix, weight, torch.complex64), right_side, asked


def _precondition(r: Tensor) -> Tensor:
    return (r / (1 + WEIGHT / 2)).to(torch.complex64)


def test_residuals_along_a_solve_are_right_to_a_hundredth_and_nearly_all_in_single_precision() -> None:
    matrix, residual, right_side, _ = _problem()
    gaps: list[float] = []

    def watched(x: Tensor) -> Tensor:
        r = residual(x)
        exact = right_side + 0.9 * torch.sin(x.real) - _Counting.__call__(_Counting(3, 60), x)
        gaps.append(float((norm(r - exact) / norm(exact)).max()))
        return r

    solution = solve_fixed_point(
        watched,
        _precondition,
        torch.zeros_like(right_side),
        exactly=residual.exactly,
        window=10,
        tol=1e-10,
        max_steps=400,
        monotonicity=0.1,
    )
    assert bool(solution.converged.all())
    assert max(gaps) <= SHARE
    assert matrix.calls[torch.complex128] <= 0.3 * matrix.calls[torch.complex64]


def test_the_source_is_computed_once_an_iterate() -> None:
    _, residual, right_side, asked = _problem()
    x = 0 * right_side
    everywhere = torch.ones(3, dtype=torch.bool)
    residual(x)
    residual.exactly(x, everywhere)
    y = x + 1
    residual(y)
    residual.exactly(y, everywhere)
    assert len(asked) == 2


def test_samples_that_are_not_marked_keep_their_reference() -> None:
    _, residual, right_side, _ = _problem()
    x = 0 * right_side
    residual(x)
    residual.exactly(x + 1, torch.tensor([True, False, False]))
    reference, image = residual._reference or (x, x)
    torch.testing.assert_close(
        reference, torch.tensor([1.0, 0.0, 0.0], dtype=reference.dtype)[:, None].expand_as(reference)
    )
    assert float(image[1:].abs().max()) == 0 < float(image[0].abs().max())


def test_bounds_rest_on_the_exact_residual() -> None:
    """An approximation that flatters every iterate neither ends the solve nor gets into the report."""
    root = torch.randn(2, 30, dtype=torch.float64, generator=torch.Generator().manual_seed(2))

    def exact(x: Tensor, samples: Tensor | None = None) -> Tensor:
        return root - x

    def flattering(x: Tensor) -> Tensor:
        return 1e-9 * exact(x)

    for max_steps, converged in ((400, True), (3, False)):
        solution = solve_fixed_point(
            flattering,
            lambda r: 0.1 * r,
            torch.zeros_like(root),
            exactly=exact,
            tol=1e-6,
            max_steps=max_steps,
            window=0,
        )
        bound = norm(solution.value - root) / norm(solution.value)
        torch.testing.assert_close(solution.error_bound, bound)
        assert solution.converged.tolist() == [converged, converged]

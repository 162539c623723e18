"""The fixed point of an arbitrary map through torchdeq: what comes back, and what torchdeq would not say."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from molrecon.solvers.equilibrium import EquilibriumSolver
from molrecon.solvers.implicit import implicit_gradient


def test_value_and_gradient_are_those_of_the_iterate_reported() -> None:
    generator = torch.Generator().manual_seed(0)
    matrix = 0.3 * torch.randn(6, 6, dtype=torch.complex128, generator=generator) / 6**0.5
    b = torch.randn(2, 6, dtype=torch.complex128, generator=generator).requires_grad_()

    def image(x: Tensor) -> Tensor:
        return x @ matrix + b + 0.1 * torch.tanh(x.real)

    def residual(x: Tensor) -> Tensor:
        return image(x) - x

    solve = EquilibriumSolver(tol=1e-3, max_steps=100, backward_tol=1e-12, backward_max_steps=200)
    with torch.no_grad():
        expected = solve(residual, b, on_backward=None, who="test")
    solution = solve(residual, b, on_backward=None, who="test")
    assert float(expected.residuals[-1].max()) > 1e-6  # not so accurate that one more step could not be told
    torch.testing.assert_close(solution.value.detach(), expected.value, rtol=1e-14, atol=1e-14)

    exact = EquilibriumSolver(tol=1e-12, max_steps=100, backward_tol=1e-12, backward_max_steps=200)
    root = exact(residual, b, on_backward=None, who="test").value
    (gradient,) = torch.autograd.grad(root.abs().square().sum(), b)

    at = root.detach().requires_grad_()
    jacobian = torch.autograd.functional.jacobian(
        lambda x: torch.view_as_real(residual(torch.view_as_complex(x))), torch.view_as_real(at.detach())
    )
    flat = jacobian.reshape(24, 24)

    def dense(grad: Tensor) -> Tensor:
        answer = torch.linalg.solve(-flat.mT, torch.view_as_real(grad).reshape(24))
        return torch.view_as_complex(answer.reshape(2, 6, 2))

    (by_hand,) = torch.autograd.grad(
        implicit_gradient(at.detach(), residual(at.detach()), dense).abs().square().sum(), b
    )
    torch.testing.assert_close(gradient, by_hand, rtol=1e-8, atol=1e-8)


def test_a_second_derivative_is_refused() -> None:
    b = torch.ones(1, 3, dtype=torch.float64, requires_grad=True)
    solution = EquilibriumSolver()(lambda x: torch.cos(x) * b - x, b, on_backward=None, who="test")
    with pytest.raises(RuntimeError, match="test: the implicit gradient cannot be differentiated again"):
        torch.autograd.grad(solution.value.sum(), b, create_graph=True)


def test_a_conjugated_gradient_is_resolved() -> None:
    b = torch.ones(1, 3, dtype=torch.complex128, requires_grad=True)
    solution = EquilibriumSolver(backward_tol=1e-10)(lambda x: b - 2 * x, b, on_backward=None, who="test")
    seed = torch.full((1, 3), 1 + 2j, dtype=torch.complex128).conj()
    (gradient,) = torch.autograd.grad(solution.value, b, seed)
    torch.testing.assert_close(gradient, seed.resolve_conj() / 2)

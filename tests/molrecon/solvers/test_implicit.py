"""The implicit gradient on roots whose derivatives are known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from molrecon.solvers.implicit import implicit_gradient


def square_root(a: Tensor, steps: int = 30) -> Tensor:
    """Return the root of r(x, a) = a - x^2 by Newton's method, with its implicit gradient."""
    x = torch.ones_like(a).detach()
    for _ in range(steps):
        x = x - (x * x - a.detach()) / (2 * x)
    return implicit_gradient(x, a - x * x, lambda grad: grad / (2 * x))


def test_scalar_root() -> None:
    a = torch.tensor([0.25, 2.0, 9.0], dtype=torch.float64, requires_grad=True)
    x = square_root(a)
    torch.testing.assert_close(x, a.sqrt())
    (gradient,) = torch.autograd.grad(x.sum(), a)
    torch.testing.assert_close(gradient, 0.5 / a.detach().sqrt())
    assert torch.autograd.gradcheck(square_root, (a,))


def contraction_root(matrix: Tensor, b: Tensor) -> Tensor:
    """Return the root of r(x) = tanh(M x) + b - x, batch of one, with its implicit gradient by a dense solve."""
    x = torch.zeros_like(b).detach()
    for _ in range(200):
        x = torch.tanh(matrix.detach() @ x) + b.detach()
    slope = 1 - torch.tanh(matrix.detach() @ x).square()
    minus_jacobian = torch.eye(len(b), dtype=b.dtype) - slope[:, None] * matrix.detach()
    residual = torch.tanh(matrix @ x) + b - x
    return implicit_gradient(x, residual, lambda grad: torch.linalg.solve(minus_jacobian.mH, grad))


def test_vector_root() -> None:
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(4, 4, dtype=torch.float64, generator=generator)
    matrix = (0.7 * matrix / torch.linalg.matrix_norm(matrix, ord=2)).requires_grad_()
    b = torch.randn(4, dtype=torch.float64, generator=generator).requires_grad_()
    assert torch.autograd.gradcheck(contraction_root, (matrix, b))


def test_complex_root() -> None:
    def divide(y: Tensor, p: Tensor) -> Tensor:
        x = (y / p).detach()
        return implicit_gradient(x, y - p * x, lambda grad: grad / p.detach().conj())

    y = torch.tensor([1 + 2j, -0.5j], requires_grad=True, dtype=torch.complex128)
    p = torch.tensor([2 - 1j, 0.3 + 1j], requires_grad=True, dtype=torch.complex128)
    assert torch.autograd.gradcheck(divide, (y, p))


def test_value_is_passed_through() -> None:
    value = torch.tensor([3.0])
    weight = torch.tensor([2.0], requires_grad=True)
    result = implicit_gradient(value, weight * 5, lambda grad: grad)
    assert torch.equal(result, value)
    assert result.data_ptr() != value.data_ptr()


def test_solve_adjoint_sees_the_gradient_once() -> None:
    seen: list[Tensor] = []

    def solve_adjoint(grad: Tensor) -> Tensor:
        seen.append(grad)
        return 2 * grad

    weight = torch.tensor([1.0, 1.0], requires_grad=True)
    result = implicit_gradient(torch.zeros(2), weight * torch.tensor([3.0, 4.0]), solve_adjoint)
    assert not seen
    (result * torch.tensor([5.0, 6.0])).sum().backward()
    assert len(seen) == 1
    assert torch.equal(seen[0], torch.tensor([5.0, 6.0]))
    assert weight.grad is not None
    assert torch.equal(weight.grad, torch.tensor([30.0, 48.0]))


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match=r"implicit_gradient: residual \(2, 3\) does not fit value \(2,\)"):
        implicit_gradient(torch.zeros(2), torch.zeros(2, 3), lambda grad: grad)


def saved_bytes(steps: int) -> int:
    """Return the bytes that autograd keeps for the backward pass of a root found in `steps` iterations."""
    saved = 0

    def pack(tensor: Tensor) -> Tensor:
        nonlocal saved
        saved += tensor.numel() * tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        square_root(torch.full((1000,), 2.0, requires_grad=True), steps)
    return saved


def graph_nodes(root: Tensor) -> int:
    seen, left = set(), [root.grad_fn]
    while left:
        node = left.pop()
        if node is not None and node not in seen:
            seen.add(node)
            left += [following for following, _ in node.next_functions]
    return len(seen)


def test_memory_does_not_grow_with_the_iterations() -> None:
    assert saved_bytes(3) == saved_bytes(300)
    a = torch.full((5,), 2.0, requires_grad=True)
    assert graph_nodes(square_root(a, 3)) == graph_nodes(square_root(a, 300))

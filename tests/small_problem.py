"""A small multi-coil problem in double precision, and the two checks that every reconstructor is put to."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from molrecon.networks import PlainNetwork
from molrecon.reconstructors.conditioning import Conditioning
from molrecon.solvers.conjugate_gradient import conjugate_gradient
from operators import Sense, random_mask


def make_problem() -> tuple[Tensor, Sense, Conditioning]:
    """Return k-space (1, 3, 8, 10), its operator with maps of unit norm, and a conditioning that is not trivial."""
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(1, 3, 8, 10, dtype=torch.complex128, generator=generator)
    maps = maps / torch.linalg.vector_norm(maps, dim=1, keepdim=True)
    operator = Sense(maps, torch.from_numpy(random_mask(10, 2, 0.2, 1))[None, None])
    kspace = operator(torch.randn(1, 8, 10, dtype=torch.complex128, generator=generator))
    phase = torch.polar(torch.ones(1, 8, 10).double(), torch.rand(1, 8, 10, generator=generator).double())
    conditioning = Conditioning(torch.tensor([2.0]).double(), torch.tensor([0.02]).double(), phase)
    return kspace, operator, conditioning


def small_network() -> PlainNetwork:
    """Return a plain network with weights so small that the iterations contract."""
    plain = PlainNetwork(monotonicity=0.3, layers=2, features=3).double()
    with torch.no_grad():
        for parameter in plain.parameters():
            parameter.mul_(0.5)
    return plain


def shrinkage() -> PlainNetwork:
    """Return `H = 0.7 I`."""
    return PlainNetwork(monotonicity=0.3, layers=2, features=3, skip=True).double()


def tikhonov(kspace: Tensor, operator: Sense, weight: Tensor) -> Tensor:
    """Return the x with `x + w A^H (A x - b) = 0`."""
    return conjugate_gradient(
        lambda x: x + weight * operator.normal(x), weight * operator.adjoint(kspace), tol=1e-14, max_steps=500
    ).value


def assert_gradients(model: nn.Module, loss: Callable[[Tensor], Tensor], kspace: Tensor, operator: Sense) -> None:
    """Compare the slope of `loss` along a direction of all parameters, and along one of the data, with differences."""
    generator = torch.Generator().manual_seed(1)
    parameters = list(model.parameters())
    directions = [torch.randn(p.shape, dtype=torch.float64, generator=generator) for p in parameters]
    data_direction = operator.sampling(torch.randn(kspace.shape, dtype=torch.complex128, generator=generator))
    data = kspace.clone().requires_grad_()
    loss(data).backward()
    assert data.grad is not None
    grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    slope = sum(float((g * d).sum()) for g, d in zip(grads, directions, strict=True))
    data_slope = float((data.grad.conj() * data_direction).sum().real)
    step = 1e-6  # short enough to stay on one side of every kink of the rectifiers

    def moved(amount: float) -> Tensor:
        for p, d in zip(parameters, directions, strict=True):
            p.add_(amount * d)
        return loss(kspace)

    with torch.no_grad():
        data_difference = loss(kspace + step * data_direction) - loss(kspace - step * data_direction)
        difference = moved(step) - moved(-2 * step)
    assert slope == pytest.approx(float(difference) / (2 * step), rel=1e-6)
    assert data_slope == pytest.approx(float(data_difference) / (2 * step), rel=1e-6)

"""Our solver inside torchdeq: it stops where torchdeq says, reports what it reached, and gives the root's gradient."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torchdeq import get_deq
from torchdeq.solver import get_solver

from molrecon.solvers.fixed_point import WINDOW
from molrecon.solvers.torchdeq_solver import SAFEGUARDED_ANDERSON, safeguarded_anderson, solver_with_window


def affine(batch: int, n: int, factor: float, seed: int) -> tuple[Tensor, Tensor]:
    """Return K with |K| = factor and b, for the map x -> K x + b."""
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.randn(batch, n, n, dtype=torch.complex128, generator=generator)
    matrix = factor * matrix / torch.linalg.matrix_norm(matrix, ord=2)[:, None, None]
    return matrix, torch.randn(batch, n, dtype=torch.complex128, generator=generator)


def times(matrix: Tensor, x: Tensor) -> Tensor:
    return (matrix @ x[..., None])[..., 0]


def atan(x: Tensor) -> Tensor:
    """`x - g(x)` with g of slope 0.05 far out and 1 at the root: a 0.95-contraction with the root 0."""
    return x - (0.05 * x + 0.95 * torch.atan(x))


def test_torchdeqs_anderson_diverges_where_ours_inside_torchdeq_does_not() -> None:
    start = torch.full((1, 1), 6.0, dtype=torch.float64)
    shifted = 1.0  # moves the root away from 0, where torchdeq's relative residual is not defined

    def func(x: Tensor) -> Tensor:
        return atan(x - shifted) + shifted

    theirs, _, _ = get_solver("anderson")(func, start, max_iter=300, tol=1e-9, stop_mode="abs", m=2, lam=0.0)
    ours, _, info = get_solver(SAFEGUARDED_ANDERSON)(func, start, max_iter=300, tol=1e-9, contraction=0.95)
    assert (ours - shifted).abs() < 1e-8
    assert info["abs_lowest"] <= 1e-9
    assert not (theirs - shifted).abs() < 1e-3


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_stop_mode(scale: float) -> None:
    matrix, b = affine(3, 12, 0.9, seed=1)
    b = scale * b

    def residual(x: Tensor) -> Tensor:
        return torch.linalg.vector_norm(times(matrix, x) + b - x, dim=1)

    steps = {}
    for mode in ("abs", "rel"):
        value, _, info = safeguarded_anderson(
            lambda x: times(matrix, x) + b, torch.zeros_like(b), 200, 1e-4, mode, contraction=0.95
        )
        length = torch.linalg.vector_norm(value, dim=1)
        assert (info[f"{mode}_lowest"] <= 1e-4).all()
        torch.testing.assert_close(info["abs_lowest"], residual(value), rtol=1e-6, atol=1e-12 * scale)
        torch.testing.assert_close(info["rel_lowest"], residual(value) / length, rtol=1e-6, atol=1e-12)
        for other in ("abs", "rel"):
            assert info[f"{other}_trace"].shape == (3, int(info["nstep"].max()) + 1)
            torch.testing.assert_close(info[f"{other}_trace"][:, -1], info[f"{other}_lowest"])
        assert info["solution"].converged.all()
        steps[mode] = int(info["nstep"].max())
    # A residual of 1e-4 in the units of x is little of a large x, and much of a small one.
    assert (steps["abs"] - steps["rel"]) * (scale - 1) >= 0
    assert scale == 1 or steps["abs"] != steps["rel"]


def test_the_absolute_residual_converges_to_a_root_at_zero() -> None:
    start = torch.full((2, 1), 0.5, dtype=torch.float64)
    start[1] = 0
    value, _, info = safeguarded_anderson(lambda x: 0.5 * x, start, tol=1e-6, window=0)
    assert info["solution"].converged.all()
    assert value.abs().max() <= 2e-6
    assert info["nstep"].tolist() == [18, 0]


def test_arguments_that_torchdeq_would_swallow_are_refused() -> None:
    start = torch.zeros(1, 1)
    with pytest.raises(ValueError, match="safeguarded_anderson: stop_mode is 'relative', expected 'abs' or 'rel'"):
        safeguarded_anderson(torch.cos, start, stop_mode="relative")
    deq = get_deq(f_solver=SAFEGUARDED_ANDERSON, f_stop_mode="absolute")
    with pytest.raises(ValueError, match="stop_mode is 'absolute'"):
        deq(torch.cos, start)
    with pytest.raises(TypeError, match="contracton"):
        get_deq(f_solver=SAFEGUARDED_ANDERSON)(torch.cos, start, solver_kwargs={"contracton": 0.5})


@pytest.mark.parametrize("mode", ["abs", "rel"])
@pytest.mark.parametrize("window", [0, 3, WINDOW])
def test_gradients_are_those_of_the_root(window: int, mode: str) -> None:
    matrix, b = affine(2, 6, 0.7, seed=3)
    b.requires_grad_()
    deq = get_deq(
        f_solver=solver_with_window(window),
        b_solver=solver_with_window(window),
        ift=True,
        f_tol=1e-12,
        b_tol=1e-12,
        f_max_iter=200,
        b_max_iter=200,
        f_stop_mode=mode,
        b_stop_mode=mode,
    )
    (z,), info = deq(lambda x: times(matrix, x) + b, torch.zeros_like(b))
    assert info["solution"].converged.all()
    z.abs().square().sum().backward()
    resolvent = torch.linalg.inv(torch.eye(6, dtype=matrix.dtype) - matrix)
    expected = 2 * times(resolvent.mH @ resolvent, b.detach())
    torch.testing.assert_close(b.grad, expected, rtol=1e-8, atol=1e-8)


def test_a_window_reaches_the_solver_of_the_gradient() -> None:
    matrix, b = affine(1, 20, 0.95, seed=4)
    b.requires_grad_()
    steps: list[int] = []
    for window in (0, WINDOW):
        deq = get_deq(
            f_solver=SAFEGUARDED_ANDERSON, b_solver=solver_with_window(window), ift=True, b_tol=1e-8, b_max_iter=1000
        )
        (z,), _ = deq(
            lambda x: times(matrix, x) + b,
            torch.zeros_like(b),
            backward_writer=lambda info: steps.append(int(info["nstep"])),
        )
        z.abs().square().sum().backward()
    plain, accelerated = steps
    assert accelerated < plain

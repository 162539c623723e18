"""Convolutions of any dimension and padding: adjoints, separable kernels, and the step of SLL layers."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as nnf
from torch import Tensor

from molrecon.networks.convolution import Convolution, Padding, SeparableConvolution, composed_kernel
from molrecon.networks.haar import v_cycle
from molrecon.networks.paired import adjoint_in_pairs, paired_kernel
from molrecon.networks.sll import sll_step

PADDINGS: tuple[Padding, ...] = ("zeros", "circular")


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def matrix(filters: Convolution | SeparableConvolution, channels: int, shape: tuple[int, ...]) -> Tensor:
    n = channels * math.prod(shape)
    columns = filters(torch.eye(n, dtype=torch.float64).reshape(n, channels, *shape))
    return columns.flatten(1).T


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize(
    ("size", "shape"),
    [
        ((3,), (5,)),
        ((3, 5), (6, 7)),
        ((5, 3), (1, 4)),
        ((3, 3, 3), (2, 5, 4)),
        ((7, 3, 1), (2, 1, 3)),
        ((1, 1), (2, 2)),
    ],
    ids=str,
)
def test_adjoint(size: tuple[int, ...], shape: tuple[int, ...], padding: Padding) -> None:
    filters = Convolution(random(4, 3, *size), torch.zeros(4, dtype=torch.float64), padding)
    x, u = random(2, 3, *shape, seed=1), random(2, 4, *shape, seed=2)
    assert filters(x).shape == u.shape
    torch.testing.assert_close((filters(x) * u).sum(), (x * filters.adjoint(u)).sum(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [(3, 3), (5, 3), (1, 1), (3, 7)], ids=str)
def test_two_columns_at_a_time_are_the_adjoint(size: tuple[int, int], dtype: torch.dtype) -> None:
    weight, u = random(6, 3, *size).to(dtype), random(2, 6, 5, 8, seed=1).to(dtype)
    wanted = nnf.conv_transpose2d(u, weight, padding=(size[0] // 2, size[1] // 2))
    channels_last = u.contiguous(memory_format=torch.channels_last)
    for features in (u, channels_last):
        torch.testing.assert_close(adjoint_in_pairs(features, paired_kernel(weight)), wanted)
    found = adjoint_in_pairs(channels_last, paired_kernel(weight))
    assert found.is_contiguous(memory_format=torch.channels_last)


def test_adjoint_is_the_same_with_and_without_a_graph() -> None:
    weight, u = random(6, 3, 3, 3).float(), random(2, 6, 5, 8, seed=1).float()
    plain = Convolution(weight.clone().requires_grad_(), torch.zeros(6), "zeros").adjoint(u)
    assert plain.requires_grad
    for cols in (8, 7):  # an odd number of columns has no pairs
        found = Convolution(weight, torch.zeros(6), "zeros").adjoint(u[..., :cols])
        wanted = nnf.conv_transpose2d(u[..., :cols], weight, padding=1)
        torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("padding", PADDINGS)
def test_separable_convolution_is_that_with_the_composed_kernel(padding: Padding) -> None:
    spatial, temporal, bias = random(5, 4, 3, 3), random(4, 2, 5, seed=1), random(5, seed=2)
    x, u = random(2, 2, 3, 6, 4, seed=3), random(2, 5, 3, 6, 4, seed=4)
    separable = SeparableConvolution(spatial, temporal, bias, padding)
    full = Convolution(composed_kernel(spatial, temporal), bias, padding)
    torch.testing.assert_close(separable(x), full(x))
    torch.testing.assert_close(separable.adjoint(u), full.adjoint(u))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("size", "shape"), [((3,), (4,)), ((3, 3), (4, 3)), ((3, 5), (2, 7)), ((3, 3, 3), (2, 3, 4))])
def test_sll_step_is_small_enough(size: tuple[int, ...], shape: tuple[int, ...], dtype: torch.dtype) -> None:
    # W^T D W <= 2 on the matrix written out; D is at most a few times too small.
    for seed in range(4):
        weight = (random(1, 4, 2, *size, seed=seed) * 10.0 ** (seed - 2)).to(dtype)
        if seed == 3:
            weight[:, 1:] = weight[:, :1]  # features alike
        log_q = (random(1, 4, seed=seed) if seed else torch.zeros(1, 4)).to(dtype)
        step = sll_step(weight, log_q)
        assert step.dtype == dtype
        root = step[0].double().sqrt().repeat_interleave(math.prod(shape))
        for padding in PADDINGS:
            w = matrix(Convolution(weight[0].double(), torch.zeros(4, dtype=torch.float64), padding), 2, shape)
            norm = torch.linalg.matrix_norm(root[:, None] * w, ord=2).square()
            assert 0.05 < norm <= 2


def test_sll_step_of_nothing_is_finite() -> None:
    assert torch.isfinite(sll_step(torch.zeros(1, 2, 2, 3, 3), torch.zeros(1, 2))).all()


@pytest.mark.parametrize("factors", [(2,), (2, 2), (1, 2, 2), (2, 2, 2), (2, 1, 1)], ids=str)
def test_the_pyramid_is_orthonormal(factors: tuple[int, ...]) -> None:
    x = random(2, 3, *[4] * len(factors))

    def same(y: Tensor) -> Tensor:
        return y

    torch.testing.assert_close(v_cycle([same] * 5, x, factors), x)
    # Averages that are set to zero take exactly their part of the energy with them.
    details = v_cycle([same, torch.zeros_like, same], x, factors)
    averages = v_cycle([same, lambda y: 2 * y, same], x, factors) - x
    torch.testing.assert_close(details + averages, x)
    torch.testing.assert_close((details * averages).sum(), torch.zeros((), dtype=torch.float64), atol=1e-12, rtol=0)

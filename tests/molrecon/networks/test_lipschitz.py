"""The certified bound of convolutions against dense singular values, and the numbers of a certificate."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
import torch.nn.functional as nnf
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

from molrecon.networks.initial import residual_filters
from molrecon.networks.lipschitz import (
    GRAM_ITERATIONS,
    certified_norm_bound,
    convolution_norm_bound,
    convolution_norm_on_grid,
    normalised_kernels,
)
from molrecon.reconstructors.certificate import certificate
from molrecon.reconstructors.defaults import DEFAULT_MODEL
from molrecon.weights import weights_path

CONVOLVE = {1: nnf.conv1d, 2: nnf.conv2d, 3: nnf.conv3d}


def random_kernel(*shape: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def dense_norm(kernel: Tensor, shape: tuple[int, ...], *, circular: bool) -> Tensor:
    """Return the largest singular value of the convolution's matrix, which is written out column by column."""
    n = kernel.shape[1] * math.prod(shape)
    unit = torch.eye(n, dtype=kernel.dtype).reshape(n, kernel.shape[1], *shape)
    before_after = [pad for size in reversed(kernel.shape[2:]) for pad in ((size - 1) // 2, size // 2)]
    padded = nnf.pad(unit, before_after, mode="circular" if circular else "constant")
    return torch.linalg.matrix_norm(CONVOLVE[len(shape)](padded, kernel).flatten(1), ord=2)


KERNELS = [
    (1, 1, 3),
    (3, 2, 5),
    (2, 3, 3, 3),
    (4, 2, 3, 3),
    (1, 1, 5, 2),
    (2, 2, 1, 1),
    (2, 1, 2, 3, 2),
    (1, 2, 3, 3, 3),
]


@pytest.mark.parametrize("circular", [False, True], ids=["zero", "circular"])
@pytest.mark.parametrize("n", [5, 6, 9])
@pytest.mark.parametrize("size", KERNELS, ids=str)
def test_bounds_the_dense_norm(size: tuple[int, ...], n: int, circular: bool) -> None:
    ndim = len(size) - 2
    shape = (n, n - 1)[:ndim] if ndim < 3 else (n - 1, 3, 4)
    for seed in range(3):
        kernel = random_kernel(*size, seed=seed)
        truth = dense_norm(kernel, shape, circular=circular)
        for oversampling, iterations in ((2, 2), (16, 6)):
            bound = convolution_norm_bound(kernel, ndim, oversampling=oversampling, iterations=iterations)
            assert bound >= truth * (1 - 1e-12)


@pytest.mark.parametrize("shape", [(6,), (7, 6), (4, 3, 5)], ids=str)
def test_norm_on_a_grid_is_exact(shape: tuple[int, ...]) -> None:
    kernel = random_kernel(2, 3, *[3] * len(shape), seed=0)
    torch.testing.assert_close(convolution_norm_on_grid(kernel, shape), dense_norm(kernel, shape, circular=True))


def trained_like() -> dict[str, Tensor]:
    """Return kernels as training meets them: flat spectra, of full and of half rank, smooth ones, and trained ones."""
    state = load_file(weights_path(DEFAULT_MODEL))
    half = torch.eye(16, dtype=torch.float64)[:8] @ torch.linalg.qr(random_kernel(16, 16, seed=1)).Q
    line = torch.tensor([0.25, 0.5, 0.25], dtype=torch.float64)
    kernels = {f"trained {i}": kernel.double() for i, kernel in enumerate(state["network.weight"]) if i in (0, 8, 17)}
    kernels["identity"] = nnf.pad(torch.eye(16, dtype=torch.float64)[..., None, None], (1, 1, 1, 1))
    kernels["half rank"] = nnf.pad((half.T @ half)[..., None, None], (1, 1, 1, 1))
    kernels["frame 2D"] = residual_filters(1, 32, 8, (3, 3), 0)[0].double()
    kernels["frame 3D"] = residual_filters(1, 54, 2, (3, 3, 3), 0)[0].double()
    kernels["smooth 3D"] = torch.einsum("i,j,k->ijk", line, line, line)[None, None]
    kernels["separable 2D"] = torch.einsum("oi,y,x->oiyx", random_kernel(5, 4, seed=0), line, line.flip(0))
    for size in (*KERNELS, (32, 8, 3, 3), (8, 8, 3, 3, 3)):
        kernels[f"random {size}"] = random_kernel(*size, seed=0)
    return kernels


def test_within_two_percent_of_exact_after_six_iterations() -> None:
    assert GRAM_ITERATIONS <= 6
    for name, kernel in trained_like().items():
        ndim = kernel.ndim - 2
        supremum = convolution_norm_on_grid(kernel, ({1: 500, 2: 40, 3: 24}[ndim],) * ndim)
        for found in (convolution_norm_bound(kernel, ndim), certified_norm_bound(kernel[None], ndim)[0]):
            assert supremum * (1 - 1e-12) <= found <= supremum * 1.02, name


def test_normalised_kernels_are_certified() -> None:
    # In float32, and with the tighter bound in float64 that a certificate takes.
    kernels = trained_like()
    for name in ("trained 8", "identity", "frame 2D", "random (2, 3, 3, 3)", "random (1, 2, 3, 3, 3)"):
        ndim = kernels[name].ndim - 2
        scaled = torch.stack([0.01 * kernels[name], kernels[name], 30 * kernels[name]]).float()
        normalised = normalised_kernels(scaled, ndim)
        assert torch.equal(normalised[0], scaled[0])
        found = certified_norm_bound(normalised, ndim)
        assert (found <= 1).all(), name
        assert found[2] > 0.985, name


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    channels=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    size=st.lists(st.integers(1, 4), min_size=1, max_size=2),
    scale=st.floats(1e-3, 1e3),
    oversampling=st.integers(2, 6),
    n=st.integers(4, 8),
    seed=st.integers(0, 9999),
)
def test_random_kernels(
    channels: tuple[int, int], size: list[int], scale: float, oversampling: int, n: int, seed: int
) -> None:
    kernel = scale * random_kernel(*channels, *size, seed=seed)
    bound = convolution_norm_bound(kernel, len(size), oversampling=oversampling, iterations=3)
    shape = (n,) * len(size)
    for circular in (False, True):
        assert dense_norm(kernel, shape, circular=circular) <= bound * (1 + 1e-12)
    assert convolution_norm_on_grid(kernel, (37,) * len(size)) <= bound * (1 + 1e-12)


def test_many_kernels_at_once() -> None:
    kernels = random_kernel(2, 3, 4, 2, 3, 3, seed=0)
    together = convolution_norm_bound(kernels, 2)
    assert together.shape == (2, 3)
    alone = torch.stack([convolution_norm_bound(k, 2) for k in kernels.flatten(0, 1)]).reshape(2, 3)
    torch.testing.assert_close(together, alone)


def test_the_reshaped_kernel_is_no_bound() -> None:
    # The norm that torch.nn.utils.spectral_norm takes: of the kernel as a matrix (out, in * size).
    kernel = torch.ones(1, 1, 3, 3, dtype=torch.float64)
    reshaped = torch.linalg.matrix_norm(kernel.flatten(1), ord=2)
    truth = dense_norm(kernel, (12, 12), circular=True)
    torch.testing.assert_close(reshaped, torch.tensor(3.0, dtype=torch.float64))
    torch.testing.assert_close(truth, torch.tensor(9.0, dtype=torch.float64))
    assert convolution_norm_bound(kernel, 2) >= truth


def test_more_work_gives_a_tighter_bound() -> None:
    kernel = random_kernel(4, 4, 3, 3, seed=0)
    work = ((4, 1), (8, 4), (32, 8))
    bounds = [float(convolution_norm_bound(kernel, 2, oversampling=o, iterations=i)) for o, i in work]
    assert bounds == sorted(bounds, reverse=True)


@pytest.mark.parametrize("scale", [0.0, 1e-6, 1.0, 1e6])
def test_scale_in_single_precision(scale: float) -> None:
    kernel = random_kernel(4, 2, 3, 3, seed=0, dtype=torch.float32)
    expected = scale * convolution_norm_bound(kernel, 2)
    torch.testing.assert_close(convolution_norm_bound(scale * kernel, 2), expected, rtol=1e-5, atol=0)


def test_differentiable() -> None:
    kernels = random_kernel(2, 3, 2, 3, 3, seed=0).requires_grad_()
    assert torch.autograd.gradcheck(lambda k: convolution_norm_bound(k, 2, oversampling=4, iterations=3), (kernels,))
    zero = torch.zeros(2, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(convolution_norm_bound(zero, 2), zero)
    assert torch.isfinite(gradient).all()


def test_too_coarse_a_grid() -> None:
    with pytest.raises(ValueError, match=r"convolution_norm_bound: oversampling is 1, expected at least 2"):
        convolution_norm_bound(random_kernel(1, 1, 3, seed=0), 1, oversampling=1)


def test_certificate() -> None:
    found = certificate(0.96, certified=True)
    assert found.kind == "certified"
    assert found.lipschitz == found.contraction == 0.96
    assert found.monotonicity == pytest.approx(0.04)
    assert found.robustness == pytest.approx(2.5)
    assert certificate(0.96, certified=False) == dataclasses.replace(found, kind="estimated")


@pytest.mark.parametrize("lipschitz", [1.0, 1.5, math.inf, math.nan])
def test_nothing_is_certified_without_monotonicity(lipschitz: float) -> None:
    found = certificate(lipschitz, certified=True)
    assert found.kind == "estimated"
    assert not found.monotonicity > 0
    assert found.robustness == math.inf


@pytest.mark.parametrize("ndim", [1, 2])
def test_a_norm_attained_between_coarse_frequencies_is_certified_below_one(ndim: int) -> None:
    angle = torch.tensor(math.pi / 16)
    turn = torch.stack([torch.stack([angle.cos(), -angle.sin()]), torch.stack([angle.sin(), angle.cos()])])
    line = torch.stack([torch.eye(2), torch.zeros(2, 2), turn], dim=-1)  # its symbol peaks off the 16-fold grid
    kernel = line if ndim == 1 else line[..., None] * line.new_tensor([1.0, 0.0, 1.0])
    normalised = normalised_kernels(kernel[None], ndim)
    assert float(certified_norm_bound(normalised, ndim)) <= 1


@pytest.mark.parametrize("ndim", [2, 3])
def test_somebodys_autocast_does_not_round_the_bound(ndim: int) -> None:
    kernels = random_kernel(2, 6, 4, *[3] * ndim, seed=0, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        inside = normalised_kernels(kernels, ndim)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, normalised_kernels(kernels, ndim))

"""Compressed-sensing operators against their definitions and published matrices."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from operators import adjoint_gap, centred_fft, normal_gap
from operators.blocks import Blocks, Flatten
from operators.compressive import BinaryDense, Dense, gaussian_matrix, orthonormal_matrix
from operators.hadamard import Hadamard, sequency_order, walsh_hadamard
from operators.masked import Inpainting, PartialFourier

DATA = os.environ.get("MOLRECON_DATA")
needs_data = pytest.mark.skipif(DATA is None, reason="MOLRECON_DATA is not set: no published matrices")
COMPLEX = {torch.float32: torch.complex64, torch.float64: torch.complex128}


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_tensor(*shape: int, seed: int, dtype: torch.dtype = torch.complex128) -> Tensor:
    return torch.randn(*shape, dtype=dtype, generator=generator(seed))


def random_mask(*shape: int, seed: int = 7) -> Tensor:
    mask = torch.rand(*shape, generator=generator(seed)) < 0.5
    mask.flatten(1)[:, 0] = True
    return mask


def test_blocks_are_in_the_order_of_the_image() -> None:
    image = torch.arange(35.0).reshape(1, 5, 7)
    blocks = Blocks((5, 7), (2, 3))
    assert blocks.grid == (3, 3)
    cut = blocks(image)[0]
    assert cut[0].tolist() == [0, 1, 2, 7, 8, 9]
    assert cut[1].tolist() == [3, 4, 5, 10, 11, 12]
    assert cut[2].tolist() == [6, 0, 0, 13, 0, 0]
    assert cut[3].tolist() == [14, 15, 16, 21, 22, 23]
    assert cut[8].tolist() == [34, 0, 0, 0, 0, 0]


@pytest.mark.parametrize(
    ("spatial", "extra", "grid"),
    [
        ((256, 256), True, (8, 8)),
        ((256, 256), False, (8, 8)),
        ((33, 33), True, (2, 2)),
        ((33, 33), False, (1, 1)),
        ((66, 100), True, (3, 4)),
        ((66, 100), False, (2, 4)),
    ],
)
def test_padding_protocol(spatial: tuple[int, int], extra: bool, grid: tuple[int, int]) -> None:
    # ISTA-Net+ pads by 33 - size % 33, which is a whole block when 33 divides the size.
    blocks = Blocks(spatial, 33, extra)
    assert blocks.grid == grid
    if extra:
        assert tuple(33 * g for g in grid) == tuple(n + 33 - n % 33 for n in spatial)
    image = random_tensor(2, *spatial, seed=0, dtype=torch.float32)
    assert torch.equal(blocks.adjoint(blocks(image)), image)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    spatial=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    block=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    extra=st.booleans(),
    measurements=st.integers(1, 30),
    is_complex=st.booleans(),
    seed=st.integers(0, 99),
)
def test_block_sensing_is_the_formula(
    spatial: tuple[int, int], block: tuple[int, int], extra: bool, measurements: int, is_complex: bool, seed: int
) -> None:
    phi = gaussian_matrix(measurements, block[0] * block[1], seed)
    operator = Dense(phi) @ Blocks(spatial, block, extra)
    x = random_tensor(2, *spatial, seed=seed, dtype=torch.complex128 if is_complex else torch.float64)
    y = operator(x)
    pad = [b - n % b if extra or n % b else 0 for n, b in zip(spatial, block, strict=True)]
    padded = np.pad(x.numpy(), ((0, 0), (0, pad[0]), (0, pad[1])))
    expected = [
        padded[:, r : r + block[0], c : c + block[1]].reshape(2, -1) @ phi.numpy().T
        for r in range(0, padded.shape[1], block[0])
        for c in range(0, padded.shape[2], block[1])
    ]
    np.testing.assert_allclose(y.numpy(), np.stack(expected, 1), rtol=1e-12, atol=1e-12)
    assert adjoint_gap(operator, x, random_tensor(*y.shape, seed=seed + 1, dtype=x.dtype)) < 1e-12
    assert normal_gap(operator, x) < 1e-12


def test_gaussian_matrix() -> None:
    phi = gaussian_matrix(300, 500, seed=0)
    assert phi.shape == (300, 500)
    assert phi.dtype == torch.float64
    assert abs(float(phi.mean())) < 1e-3
    assert abs(float(phi.var()) * 300 - 1) < 0.02
    x = random_tensor(20, 500, seed=1, dtype=torch.float64)
    assert abs(float((x @ phi.T).norm() / x.norm()) - 1) < 0.05


@pytest.mark.parametrize(("measurements", "pixels"), [(1, 1), (3, 8), (8, 8), (109, 1089), (545, 1089)])
def test_orthonormal_matrix(measurements: int, pixels: int) -> None:
    operator = Dense(orthonormal_matrix(measurements, pixels, seed=0))
    identity = torch.eye(measurements, dtype=torch.float64)
    torch.testing.assert_close(operator(operator.adjoint(identity)), identity, rtol=0, atol=1e-12)


@pytest.mark.parametrize("draw", [gaussian_matrix, orthonormal_matrix, lambda *args: BinaryDense(*args).phi.detach()])
def test_seeds(draw: Callable[..., Tensor]) -> None:
    state = torch.get_rng_state()
    first = draw(4, 9, 5)
    assert torch.equal(first, draw(4, 9, 5))
    assert torch.equal(first, draw(4, 9, generator(5)))
    assert not torch.equal(first, draw(4, 9, 6))
    shared = generator(5)
    assert not torch.equal(draw(4, 9, shared), draw(4, 9, shared))
    assert torch.equal(state, torch.get_rng_state())


@needs_data
@pytest.mark.parametrize(("ratio", "rows"), [(10, 109), (25, 272), (30, 327), (40, 436)])
def test_published_rows_are_orthonormal(ratio: int, rows: int) -> None:
    loadmat = pytest.importorskip("scipy.io", reason="scipy is not installed").loadmat
    phi = loadmat(Path(str(DATA)) / "published" / "ista_net_plus" / f"phi_0_{ratio}_1089.mat")["phi"]
    operator = Dense(torch.from_numpy(phi).double())
    identity = torch.eye(rows, dtype=torch.float64)
    torch.testing.assert_close(operator(operator.adjoint(identity)), identity, rtol=0, atol=1e-10)


def test_normal_follows_phi() -> None:
    phi, x = gaussian_matrix(9, 8, 0), random_tensor(2, 8, seed=0, dtype=torch.float64)
    operator = Dense(phi.clone())
    operator.normal(x)
    operator.phi.mul_(2)
    assert normal_gap(operator, x) < 1e-12
    # No counter sees this: a Gram matrix that was kept stayed the old one.
    operator.phi.data.mul_(2)
    assert normal_gap(operator, x) < 1e-12
    operator.phi = phi
    assert normal_gap(operator, x) < 1e-12
    operator.float()
    torch.testing.assert_close(operator.normal(x.float()), operator.adjoint(operator(x.float())))


def test_inference_mode_serves_training() -> None:
    operator, x = Dense(gaussian_matrix(9, 8, 0)), random_tensor(2, 8, seed=0, dtype=torch.float64)
    with torch.inference_mode():
        expected = operator.normal(x)
        assert torch.equal(Dense(gaussian_matrix(9, 8, 0)).normal(x), expected)
    result = operator.normal(x.requires_grad_())
    assert torch.equal(result, expected)
    result.sum().backward()
    assert x.grad is not None


@pytest.mark.parametrize("measurements", [3, 9])
def test_normal_is_differentiable_in_phi(measurements: int) -> None:
    x = random_tensor(2, 8, seed=0, dtype=torch.float64)
    phi = gaussian_matrix(measurements, 8, 0).requires_grad_()
    assert torch.autograd.gradcheck(lambda p: Dense(p).normal(x), (phi,), fast_mode=True)


def test_binary_matrix() -> None:
    operator = BinaryDense(50, 64, seed=0)
    with torch.no_grad():
        operator.latent[0, :4] = torch.tensor([0.0, -0.0, 2.0, -2.0])
    assert operator.phi[0, :4].tolist() == [0.125, 0.125, 0.125, -0.125]
    assert set(operator.phi.flatten().tolist()) == {0.125, -0.125}
    torch.testing.assert_close(operator.phi.norm(dim=1), torch.ones(50))


def test_straight_through_gradient() -> None:
    operator = BinaryDense(3, 4, seed=0).double()
    x, y = random_tensor(2, 4, seed=0, dtype=torch.float64), random_tensor(2, 3, seed=1, dtype=torch.float64)
    with torch.no_grad():
        operator.latent[0, 0], operator.latent[1, 2] = 1.5, -1.5
    (gradient,) = torch.autograd.grad(operator(x), operator.latent, y)
    expected = y.T @ x / 2
    expected[0, 0] = expected[1, 2] = 0
    torch.testing.assert_close(gradient, expected)
    (through_adjoint,) = torch.autograd.grad(operator.adjoint(y), operator.latent, x)
    torch.testing.assert_close(through_adjoint, expected)


def test_binary_matrix_learns() -> None:
    # One row that has to find the signs of a pattern.
    operator = BinaryDense(1, 16, seed=0)
    pattern = random_tensor(1, 16, seed=3, dtype=torch.float32).sign()
    optimiser = torch.optim.Adam(operator.parameters(), lr=0.05)
    for _ in range(100):
        optimiser.zero_grad()
        (-operator(pattern).sum()).backward()
        optimiser.step()
    assert operator(pattern).item() == pytest.approx(4.0)


def sylvester(size: int) -> np.ndarray:
    index = np.arange(size)
    shared = index[:, None] & index
    return np.array([[(-1.0) ** bin(b).count("1") for b in row] for row in shared])


@pytest.mark.parametrize("size", [1, 2, 4, 32, 64, 256])
def test_walsh_hadamard_is_the_definition(size: int) -> None:
    x = random_tensor(3, size, seed=0)
    expected = x.numpy() @ sylvester(size) / np.sqrt(size)
    np.testing.assert_allclose(walsh_hadamard(x).numpy(), expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(walsh_hadamard(walsh_hadamard(x)), x, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("size", [1, 2, 8, 64])
def test_sequency_order_counts_sign_changes(size: int) -> None:
    rows = sylvester(size)[sequency_order(size).numpy()]
    assert (np.diff(rows, axis=1) != 0).sum(1).tolist() == list(range(size))


def test_sequency_order_of_images() -> None:
    order = sequency_order(4, 8)
    assert sorted(order.tolist()) == list(range(32))
    patterns = sylvester(32)[order.numpy()].reshape(32, 4, 8)
    down = (np.diff(patterns, axis=1) != 0).sum(1)[:, 0]
    right = (np.diff(patterns, axis=2) != 0).sum(2)[:, 0]
    keys = list(zip((down + right).tolist(), down.tolist(), strict=True))
    assert keys == sorted(keys)


def test_hadamard_rows_come_in_their_order() -> None:
    rows = torch.tensor([5, 0, 7])
    x = random_tensor(2, 8, seed=0, dtype=torch.float64)
    expected = x.numpy() @ sylvester(8)[rows.numpy()].T / np.sqrt(8)
    np.testing.assert_allclose(Hadamard(8, rows)(x).numpy(), expected, rtol=1e-12, atol=1e-12)


def test_unknown_pixels_are_positive_zero() -> None:
    y = Inpainting(torch.zeros(1, 3, 4))(-torch.ones(2, 3, 4))
    assert not torch.signbit(y).any()


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    spatial=st.lists(st.integers(1, 7), min_size=1, max_size=3).map(tuple),
    batch=st.integers(1, 3),
    shared=st.booleans(),
    varying=st.lists(st.booleans(), min_size=3, max_size=3),
    seed=st.integers(0, 99),
)
def test_partial_fourier_is_the_formula(
    spatial: tuple[int, ...], batch: int, shared: bool, varying: list[bool], seed: int
) -> None:
    sizes = [n if v else 1 for n, v in zip(spatial, varying, strict=False)]
    mask = random_mask(1 if shared else batch, *sizes, seed=seed)
    dim = tuple(range(-len(spatial), 0))
    for dtype in (torch.float64, torch.complex128):
        x = random_tensor(batch, *spatial, seed=seed, dtype=dtype)
        operator = PartialFourier(mask, real=not x.is_complex())
        torch.testing.assert_close(operator(x), mask * centred_fft(x, dim), rtol=1e-12, atol=1e-12)
        assert adjoint_gap(operator, x, random_tensor(batch, *spatial, seed=seed + 1)) < 1e-12
        assert normal_gap(operator, x) < 1e-12


REAL = torch.ones(2, 6, 4)
VECTORS = torch.ones(2, 8)
ERRORS: list[tuple[Callable[[], object], type[Exception], str]] = [
    (lambda: Flatten(()), ValueError, r"Flatten: got the sizes \(\), expected sizes of at least 1"),
    (lambda: Flatten((3, 0)), ValueError, r"Flatten: got the sizes \(3, 0\)"),
    (lambda: Flatten((3, 4))(REAL), ValueError, r"Flatten: image \(2, 6, 4\), expected \(batch, 3, 4\), that is"),
    (lambda: Flatten((3, 4)).normal(REAL), ValueError, r"Flatten: image \(2, 6, 4\)"),
    (lambda: Flatten((3, 4)).adjoint(REAL), ValueError, r"Flatten: vectors \(2, 6, 4\), expected \(batch, 12\)"),
    (lambda: Blocks((3, 4, 5), 2), ValueError, r"Blocks: spatial \(3, 4, 5\) and block size \(2, 2\), expected \(rows"),
    (lambda: Blocks((3, 4), 0), ValueError, r"Blocks: got the sizes \(0, 0\), expected sizes of at least 1"),
    (lambda: Blocks((3, 4), 2)(REAL), ValueError, r"Blocks: image \(2, 6, 4\), expected \(batch, 3, 4\), that is"),
    (lambda: Blocks((3, 4), 2).normal(REAL), ValueError, r"Blocks: image \(2, 6, 4\)"),
    (
        lambda: Blocks((3, 4), 2).adjoint(REAL),
        ValueError,
        r"Blocks: blocks \(2, 6, 4\), expected \(batch, 4, 4\), that is \(batch, blocks, pixels\)",
    ),
    (lambda: gaussian_matrix(0, 3, 0), ValueError, r"gaussian_matrix: got 0 x 3, expected sizes of at least 1"),
    (lambda: orthonormal_matrix(4, 3, 0), ValueError, r"orthonormal_matrix: got 4 x 3, expected 1 <= measurements"),
    (lambda: Dense(REAL), ValueError, r"Dense: sensing matrix \(2, 6, 4\), expected \(measurements, pixels\)"),
    (lambda: Dense(torch.ones(0, 3)), ValueError, r"Dense: sensing matrix \(0, 3\)"),
    (lambda: Dense(torch.ones(3, 8, dtype=torch.int64)), TypeError, r"Dense: sensing matrix has dtype torch.int64"),
    (lambda: Dense(torch.ones(3, 8))(VECTORS[:, :7]), ValueError, r"Dense: vectors \(2, 7\), expected \(batch, ..., 8"),
    (lambda: Dense(torch.ones(3, 8))(VECTORS[0]), ValueError, r"Dense: vectors \(8,\), expected \(batch, ..., 8\)"),
    (lambda: Dense(torch.ones(3, 8))(VECTORS.long()), TypeError, r"Dense: vectors have dtype torch.int64, expected"),
    (lambda: Dense(torch.ones(3, 8)).adjoint(VECTORS), ValueError, r"Dense: measurements \(2, 8\), expected .* 3\)"),
    (lambda: Dense(torch.ones(9, 8)).normal(REAL), ValueError, r"Dense: vectors \(2, 6, 4\), expected \(batch, ..., 8"),
    (
        lambda: Dense(torch.ones(3, 8) + 0j)(VECTORS),
        TypeError,
        r"Dense: vectors have dtype torch.float32, expected a complex dtype for a complex matrix",
    ),
    (lambda: BinaryDense(3, 0, 0), ValueError, r"BinaryDense: got 3 x 0, expected sizes of at least 1"),
    (lambda: BinaryDense(3, 4, 0)(VECTORS), ValueError, r"BinaryDense: vectors \(2, 8\), expected \(batch, ..., 4\)"),
    (lambda: walsh_hadamard(torch.ones(2, 6)), ValueError, r"walsh_hadamard: size 6, expected a power of two"),
    (lambda: walsh_hadamard(torch.tensor(1.0)), ValueError, r"walsh_hadamard: size 0, expected a power of two"),
    (lambda: walsh_hadamard(torch.ones(2, 4).long()), TypeError, r"walsh_hadamard: input has dtype torch.int64, expec"),
    (sequency_order, ValueError, r"sequency_order: got no size, expected at least one"),
    (lambda: sequency_order(4, 6), ValueError, r"sequency_order: size 6, expected a power of two"),
    (lambda: Hadamard(12), ValueError, r"Hadamard: size 12, expected a power of two"),
    (lambda: Hadamard(8, torch.ones(3)), TypeError, r"Hadamard: rows have dtype torch.float32, expected torch.int64"),
    (lambda: Hadamard(8, torch.arange(0)), ValueError, r"Hadamard: rows \(0,\), expected a non-empty \(measurements,"),
    (lambda: Hadamard(8, torch.tensor([1, 1])), ValueError, r"Hadamard: rows are out of range or not distinct"),
    (lambda: Hadamard(8, torch.tensor([8])), ValueError, r"Hadamard: rows are out of range .* each of 0 to 7 once"),
    (lambda: Hadamard(4)(VECTORS), ValueError, r"Hadamard: vectors \(2, 8\), expected \(batch, ..., 4\)"),
    (lambda: Hadamard(8, torch.arange(3)).adjoint(VECTORS), ValueError, r"Hadamard: measurements \(2, 8\), .* 3\)"),
    (lambda: Hadamard(4).normal(VECTORS), ValueError, r"Hadamard: vectors \(2, 8\)"),
    (lambda: Inpainting(torch.full((1, 5), 0.5)), ValueError, r"sampling mask: holds values other than 0 and 1"),
    (
        lambda: Inpainting(torch.ones(1, 5, 4))(REAL),
        ValueError,
        r"Inpainting: image \(2, 6, 4\) does not fit the mask \(1, 5, 4\) \(batch, \*spatial\)",
    ),
    (lambda: PartialFourier(torch.ones(1, 1, 4))(REAL), TypeError, r"PartialFourier: image has dtype torch.float32"),
    (
        lambda: PartialFourier(torch.ones(1, 1, 4), real=True)(REAL + 0j),
        TypeError,
        r"PartialFourier: image has dtype torch.complex64, expected a floating dtype \(real=True\)",
    ),
    (lambda: PartialFourier(torch.ones(1, 1, 4)).adjoint(REAL), TypeError, r"PartialFourier: k-space has dtype"),
    (lambda: PartialFourier(random_mask(1, 1, 5)).normal(REAL + 0j), ValueError, r"PartialFourier: image \(2, 6, 4\)"),
    (lambda: PartialFourier(random_mask(3, 1, 4)).adjoint(REAL + 0j), ValueError, r"PartialFourier: k-space \(2, 6"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "message"), ERRORS)
def test_errors(call: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()

"""The promise of the networks, tried on many pairs of images: Lip(H) <= 1 - m, and so F = I - H is m-monotone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from molrecon.lipschitz import convolution_norm_bound
from molrecon.networks import PlainNetwork, ResidualNetwork

SHAPES: list[dict[str, Any]] = [
    {"channels": 2, "features": 4, "levels": 1, "cycles": 1},
    {"channels": 3, "features": 5, "levels": 2, "cycles": 2},
    {"channels": 4, "features": 20, "levels": 3, "cycles": 3},
    {"channels": 2, "features": 6, "levels": 2, "cycles": 1, "kernel_size": 5},
    {"channels": 2, "features": 6, "levels": 2, "cycles": 2, "kernel_size": 1},
]
SIZES = [(8, 8), (7, 5), (9, 12), (3, 1)]


def random_network(shape: dict[str, Any], seed: int, monotonicity: float = 0.05) -> ResidualNetwork:
    """Return a network in evaluation mode whose raw filters are far outside the set that training keeps to."""
    network = ResidualNetwork(monotonicity=monotonicity, seed=seed, **shape).double().eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter, spread in ((network.weight, 0.1), (network.bias, 0.2), (network.log_threshold, 3.0)):
            parameter.add_(spread * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))
        network.weight.mul_(10)
    return network


def random_pairs(count: int, size: tuple[int, int], seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return images, others at all distances from them, and noise levels."""
    generator = torch.Generator().manual_seed(seed)
    x, change = torch.randn(2, count, 2, *size, generator=generator, dtype=torch.float64)
    distance = 10 ** torch.linspace(-4, 1, count, dtype=torch.float64)
    level = 10 ** (-3.3 + 2 * torch.rand(count, generator=generator, dtype=torch.float64))
    return x, x + distance[:, None, None, None] * change, level


def inner(x: Tensor, y: Tensor) -> Tensor:
    return (x * y).flatten(1).sum(1)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_lipschitz_and_monotone_on_random_pairs(shape: dict[str, Any], size: tuple[int, int]) -> None:
    for seed, monotonicity in enumerate((0.05, 0.3)):
        network = random_network(shape, seed, monotonicity)
        x, y, level = random_pairs(30, size, seed)
        with torch.no_grad():
            denoise = network.denoiser(level)
            denoised = denoise(x) - denoise(y)
        difference = x - y
        square = inner(difference, difference)
        assert (inner(denoised, denoised).sqrt() <= (1 - monotonicity) * square.sqrt() * (1 + 1e-9)).all()
        assert (inner(difference - denoised, difference) >= monotonicity * square * (1 - 1e-9)).all()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_derivative_keeps_the_promise(shape: dict[str, Any]) -> None:
    # Random pairs seldom meet the worst direction; the singular values of the derivative do.
    network = random_network(shape, seed=5)
    images, _, level = random_pairs(2, (6, 5), seed=6)
    denoise = network.denoiser(level[:1])
    for image in (images[:1], 0.01 * images[1:]):
        n = image.numel()
        derivative = torch.autograd.functional.jacobian(denoise, image).reshape(n, n)
        assert 0.1 < torch.linalg.matrix_norm(derivative, ord=2) <= 0.95 * (1 + 1e-9)
        score = torch.eye(n) - derivative
        assert torch.linalg.eigvalsh((score + score.T) / 2).min() >= 0.05 * (1 - 1e-9)


def test_the_normalisation_is_needed() -> None:
    # The filters as stored break the promise: what evaluation mode adds is not idle.
    network = random_network(SHAPES[1], seed=0).train()
    x, y, level = random_pairs(30, (8, 8), seed=0)
    with torch.no_grad():
        denoise = network.denoiser(level)
        ratio = torch.linalg.vector_norm((denoise(x) - denoise(y)).flatten(1), dim=1)
    assert (ratio > torch.linalg.vector_norm((x - y).flatten(1), dim=1)).any()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_lipschitz_bound(shape: dict[str, Any], dtype: torch.dtype) -> None:
    fresh = ResidualNetwork(monotonicity=0.05, **shape).to(dtype)
    assert fresh.certified
    rounding = 1e-9 if dtype == torch.float64 else 1e-6
    for network in (fresh, fresh.eval(), random_network(shape, seed=2).to(dtype)):
        assert 0.95 <= network.lipschitz_bound() <= 0.95 * (1 + rounding)
    # In training the bound is of the filters as they are.
    assert random_network(shape, seed=2).train().lipschitz_bound() > 1


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_project(shape: dict[str, Any]) -> None:
    network = random_network(shape, seed=3)
    before, biases = network.applied_weight().detach().clone(), network.bias.detach().clone()
    network.train().project()
    torch.testing.assert_close(network.applied_weight(), before, rtol=1e-12, atol=0)
    assert network.applied_weight() is network.weight
    assert (convolution_norm_bound(network.weight, 2) <= 1 + 1e-12).all()
    assert torch.equal(network.bias, biases)
    with torch.no_grad():
        network.weight.mul_(0.9)
    inside = network.weight.detach().clone()
    network.project()
    assert torch.equal(network.weight, inside)


def test_training_and_evaluation_agree_inside() -> None:
    network = ResidualNetwork(**SHAPES[2]).double()
    network.project()
    x, _, level = random_pairs(3, (7, 5), seed=0)
    with torch.no_grad():
        trained = network.train().denoiser(level)(x)
        torch.testing.assert_close(network.eval().denoiser(level)(x), trained, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (7, 5), (8, 8), (17, 30)], ids=str)
@pytest.mark.parametrize("shape", [*SHAPES, {}], ids=str)
def test_shapes(shape: dict[str, Any], size: tuple[int, int]) -> None:
    network = ResidualNetwork(**shape).eval()
    x = torch.randn(2, 2, *size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        y = network.denoiser(torch.tensor([0.01, 0.02]))(x)
    assert y.shape == x.shape
    assert y.dtype == torch.float32
    assert torch.isfinite(y).all()


def test_samples_do_not_touch_each_other() -> None:
    network = ResidualNetwork(**SHAPES[1]).double().eval()
    x, other, level = random_pairs(2, (7, 5), seed=0)
    other[1] = x[1]
    with torch.no_grad():
        first = network.denoiser(level)(x)[1]
        second = network.denoiser(level * torch.tensor([3.0, 1.0]))(other)[1]
        alone = network.denoiser(level[1:])(x[1:])[0]
    torch.testing.assert_close(first, second, rtol=0, atol=1e-15)
    torch.testing.assert_close(first, alone, rtol=1e-12, atol=1e-14)


def test_more_noise_is_smoothed_more() -> None:
    network = ResidualNetwork(monotonicity=0.01).eval()
    x = torch.zeros(1, 2, 32, 32)
    x[..., 8:24, 8:24] = 1
    noisy = x + 0.03 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        removed = [float((network.denoiser(torch.tensor([s]))(noisy) - noisy).norm()) for s in (0.003, 0.01, 0.03)]
    assert removed == sorted(removed)


def test_settings_rebuild_the_network() -> None:
    network = random_network(SHAPES[3], seed=1, monotonicity=0.2)
    settings: dict[str, Any] = {**network.settings()}
    again = ResidualNetwork(**settings).double().eval()
    again.load_state_dict(network.state_dict())
    x, _, level = random_pairs(2, (7, 5), seed=0)
    with torch.no_grad():
        assert torch.equal(again.denoiser(level)(x), network.denoiser(level)(x))
    assert again.lipschitz_bound() == network.lipschitz_bound()
    assert again.settings() == network.settings()


def test_seeds() -> None:
    state = torch.get_rng_state()
    first, same, other = (ResidualNetwork(seed=seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first.weight, same.weight)
    assert not torch.equal(first.weight, other.weight)


def test_every_parameter_gets_a_gradient() -> None:
    network = ResidualNetwork(**SHAPES[1]).double().eval()
    x, _, level = random_pairs(2, (7, 5), seed=0)
    network.denoiser(level)(0.02 * x).square().sum().backward()
    for parameter in network.parameters():
        assert parameter.grad is not None
        assert torch.isfinite(parameter.grad).all()
        assert parameter.grad.abs().max() > 0


@pytest.mark.parametrize("monotonicity", [0.0, 1.0, -0.1, float("nan")])
def test_monotonicity_must_be_between_0_and_1(monotonicity: float) -> None:
    with pytest.raises(ValueError, match=r"ResidualNetwork: monotonicity is .*, expected a number between 0 and 1"):
        ResidualNetwork(monotonicity=monotonicity)
    with pytest.raises(ValueError, match=r"PlainNetwork: got monotonicity .*, expected a number between 0 and 1"):
        PlainNetwork(monotonicity=monotonicity)


@pytest.mark.parametrize(
    "shape",
    [
        {"channels": 1},
        {"features": 0},
        {"levels": 0},
        {"cycles": 0},
        {"kernel_size": 2},
        {"kernel_size": 0},
        {"kernel_size": -1},
    ],
    ids=str,
)
def test_impossible_shapes(shape: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"ResidualNetwork: got channels .*; expected channels >= 2"):
        ResidualNetwork(**shape)


@pytest.mark.parametrize("size", [(1, 1), (7, 5), (8, 8)], ids=str)
def test_plain_network(size: tuple[int, int]) -> None:
    network = PlainNetwork(monotonicity=0.1, layers=3, features=4)
    x = torch.randn(2, 2, *size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        y = network.denoiser(torch.tensor([0.01, 0.02]))(x)
        other = network.denoiser(torch.tensor([0.5, 0.5]))(x)
    assert y.shape == x.shape
    assert torch.equal(y, other)
    assert network.certified is False
    assert network.lipschitz_bound() == 0.9
    assert len(network.convolutions) == 3


def test_plain_network_needs_two_layers() -> None:
    with pytest.raises(ValueError, match=r"PlainNetwork: got monotonicity 0.02 and layers 1, expected"):
        PlainNetwork(layers=1)

"""The promise of the networks, tried on many pairs of images: Lip(H) <= 1 - m, and so F = I - H is m-monotone."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from torch import Tensor

from molrecon.networks import Denoiser, PlainNetwork, ResidualNetwork, SpectralNetwork
from molrecon.networks.convolution import Padding
from molrecon.networks.lipschitz import convolution_norm_bound
from molrecon.reconstructors.mol import MOL
from molrecon.weights import load
from tests.random_networks import KINDS, build_network

SHAPES: list[dict[str, Any]] = [
    {"channels": 2, "features": 4, "levels": 1, "cycles": 1},
    {"channels": 3, "features": 5, "levels": 2, "cycles": 2},
    {"channels": 4, "features": 20, "levels": 3, "cycles": 3},
    {"channels": 2, "features": 6, "levels": 2, "cycles": 1, "kernel_size": 5},
    {"channels": 2, "features": 6, "levels": 2, "cycles": 2, "kernel_size": 1},
]
NOISE = torch.tensor([0.01, 0.03])
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


def test_the_normalisation_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    # The filters as stored break the promise: what is divided by is not idle.
    network = random_network(SHAPES[1], seed=0)
    monkeypatch.setattr(network, "_normalised", lambda *kernels: list(kernels))
    x, y, level = random_pairs(30, (8, 8), seed=0)
    with torch.no_grad():
        assert network.lipschitz_bound() > 1 and not network.certified
        denoise = network.denoiser(level)
        ratio = torch.linalg.vector_norm((denoise(x) - denoise(y)).flatten(1), dim=1)
    assert (ratio > torch.linalg.vector_norm((x - y).flatten(1), dim=1)).any()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_lipschitz_bound(shape: dict[str, Any], dtype: torch.dtype) -> None:
    fresh = ResidualNetwork(monotonicity=0.05, **shape).to(dtype)
    for network in (fresh, fresh.eval(), random_network(shape, seed=2).to(dtype)):
        assert network.lipschitz_bound() == 0.95
        assert network.certified
    # While it is trained it keeps to the bound too, and yet nothing is certified.
    training = random_network(shape, seed=2).to(dtype).train()
    assert training.lipschitz_bound() == 0.95
    assert training.strict and not training.certified


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_filters_within_the_bound_are_applied_as_they_are(shape: dict[str, Any]) -> None:
    network = random_network(shape, seed=3)
    (applied,) = network.applied_kernels()
    assert (convolution_norm_bound(applied, 2) <= 1 + 1e-12).all()
    with torch.no_grad():
        network.weight.copy_(0.9 * applied)
    assert torch.equal(network.applied_kernels()[0], network.weight)


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_training_and_evaluation_are_the_same_map(kind: str, ndim: int) -> None:
    # Raw filters far outside their bound: in training mode they were applied as they were.
    network = build_network(np.random.default_rng(8), 3 if kind.startswith("separable") else ndim, kind)
    x = torch.randn(2, 2, *(3, 6, 5)[-network.ndim :], generator=torch.Generator().manual_seed(0))
    evaluated = network.denoiser(NOISE)(x).detach()
    bound = network.lipschitz_bound()
    assert network.certified
    torch.testing.assert_close(network.train().denoiser(NOISE)(x).detach(), evaluated, rtol=0, atol=0)
    assert network.lipschitz_bound() == bound
    assert not network.certified


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


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ndim", [2, 3])
def test_settings_rebuild_the_network(kind: str, ndim: int) -> None:
    if ndim == 2 and kind.startswith("separable"):
        return
    network = build_network(np.random.default_rng(1), ndim, kind)
    settings: dict[str, Any] = json.loads(json.dumps(network.settings()))
    again = type(network)(**settings).eval()
    again.load_state_dict(network.state_dict())
    x = torch.randn(2, 2, *(4, 7, 5)[-ndim:], generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(again.denoiser(NOISE)(x), network.denoiser(NOISE)(x))
    assert again.lipschitz_bound() == network.lipschitz_bound()
    assert again.settings() == network.settings()
    assert again.ndim == ndim


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


def test_plain_network_with_skip_starts_at_the_scaled_identity() -> None:
    choices: list[tuple[int, Padding]] = [(2, "zeros"), (3, "circular")]
    for ndim, padding in choices:
        network = PlainNetwork(monotonicity=0.1, layers=3, features=4, ndim=ndim, padding=padding, skip=True)
        x = torch.randn(1, 2, *(3, 6, 5)[-ndim:], generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(network.denoiser(NOISE[:1])(x), 0.9 * x)
        again = PlainNetwork(**json.loads(json.dumps(network.settings())))
        assert again.settings() == network.settings()
        assert [p.shape for p in again.parameters()] == [p.shape for p in network.parameters()]


def waves(*size: int) -> Tensor:
    n = torch.arange(2 * size[0] * size[1], dtype=torch.float64)
    return (0.5 * torch.sin(0.9 * n) * torch.cos(0.013 * n)).float().reshape(1, 2, *size)


def test_the_packaged_model_computes_what_it_always_did() -> None:
    # Values of version 0.1.0, before networks in more dimensions.
    packaged = load("mol-brain-2d", MOL).network
    other = ResidualNetwork(channels=3, features=20, levels=2, cycles=2, seed=4).eval()
    expected = {
        packaged: [0.00935508031, 0.05952899530, -0.32991236448, 0.00739428075, 8.59261920],
        other: [-0.00020986408, 0.02492660470, -0.31482657790, -0.00619508605, 7.57911991],
    }
    for network, values in expected.items():
        with torch.no_grad():
            y = network.denoiser(torch.tensor([0.02]))(waves(21, 34))[0]
        found = torch.stack([y[0, 0, 0], y[1, 10, 17], y[0, 20, 33], y[1, 3, 30], y.norm()])
        torch.testing.assert_close(found, torch.tensor(values), rtol=5e-6, atol=2e-6)


# -- every certified kind, in 2 and 3 dimensions -----------------------------------------------------------------


def dot(x: Tensor, y: Tensor) -> Tensor:
    return (x * y).flatten(1).sum(1)


def worst_change(denoise: Callable[[Tensor], Tensor], x: Tensor, change: Tensor, *, monotone: bool) -> Tensor:
    """Return changes of the same sizes that ascend `|H(x + d) - H(x)|`, or `<H(x + d) - H(x), d>`."""
    size, fixed = dot(change, change), denoise(x).detach()
    for _ in range(4):
        d = change.detach().requires_grad_()
        difference = denoise(x + d) - fixed
        (up,) = torch.autograd.grad((dot(difference, d) if monotone else dot(difference, difference)).sum(), d)
        # Another start where H does not react at all.
        up = torch.where((dot(up, up) > 0)[(..., *[None] * (x.ndim - 1))], up, change)
        change = up * (size / dot(up, up)).sqrt()[(..., *[None] * (x.ndim - 1))]
    return change.detach()


@examples(max_examples=70, deadline=None, derandomize=True)
@given(
    kind=st.sampled_from(KINDS),
    ndim=st.sampled_from([2, 3]),
    size=st.tuples(st.integers(1, 5), st.integers(1, 9), st.integers(1, 8)),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    seed=st.integers(0, 2**31),
)
def test_lipschitz_and_monotone(kind: str, ndim: int, size: tuple[int, ...], dtype: torch.dtype, seed: int) -> None:
    rng = np.random.default_rng(seed)
    network = build_network(rng, 3 if kind.startswith("separable") else ndim, kind).to(dtype)
    bound, m = network.lipschitz_bound(), network.monotonicity
    assert bound <= 1 - m
    generator = torch.Generator().manual_seed(seed)
    shape = (6, 2, *size[-network.ndim :])
    x = torch.randn(shape, generator=generator, dtype=dtype) * 10 ** float(rng.uniform(-2, 0))
    change = torch.randn(shape, generator=generator, dtype=dtype) * 10 ** float(rng.uniform(-1.5, 0.5)) * x.std()
    level = 10 ** (-3.3 + 2 * torch.rand(6, generator=generator, dtype=dtype))
    denoise = network.requires_grad_(False).denoiser(level)
    changes = [change, *[worst_change(denoise, x, change, monotone=monotone) for monotone in (False, True)]]
    for d in changes:
        difference, square = denoise(x + d) - denoise(x), dot(d, d)
        assert (dot(difference, difference).sqrt() <= bound * square.sqrt() * (1 + 1e-5)).all()
        assert (dot(d - difference, d) >= m * square - 1e-5 * square).all()


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_remembered_normalisation(kind: str, ndim: int) -> None:
    network = build_network(np.random.default_rng(3), 3 if kind.startswith("separable") else ndim, kind)
    x = torch.randn(2, 2, *(3, 6, 5)[-network.ndim :], generator=torch.Generator().manual_seed(0))

    def fresh() -> tuple[Tensor, float]:
        again = type(network)(**network.settings()).to(next(network.parameters()).dtype).eval()
        again.load_state_dict(network.state_dict())
        with torch.no_grad():
            return again.denoiser(NOISE)(x.to(next(again.parameters()).dtype)), again.lipschitz_bound()

    def now() -> Tensor:
        return network.denoiser(NOISE)(x.to(next(network.parameters()).dtype))

    keys = set(network.state_dict())
    with torch.inference_mode():
        first = now()
    with torch.no_grad():
        assert torch.equal(now(), first)
    assert set(network.state_dict()) == keys
    stored = copy.deepcopy(network.state_dict())

    def step(edit: Callable[[Tensor], object]) -> None:
        for parameter in network.parameters():
            edit(parameter)

    edits: list[Callable[[], object]] = [
        lambda: step(lambda p: p.detach().add_(0.1)),
        lambda: step(lambda p: p.data.mul_(1.1)),
        lambda: step(lambda p: setattr(p, "data", p.data + 0.1)),
        lambda: network.load_state_dict(stored),
        lambda: network.to(torch.float64),
        lambda: network.to(torch.float32),
    ]
    before = first
    for edit in edits:
        edit()
        with torch.no_grad():
            after = now()
        image, bound = fresh()
        assert torch.equal(after, image)
        assert network.lipschitz_bound() == bound == network.lipschitz_bound()
        assert after.dtype != before.dtype or not torch.equal(after, before)
        before = after
    assert torch.equal(before, first)
    # With gradients the value kept is neither used nor changed, and what is kept never needs one.
    loss = now().square().sum()
    loss.backward()
    with torch.no_grad():
        assert torch.equal(now(), first)
    frozen = copy.deepcopy(network).requires_grad_(False)
    image = x.clone().requires_grad_()
    frozen.denoiser(NOISE)(image).sum().backward()
    assert image.grad is not None


@pytest.mark.parametrize("kind", KINDS)
def test_normalised_only_once(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network = build_network(np.random.default_rng(4), 3, kind)
    with torch.no_grad():
        network.denoiser(NOISE)

    def fail(*_: object, **__: object) -> None:
        raise AssertionError("normalised again")

    for name in ("spectral.normalised_kernels", "residual.normalised_kernels", "residual.sll_step"):
        monkeypatch.setattr(f"molrecon.networks.{name}", fail)
    with torch.no_grad():
        network.denoiser(NOISE)
    with torch.no_grad(), pytest.raises(AssertionError, match="normalised again"):
        for parameter in network.parameters():
            parameter.mul_(1.5)
        network.denoiser(NOISE)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_in_evaluation(kind: str) -> None:
    # Through the normalisation, and after a value has been kept.
    network = build_network(np.random.default_rng(6), 3, kind).double()
    level = NOISE[:1].double()
    x = torch.randn(1, 2, 2, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with torch.no_grad():
        network.denoiser(level)(x)
    loss = network.denoiser(level)(x).square().sum()
    gradients = torch.autograd.grad(loss, list(network.parameters()))
    generator = torch.Generator().manual_seed(1)
    for parameter, gradient in zip(network.parameters(), gradients, strict=True):
        direction = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        with torch.no_grad():
            values = []
            for sign in (1, -2, 1):
                parameter.add_(sign * 1e-6 * direction)
                values.append(network.denoiser(level)(x).square().sum())
        slope = (values[0] - values[1]) / 2e-6
        torch.testing.assert_close(slope, (gradient * direction).sum(), rtol=1e-3, atol=1e-5 * float(loss.detach()))


@pytest.mark.parametrize("padding", ["zeros", "circular"])
@pytest.mark.parametrize("layer", ["potential", "sll"])
def test_circular_padding_commutes_with_shifts(layer: Any, padding: Padding) -> None:
    network = ResidualNetwork(channels=3, features=4, levels=2, cycles=2, padding=padding, layer=layer).double().eval()
    x = torch.randn(1, 2, 6, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with torch.no_grad():
        denoise = network.denoiser(torch.tensor([0.3], dtype=torch.float64))
        gap = (denoise(x.roll((2, 4), (2, 3))) - denoise(x).roll((2, 4), (2, 3))).abs().max()
    assert (gap < 1e-12) == (padding == "circular")


def test_frames_without_temporal_kernels_are_independent_images(monkeypatch: pytest.MonkeyPatch) -> None:
    # Pyramid over space only, and separable kernels that do nothing in time: the 2D network on each frame.
    plane = ResidualNetwork(channels=3, features=4, levels=3, cycles=2, seed=2)
    frames = ResidualNetwork(
        channels=3, features=4, levels=3, cycles=2, ndim=3, separable=True, pyramid_axes=(1, 2), seed=2
    )
    frames.load_state_dict({**plane.state_dict(), "temporal": frames.temporal})
    # Without the normalisation, whose bound of the temporal identity is 0.5 % too large.
    for network in (plane, frames):
        monkeypatch.setattr(network, "_normalised", lambda *kernels: list(kernels))
    with torch.no_grad():
        frames.temporal.copy_(torch.eye(3)[:, :, None] * torch.tensor([0.0, 1.0, 0.0]))
        x = torch.randn(2, 2, 3, 9, 6, generator=torch.Generator().manual_seed(0))
        together = frames.denoiser(NOISE)(x)
        for frame in range(3):
            alone = plane.denoiser(NOISE)(x[:, :, frame])
            torch.testing.assert_close(together[:, :, frame], alone, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "arguments", [{"ndim": 1}, {"ndim": 4}, {"padding": "reflect"}, {"layer": "relu"}, {"ndim": 2.5}], ids=str
)
def test_impossible_choices(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"ResidualNetwork: got ndim .*; expected 2 or 3, 'zeros' or"):
        ResidualNetwork(**arguments)
    for network in (SpectralNetwork, PlainNetwork):
        if "layer" not in arguments:
            with pytest.raises(ValueError, match=rf"{network.__name__}: got ndim .*; expected 2 or 3, 'zeros' or"):
                network(**arguments)


@pytest.mark.parametrize(
    "arguments", [{"separable": True}, {"pyramid_axes": ()}, {"pyramid_axes": (0, 0)}, {"pyramid_axes": (2,)}], ids=str
)
def test_impossible_axes(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"ResidualNetwork: got separable .* and pyramid_axes .*; expected separable"):
        ResidualNetwork(**arguments)


def test_wrong_images_and_spectral_arguments() -> None:
    for network in (ResidualNetwork(features=2, levels=1), SpectralNetwork(features=2, layers=2)):
        with pytest.raises(ValueError, match=rf"{type(network).__name__}: image \(1, 2, 3, 4, 5\), expected"):
            network.denoiser(NOISE[:1])(torch.zeros(1, 2, 3, 4, 5))
    wrong: list[dict[str, Any]] = [{"monotonicity": 1.0}, {"layers": 1}, {"features": 0}, {"kernel_size": 2}]
    for arguments in wrong:
        with pytest.raises(ValueError, match=r"SpectralNetwork: got monotonicity .*; expected a number between"):
            SpectralNetwork(**arguments)


def test_a_network_without_settings_says_so() -> None:
    class Nothing(Denoiser):
        def denoiser(self, noise_level: Tensor, guide: Tensor | None = None) -> Callable[[Tensor], Tensor]:
            return torch.zeros_like

        def lipschitz_bound(self) -> float:
            return 0.0

    assert not Nothing().eval().certified
    with pytest.raises(TypeError, match=r"Nothing: has no settings\(\), expected"):
        Nothing().settings()


@torch.no_grad()
def test_separable_sll_filters_that_cancel_stay_one_lipschitz() -> None:
    network = ResidualNetwork(
        channels=2, features=1, levels=1, cycles=1, kernel_size=1, ndim=3, layer="sll", separable=True
    )
    a, b, c = 0.7, 0.9, 0.8
    d = float(torch.tensor((a * c - 4e-6) / b))  # the composed kernel is tiny, its parts are not
    for values, parameter in (((a, -b), network.weight), ((c, d), network.temporal)):
        parameter.copy_(torch.tensor(values).reshape(-1).repeat(parameter.numel() // 2).reshape(parameter.shape))
    network.eval()
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(64, 2, 2, 2, 2, generator=rng)
    y = x + 1e-3 * torch.randn(64, 2, 2, 2, 2, generator=rng)
    denoise = network.denoiser(torch.full((64,), 0.01))
    ratio = (denoise(x) - denoise(y)).flatten(1).norm(dim=1) / (x - y).flatten(1).norm(dim=1)
    assert float(ratio.max()) <= network.lipschitz_bound() * (1 + 1e-3)  # float32 differences


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("kind", KINDS)
def test_weights_that_are_not_numbers_are_not_certified(kind: str, value: float) -> None:
    # In every parameter by itself: a bias leaves the filters' norms alone, and was certified.
    network = build_network(np.random.default_rng(5), 3, kind)
    stored = copy.deepcopy(network.state_dict())
    for name, parameter in network.named_parameters():
        with torch.no_grad():
            parameter.flatten()[-1] = value
        assert math.isnan(network.lipschitz_bound()), name
        assert not network.certified
        assert MOL(network).eval().certificate().kind == "estimated"
        network.load_state_dict(stored)
        assert network.certified


@torch.no_grad()
def test_scales_of_sll_that_overflow_are_not_certified() -> None:
    network = ResidualNetwork(channels=2, features=4, levels=1, cycles=1, layer="sll").eval()
    x = torch.randn(2, 2, 6, 5, generator=torch.Generator().manual_seed(0))
    # The scales count relative to each other: all of them far away are as good as all of them 1.
    expected = network.denoiser(NOISE)(x)
    network.log_q.fill_(800)
    assert network.certified
    torch.testing.assert_close(network.denoiser(NOISE)(x), expected, rtol=0, atol=0)
    # One far from the others switches those off, the limit of what T allows.
    network.log_q[0, 1:] = 0
    assert network.certified
    assert bool(network.denoiser(NOISE)(x).isfinite().all())
    # Where nothing overlaps with the filter of the infinite scale, there is no T.
    network.weight[0, 0] = 0
    assert math.isnan(network.lipschitz_bound()) == bool(network.denoiser(NOISE)(x).isnan().any())
    assert network.certified == bool(network.denoiser(NOISE)(x).isfinite().all())

"""Local estimates against dense derivatives, and the violation that the published weights hold."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from molrecon.guarantees.estimates import Map, local_lipschitz, local_monotonicity, neighbours
from molrecon.networks import PlainNetwork, ResidualNetwork
from molrecon.networks.denoiser import from_channels, to_channels
from molrecon.reconstructors.conditioning import Conditioning
from molrecon.weights.published import load_published_mol
from operators import Sense, random_mask

DATA = os.environ.get("MOLRECON_DATA")
SIZE = (4, 3)
N = 2 * 4 * 3


def plain_denoiser(gain: float = 1.0) -> Map:
    network = PlainNetwork(layers=3, features=6, seed=1).double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(gain)
    return network.denoiser(torch.full((1,), 0.01, dtype=torch.float64))


def residual_denoiser() -> Map:
    network = ResidualNetwork(monotonicity=0.1, channels=3, features=6, levels=2, cycles=2, seed=2).double().eval()
    return network.denoiser(torch.full((1,), 0.01, dtype=torch.float64))


def images(count: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 0.1 * torch.randn(count, 2, *SIZE, dtype=torch.float64, generator=generator)


def dense(denoise: Map, point: Tensor) -> Tensor:
    return torch.autograd.functional.jacobian(denoise, point[None]).reshape(N, N)


@pytest.mark.parametrize("denoise", [plain_denoiser(), plain_denoiser(1.6), residual_denoiser()])
def test_estimates_are_the_extreme_values_of_the_dense_derivative(denoise: Map) -> None:
    points = images(3)
    stretch = local_lipschitz(denoise, points, power_steps=200)
    monotone = local_monotonicity(denoise, points, lanczos_steps=N)
    for k, point in enumerate(points):
        derivative = dense(denoise, point)
        largest = torch.linalg.matrix_norm(derivative, ord=2)
        smallest = torch.linalg.eigvalsh(torch.eye(N) - (derivative + derivative.T) / 2)[0]
        assert 0.999 * largest <= stretch.derivative[k] <= largest * (1 + 1e-12)
        torch.testing.assert_close(monotone.eigenvalue[k], smallest, rtol=1e-9, atol=1e-12)
    # Few steps bound from the right side.
    assert (local_lipschitz(denoise, points, power_steps=2).derivative <= stretch.derivative * (1 + 1e-3)).all()
    assert (local_monotonicity(denoise, points, lanczos_steps=4).eigenvalue >= monotone.eigenvalue - 1e-12).all()


def test_complex_images_count_as_their_two_parts() -> None:
    denoise, points = plain_denoiser(), images(2)

    def complex_denoise(x: Tensor) -> Tensor:
        return from_channels(denoise(to_channels(x)))

    real = local_monotonicity(denoise, points, lanczos_steps=N)
    found = local_monotonicity(complex_denoise, from_channels(points), lanczos_steps=N)
    torch.testing.assert_close(found.eigenvalue, real.eigenvalue, rtol=1e-9, atol=1e-12)
    first = local_lipschitz(denoise, points, power_steps=300).derivative
    second = local_lipschitz(complex_denoise, from_channels(points), power_steps=300).derivative
    torch.testing.assert_close(first, second, rtol=1e-3, atol=0)


def test_differences_find_what_the_derivative_at_the_point_does_not_show() -> None:
    def denoise(x: Tensor) -> Tensor:  # slope 1/2 within 0.05 of zero, 3 beyond
        return 0.5 * x + 2.5 * torch.nn.functional.softshrink(x, 0.05)

    point = torch.zeros(1, 2, *SIZE, dtype=torch.float64)
    stretch = local_lipschitz(denoise, point, radii=(0.01, 1.0))
    assert stretch.derivative.item() == pytest.approx(0.5)
    assert stretch.value.item() == stretch.difference.item() > 1.5
    monotone = local_monotonicity(denoise, point, radii=(0.01, 1.0))
    assert monotone.eigenvalue.item() == pytest.approx(0.5)
    assert monotone.value.item() == monotone.difference.item() < 0


def test_a_certified_network_is_never_refuted() -> None:
    points = torch.cat([neighbours(image[None], 2, 0.3, seed=k) for k, image in enumerate(images(3))])
    stretch = local_lipschitz(residual_denoiser(), points, radii=(1e-3, 0.1, 1.0, 10.0))
    monotone = local_monotonicity(residual_denoiser(), points, radii=(1e-3, 0.1, 1.0, 10.0))
    assert (stretch.value <= 0.9 * (1 + 1e-9)).all()
    assert (monotone.value >= 0.1 * (1 - 1e-9)).all()


def test_exhausted_directions_and_zero_maps() -> None:
    points = images(2)
    half = local_monotonicity(lambda x: 0.5 * x, points)
    torch.testing.assert_close(half.value, torch.full((2,), 0.5, dtype=torch.float64))
    assert (local_lipschitz(torch.zeros_like, points).value == 0).all()
    assert (local_monotonicity(torch.zeros_like, points).value == 1).all()


def test_neighbours_lie_at_the_distance() -> None:
    image = images(1)
    found = neighbours(image, 3, 0.2, seed=4)
    distance = (found - image).flatten(1).norm(dim=1) / image.norm()
    torch.testing.assert_close(distance, torch.tensor([0, 0.2, 0.2, 0.2], dtype=torch.float64))


def test_seeds_and_what_was_tried() -> None:
    state = torch.get_rng_state()
    first, same = (local_lipschitz(plain_denoiser(), images(2), power_steps=3, seed=7) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first.value, same.value)
    assert (first.power_steps, first.seed, first.radii) == (3, 7, (1e-3, 1e-2, 1e-1))
    with pytest.raises(ValueError, match=r"local_lipschitz: got 0 steps and radii .*, expected at least 1"):
        local_lipschitz(plain_denoiser(), images(1), power_steps=0)
    with pytest.raises(ValueError, match=r"local_monotonicity: got 20 steps and radii \(0\.0,\)"):
        local_monotonicity(plain_denoiser(), images(1), radii=(0.0,))


@pytest.mark.skipif(DATA is None, reason="MOLRECON_DATA is not set: the published weights and SIAT slices are not here")
def test_the_published_weights_violate_their_claim() -> None:
    folder = Path(str(DATA))
    model = load_published_mol(folder / "published" / "mol" / "mol.pth.tar").double()
    stored = np.load(folder / "mri" / "siat200_256_reim_i16.npz")["x"][175, :, 96:160, 96:160] / 32767
    image = torch.from_numpy(stored[0] + 1j * stored[1])[None]
    image = image / image.abs().max()
    y, x = torch.meshgrid(*[torch.linspace(-1, 1, 64, dtype=torch.float64)] * 2, indexing="ij")
    coils = torch.stack([torch.exp(-((y - a) ** 2) - (x - b) ** 2 + 1j * (a * x - b * y)) for a, b in _CORNERS])
    maps = coils / torch.linalg.vector_norm(coils, dim=0)
    operator = Sense(maps[None], torch.from_numpy(random_mask(64, 4, 0.1, 1))[None, None])
    conditioning = Conditioning(torch.ones(1).double(), torch.full((1,), 0.01).double(), torch.ones_like(image))
    with torch.no_grad():
        equilibrium = model(operator(image), operator, conditioning=conditioning).value
    denoise = conditioning.denoiser(model.network)
    points = neighbours(equilibrium, 1, 0.05, seed=0)
    stretch = local_lipschitz(denoise, points, power_steps=30, ascent_steps=2, radii=(1e-2,))
    assert stretch.derivative[0] > 1
    assert (stretch.value > 1 - model.network.monotonicity).all()
    # Around the equilibrium F is not as monotone as training aimed at either.
    monotone = local_monotonicity(denoise, points[:1], lanczos_steps=20, radii=(1e-2,))
    assert monotone.value < model.network.monotonicity


_CORNERS = ((-1.0, 0.0), (1.0, 0.0), (0.0, 1.0), (0.0, -1.0))

"""Tiles give what the whole image gives: for every certified network, size, tile and level of the pyramid."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from torch import Tensor

from molrecon.networks import Denoiser, PlainNetwork, ResidualNetwork, SpectralNetwork, UNet
from molrecon.networks.denoiser import ReceptiveField
from molrecon.networks.tiling import Tiled

KINDS = ("potential", "sll", "separable", "separable in time", "plain", "spectral")


def make_network(kind: str, ndim: int, levels: int, cycles: int, kernel_size: int, seed: int) -> Denoiser:
    """Return a small network with random weights far from those it starts with."""
    network: Denoiser
    if kind == "plain":
        network = PlainNetwork(layers=levels + 1, features=3, ndim=ndim, skip=bool(seed % 2))
    elif kind == "spectral":
        network = SpectralNetwork(layers=levels + 1, features=3, kernel_size=kernel_size, ndim=ndim)
    else:
        network = ResidualNetwork(
            channels=3,
            features=4,
            levels=levels,
            cycles=cycles,
            kernel_size=kernel_size,
            ndim=ndim,
            layer="potential" if kind == "potential" else "sll",
            separable=kind.startswith("separable"),
            pyramid_axes=(1, 2) if kind.endswith("time") else None,
        )
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            spread = {"log_threshold": 2.0, "bias": 0.05}.get(name, 0.3)
            parameter.add_(spread * torch.randn(parameter.shape, generator=generator))
    return network.eval()


def relative_gap(network: Denoiser, tiled: Tiled, image: Tensor) -> float:
    level = torch.linspace(0.01, 0.02, len(image), dtype=image.dtype)
    with torch.no_grad():
        whole = network.denoiser(level)(image)
        gap = torch.linalg.vector_norm(tiled.denoiser(level)(image) - whole)
    return float(gap / torch.linalg.vector_norm(whole))


@examples(max_examples=40, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    levels=st.integers(1, 5),
    kernel_size=st.sampled_from([1, 3]),
    double=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_tiles_equal_the_whole(kind: str, levels: int, kernel_size: int, double: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    ndim = 3 if kind.startswith("separable") else int(rng.integers(2, 4))
    levels = min(levels, 3) if ndim == 3 else levels
    cycles = 1 if levels > 3 else int(rng.integers(1, 3))
    network = make_network(kind, ndim, levels, cycles, kernel_size, seed)
    network = network.double() if double else network
    halo = network.receptive_field().halo
    # One axis is long enough to be cut several times; the others are small, of any size.
    shape, tile = rng.integers(1, 9, ndim), rng.integers(1, 9, ndim)
    axis = int(rng.integers(ndim))
    tile[axis] = rng.integers(2, 40)
    shape[axis] = halo[axis] + tile[axis] * rng.integers(1, 4) + rng.integers(0, tile[axis])
    tiled = Tiled(network, [int(n) for n in tile])
    generator = torch.Generator().manual_seed(seed)
    dtype = torch.float64 if double else torch.float32
    image = torch.randn(2, 2, *shape.tolist(), generator=generator, dtype=dtype)
    assert relative_gap(network, tiled, image) <= (1e-12 if double else 1e-6)
    covered = [n for cut in tiled.cuts(shape.tolist())[axis] for n in range(cut.start, cut.stop)]
    assert covered == list(range(shape[axis]))


@pytest.mark.parametrize(("levels", "cycles"), [(1, 1), (2, 1), (2, 2), (3, 1), (3, 2), (4, 1)])
def test_the_receptive_field_is_as_far_as_the_network_looks(levels: int, cycles: int) -> None:
    network = ResidualNetwork(channels=2, features=3, levels=levels, cycles=cycles, layer="sll").double().eval()
    with torch.no_grad():
        network.log_threshold.fill_(30.0)  # nothing is clipped: the network is linear
        halo, block = network.receptive_field().halo[0], 2**levels
        size = 2 * halo + 3 * block
        impulses = torch.zeros(block, 2, size, 1, dtype=torch.float64)
        pixels = halo + block + torch.arange(block)
        impulses[torch.arange(block), 0, pixels] = 1
        response = network.denoiser(torch.full((block,), 0.01).double())(impulses).abs().sum((1, 3))
    distances = [(r.nonzero()[:, 0] - pixel).abs().max() for r, pixel in zip(response, pixels, strict=True)]
    assert int(torch.stack(distances).max()) == halo


class Recorded(Denoiser):
    """A network that notes the sizes of the images it is given."""

    strict = True

    def __init__(self, network: Denoiser) -> None:
        super().__init__()
        self.network, self.monotonicity, self.ndim = network, network.monotonicity, network.ndim
        self.shapes: list[torch.Size] = []

    def lipschitz_bound(self) -> float:
        return self.network.lipschitz_bound()

    def receptive_field(self) -> ReceptiveField:
        return self.network.receptive_field()

    def denoiser(self, noise_level: Tensor, guide: Tensor | None = None) -> Callable[[Tensor], Tensor]:
        denoise = self.network.denoiser(noise_level)

        def recorded(image: Tensor) -> Tensor:
            self.shapes.append(image.shape[2:])
            return denoise(image)

        return recorded


def test_no_more_than_a_tile_and_its_halo_is_evaluated_at_a_time() -> None:
    network = Recorded(make_network("potential", 2, 2, 1, 3, 0))  # halo 9, grid 2
    tiled = Tiled(network, (20, 12))
    tiled.denoiser(torch.tensor([0.01]))(torch.zeros(1, 2, 100, 21))
    assert len(network.shapes) == 5
    assert max(rows for rows, _ in network.shapes) <= 20 + 2 * 9 + 1
    assert {cols for _, cols in network.shapes} == {21}  # 12 and a halo of 9 cover it: this axis is not cut


def test_the_same_function_has_the_same_promise_and_gradient() -> None:
    network = make_network("sll", 2, 2, 1, 3, 1).double()
    tiled = Tiled(network, (8, 8))
    assert tiled.lipschitz_bound() == network.lipschitz_bound()
    assert (tiled.monotonicity, tiled.certified, tiled.ndim) == (network.monotonicity, True, 2)
    image = torch.randn(1, 2, 30, 27, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    gradients = []
    for each in (network, tiled):
        each.denoiser(torch.tensor([0.01]).double())(image).square().sum().backward()
        gradients.append([parameter.grad for parameter in network.parameters()])
        network.zero_grad()
    for whole, parts in zip(*gradients, strict=True):
        torch.testing.assert_close(parts, whole, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("network", "tile", "error", "words"),
    [
        (ResidualNetwork(padding="circular"), (8, 8), ValueError, "padding is 'circular', expected 'zeros'"),
        (PlainNetwork(features=2, padding="circular"), (8, 8), ValueError, "expected 'zeros'"),
        (SpectralNetwork(features=2, padding="circular"), (8, 8), ValueError, "expected 'zeros'"),
        (UNet(channels=(2, 2)), (8, 8), TypeError, "UNet: has no receptive_field"),
        (ResidualNetwork(), (8, 8, 8), ValueError, "expected 2 positive sizes"),
        (ResidualNetwork(), (8, 0), ValueError, "expected 2 positive sizes"),
    ],
)
def test_what_cannot_be_tiled_says_so(network: Denoiser, tile: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        Tiled(network, tile)


def test_images_of_other_dimensions_are_refused() -> None:
    with pytest.raises(ValueError, match="expected \\(batch, 2, \\*spatial\\) with 2 spatial axes"):
        Tiled(ResidualNetwork(), (8, 8)).denoiser(torch.tensor([0.01]))(torch.zeros(1, 2, 8, 8, 8))

"""A score network evaluated tile by tile, with a halo around each tile, equal to evaluating it on the whole image."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import final

import torch
from torch import Tensor

from molrecon.networks.denoiser import Denoiser, ReceptiveField


@final
@dataclass(frozen=True)
class Cut:
    """A stretch of one axis: what is read, from `begin` to `end`, and what is written of it, `start` to `stop`."""

    begin: int
    start: int
    stop: int
    end: int


@final
class Tiled(Denoiser):
    """The same denoiser H as `network`, evaluated on one tile of the image after the other.

    Each tile is read with a halo as wide as the network looks, beginning on the grid of its pyramid, and only the tile
    itself is written: H is the same function, to the rounding of convolutions of another size. The borders of the
    image are those of the outermost tiles, with the padding that the network gives them. What is held at a time is one
    tile with its halo, and the images before and after. Gradients flow as they do through `network`, at the memory of
    the whole image: this is for inference.

    Args:
        network: a network that says its `receptive_field`.
        tile: pixels along each spatial axis, without the halo. An axis that the first tile and its halo cover is not
            cut; the others are cut into equal parts, none larger than the tile.

    Attributes:
        monotonicity, strict, ndim: those of the network.

    Raises:
        TypeError: the network does not say how far it looks.
        ValueError: another number of axes than the network's, an empty tile, circular padding.
    """

    def __init__(self, network: Denoiser, tile: Sequence[int]) -> None:
        super().__init__()
        if len(tile) != network.ndim or min(tile) < 1:
            raise ValueError(f"Tiled: tile is {tuple(tile)}, expected {network.ndim} positive sizes")
        self._field = network.receptive_field()
        self.network = network
        self.tile = tuple(tile)
        self.monotonicity, self.strict, self.ndim = network.monotonicity, network.strict, network.ndim
        self.guide_channels = network.guide_channels
        self.train(network.training)

    def lipschitz_bound(self) -> float:
        """Return the network's bound: H is the same function."""
        return self.network.lipschitz_bound()

    def rounding_depth(self) -> float:
        """Return the network's depth for its rounding."""
        return self.network.rounding_depth()

    def receptive_field(self) -> ReceptiveField:
        """Return how far the network looks."""
        return self._field

    def cuts(self, shape: Sequence[int]) -> list[list[Cut]]:
        """Return the parts of each axis for images of this spatial shape."""
        sizes = zip(shape, self.tile, self._field.halo, self._field.grid, strict=True)
        return [cut_axis(*axis) for axis in sizes]

    def denoiser(self, noise_level: Tensor, guide: Tensor | None = None) -> Callable[[Tensor], Tensor]:
        """Return H, see `Denoiser`. What a guide says is computed anew for each tile: kept, it would be larger than
        what the tiles save.
        """
        denoise = self.network.denoiser(noise_level) if guide is None else None

        def denoise_tile(image: Tensor, ends: Sequence[tuple[int, int]]) -> Tensor:
            if denoise is not None:
                return denoise(_cropped(image, ends))
            tile_guide = None if guide is None else _cropped(guide, ends)
            return self.network.denoiser(noise_level, tile_guide)(_cropped(image, ends))

        def denoise_tiles(image: Tensor) -> Tensor:
            if image.ndim != self.ndim + 2:
                raise ValueError(
                    f"Tiled: image {tuple(image.shape)}, expected (batch, 2, *spatial) with {self.ndim} spatial axes"
                )
            cuts = self.cuts(image.shape[2:])
            if all(len(axis) == 1 for axis in cuts):
                return denoise_tile(image, [(0, size) for size in image.shape[2:]])
            out = torch.empty_like(image)
            for tile in product(*cuts):
                denoised = denoise_tile(image, [(cut.begin, cut.end) for cut in tile])
                valid = _cropped(denoised, [(cut.start - cut.begin, cut.stop - cut.begin) for cut in tile])
                _cropped(out, [(cut.start, cut.stop) for cut in tile]).copy_(valid)
            return out

        return denoise_tiles


def _cropped(image: Tensor, ends: Sequence[tuple[int, int]]) -> Tensor:
    """Return the part of (batch, channel, *spatial) between the ends along each spatial axis."""
    for axis, (first, last) in enumerate(ends, start=2):
        image = image.narrow(axis, first, last - first)
    return image


def cut_axis(size: int, tile: int, halo: int, grid: int) -> list[Cut]:
    """Return the parts of an axis of `size` pixels, see `Tiled`."""
    if tile + halo >= size:
        return [Cut(0, 0, size, size)]
    step = math.ceil(size / math.ceil(size / tile))
    return [
        Cut(
            begin=max(0, start - halo) // grid * grid,
            start=start,
            stop=min(start + step, size),
            end=min(start + step + halo, size),
        )
        for start in range(0, size, step)
    ]

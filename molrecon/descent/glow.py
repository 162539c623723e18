"""Glow: an invertible network between images and latents."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, final

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

if TYPE_CHECKING:
    from normflows.flows import GlowBlock


@final
class Glow(nn.Module):
    """An invertible network between images and latents: Glow with its squeeze and split levels, without the density.

    Every level folds 2 x 2 pixels into channels, runs through `blocks` Glow blocks of `normflows` (ActNorm, an
    invertible 1x1 convolution, an affine coupling), and gives half of the channels away as latents; the last gives all.

    ActNorm is the identity until `calibrate` has seen data: no call of `encode` or `decode` changes a parameter.

    Args:
        channels: of the images.
        levels: each halves rows and columns.
        blocks: of a level.
        features: hidden channels of the couplings' networks, which start at zero.
        seed: of the initial weights; the global generator is left as it was.

    Shapes: image (batch, channels, rows, cols) real, rows and cols multiples of 2^levels; latents, one of each level:
    (batch, c, rows / 2^k, cols / 2^k) with c as `latent_channels` tells. As many numbers as the image has.

    Raises:
        ValueError: arguments that are not positive.
        ImportError: normflows is not installed.

    Source: Kingma, Dhariwal, NeurIPS 2018, arXiv:1807.03039, figure 2.
    """

    def __init__(self, channels: int, *, levels: int, blocks: int, features: int, seed: int) -> None:
        super().__init__()
        if min(channels, levels, blocks, features) < 1:
            raise ValueError(
                f"Glow: got channels {channels}, levels {levels}, blocks {blocks} and features {features}, expected"
                " positive numbers"
            )
        self.latent_channels = [2 * channels * 2**k for k in range(levels)]
        self.latent_channels[-1] *= 2
        # normflows draws from the global generator alone.
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            self.blocks = nn.ModuleList(
                _glow_block(4 * channels * 2**k, features) for k in range(levels) for _ in range(blocks)
            )
        self._set_calibrated(True)

    def encode(self, image: Tensor) -> list[Tensor]:
        """Return the latents of an image, finest level first."""
        *finer, coarsest = self._levels()
        latents, x = [], image
        for level in finer:
            given, x = _into(level, x).chunk(2, 1)
            latents.append(given)
        return [*latents, _into(coarsest, x)]

    def decode(self, latents: list[Tensor]) -> Tensor:
        """Return the image of latents: the exact inverse of `encode`, up to rounding."""
        *finer, coarsest = self._levels()
        x = _out_of(coarsest, latents[-1])
        for level, given in zip(reversed(finer), reversed(latents[:-1]), strict=True):
            x = _out_of(level, torch.cat([given, x], 1))
        return x

    @torch.no_grad()
    def calibrate(self, image: Tensor) -> None:
        """Set every ActNorm such that what `encode` feeds it leaves with mean 0 and variance 1 in each channel.

        Raises:
            ValueError: a channel does not vary in these images, or is not finite.
        """
        self._set_calibrated(False)
        self.encode(image)
        self._set_calibrated(True)
        scales = torch.cat([norm.s.flatten() for norm in self._norms()])
        if not bool(torch.isfinite(scales).all()) or bool((scales < math.log(1e-4)).any()):
            raise ValueError(
                "Glow: some channel of the images for ActNorm is constant or not finite, expected images that differ"
            )

    def _levels(self) -> list[list[Any]]:
        blocks, n_levels = list(self.blocks), len(self.latent_channels)
        count = len(blocks) // n_levels
        return [blocks[k * count : (k + 1) * count] for k in range(n_levels)]

    def _norms(self) -> Iterator[Any]:
        for level in self._levels():
            for block in level:
                yield block.flows[-1]

    def _set_calibrated(self, done: bool) -> None:
        # normflows puts a buffer on the processor in this one's place when it is done.
        for norm in self._norms():
            norm.data_dep_init_done = torch.full((), float(done), device=norm.s.device)


def _into(level: list[Any], x: Tensor) -> Tensor:
    """Return what a level makes of an image or of what the finer level passed on."""
    x = nnf.pixel_unshuffle(x, 2)
    for block in level:
        x, _ = block.inverse(x)
    return x


def _out_of(level: list[Any], x: Tensor) -> Tensor:
    """Return the inverse of `_into`."""
    for block in reversed(level):
        x, _ = block(x)
    return nnf.pixel_shuffle(x, 2)


def _glow_block(channels: int, features: int) -> GlowBlock:
    try:
        from normflows.flows import GlowBlock
    except ImportError as error:
        raise ImportError(
            f"Glow: normflows cannot be imported ({error}), expected the package that"
            " pip install 'molrecon[inpainting]' brings"
        ) from error
    # With use_lu normflows calls torch.lu, which torch is going to remove.
    block = GlowBlock(channels, features, split_mode="channel", use_lu=False)
    coupling = block.flows[0].flows[1]
    coupling.param_map = _BoundedScales(coupling.param_map)
    return block


@final
class _BoundedScales(nn.Module):
    """The network of a coupling, with its log-odds of scales s mapped to `2 tanh(s / 2)`.

    Glow's scales `sigmoid(s + 2)` may come as near zero as they like, and `decode` divides by them: on images unlike
    those of the training the layers overflowed. Here they lie in (1/2, 0.983).
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Return shifts and log-odds, alternating along the channels as `normflows.flows.AffineCoupling` reads them."""
        shifts, odds = self.network(x).unflatten(1, (-1, 2)).unbind(2)
        return torch.stack([shifts, 2 * torch.tanh(odds / 2)], 2).flatten(1, 2)

"""Images as vectors: whole, or cut into blocks that are sensed apart. Both are isometries."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import final

import torch
from torch import Tensor

from operators.linear import LinearOperator
from operators.shapes import Shapes


@final
class Flatten(LinearOperator):
    """The whole image as one vector, last axis fastest: `(V x)[r cols + c] = x[r, c]`. Unitary, so `V^H V = I`.

    Args:
        spatial: the sizes of the image axes, any number of them.

    Shapes: image (batch, *spatial) to vectors (batch, N), N the number of pixels; any dtype, which is kept.

    Raises:
        ValueError: images or vectors of other shapes.
    """

    def __init__(self, spatial: Sequence[int]) -> None:
        super().__init__()
        self.spatial = _sizes("Flatten", spatial)

    def forward(self, x: Tensor) -> Tensor:
        """Return the vectors `V x`."""
        _check("Flatten", "image", x, self.spatial, "*spatial")
        return x.flatten(1)

    def adjoint(self, y: Tensor) -> Tensor:
        """Return the images `V^H y`."""
        _check("Flatten", "vectors", y, (prod(self.spatial),), "pixels")
        return y.reshape(len(y), *self.spatial)

    def normal(self, x: Tensor) -> Tensor:
        """Return x: V is unitary."""
        _check("Flatten", "image", x, self.spatial, "*spatial")
        return x

    @property
    def shapes(self) -> Shapes:
        """Image (batch, *spatial) to vectors (batch, N)."""
        return Shapes(("batch", *self.spatial), ("batch", prod(self.spatial)))


@final
class Blocks(LinearOperator):
    """Cut an image into blocks, `y = B P x`: P pads with zeros at the bottom and right, B cuts. `P^H B^H B P = I`.

    Block k lies at block row `k // G_c` and block column `k % G_c` (G_c blocks side by side), and its pixels are in
    the order of the image, last axis fastest. The adjoint puts the blocks together and crops the padding.

    Args:
        spatial: (rows, cols) of the image.
        block_size: (rows, cols) of a block, or one number for square blocks.
        extra_block: pad by `block - size mod block` even where that is a whole block, because the block divides the
            size: the test protocol of ISTA-Net+, which pads every image. Where the block does not divide the size
            both settings pad alike.

    Attributes:
        grid: (G_r, G_c), the number of blocks along rows and columns.

    Shapes: image (batch, rows, cols) to blocks (batch, G_r G_c, N), N pixels a block; any dtype, which is kept.

    Raises:
        ValueError: sizes below 1, images or blocks of other shapes.

    Source: J. Zhang and B. Ghanem, ISTA-Net, CVPR 2018, and the test program published with it.
    """

    def __init__(self, spatial: Sequence[int], block_size: int | Sequence[int], extra_block: bool = False) -> None:
        super().__init__()
        if isinstance(block_size, int):
            block_size = (block_size, block_size)
        self.spatial, self.block_size = _sizes("Blocks", spatial), _sizes("Blocks", block_size)
        if len(self.spatial) != 2 or len(self.block_size) != 2:
            raise ValueError(
                f"Blocks: spatial {self.spatial} and block size {self.block_size}, expected (rows, cols) for both"
            )
        rows, cols = (
            size // block + 1 if extra_block else -(-size // block)
            for size, block in zip(self.spatial, self.block_size, strict=True)
        )
        self.grid = (rows, cols)

    def forward(self, x: Tensor) -> Tensor:
        """Return the blocks `B P x`."""
        _check("Blocks", "image", x, self.spatial, "rows, cols")
        (rows, cols), (block_rows, block_cols), (grid_rows, grid_cols) = self.spatial, self.block_size, self.grid
        x = torch.nn.functional.pad(x, (0, grid_cols * block_cols - cols, 0, grid_rows * block_rows - rows))
        x = x.reshape(len(x), grid_rows, block_rows, grid_cols, block_cols)
        return x.transpose(2, 3).reshape(len(x), grid_rows * grid_cols, block_rows * block_cols)

    def adjoint(self, y: Tensor) -> Tensor:
        """Return the images `P^H B^H y`."""
        (rows, cols), (block_rows, block_cols), (grid_rows, grid_cols) = self.spatial, self.block_size, self.grid
        _check("Blocks", "blocks", y, (grid_rows * grid_cols, block_rows * block_cols), "blocks, pixels")
        y = y.reshape(len(y), grid_rows, grid_cols, block_rows, block_cols).transpose(2, 3)
        return y.reshape(len(y), grid_rows * block_rows, grid_cols * block_cols)[:, :rows, :cols]

    def normal(self, x: Tensor) -> Tensor:
        """Return x: what is cut and put together again is the image."""
        _check("Blocks", "image", x, self.spatial, "rows, cols")
        return x

    @property
    def shapes(self) -> Shapes:
        """Image (batch, rows, cols) to blocks (batch, G_r G_c, N)."""
        return Shapes(("batch", *self.spatial), ("batch", prod(self.grid), prod(self.block_size)))

    def extra_repr(self) -> str:
        """Return the shape of a block."""
        return f"block_size {self.block_size}"


def _sizes(who: str, sizes: Sequence[int]) -> tuple[int, ...]:
    if len(sizes) == 0 or min(sizes) < 1:
        raise ValueError(f"{who}: got the sizes {tuple(sizes)}, expected sizes of at least 1")
    return tuple(sizes)


def _check(who: str, name: str, tensor: Tensor, expected: tuple[int, ...], words: str) -> None:
    if tensor.ndim == 0 or tuple(tensor.shape[1:]) != expected:
        sizes = ", ".join(map(str, expected))
        raise ValueError(f"{who}: {name} {tuple(tensor.shape)}, expected (batch, {sizes}), that is (batch, {words})")

"""Hadamard sensing by the fast transform: the single-pixel camera."""

from __future__ import annotations

from functools import reduce
from typing import final

import torch
from torch import Tensor

from operators.compressive import matrix_shapes, on_parts, require_vectors
from operators.linear import LinearOperator
from operators.shapes import Shapes

# Butterflies of five bits at once: a matrix product of this size costs no more than one pass through memory.
LARGEST_FACTOR = 32


def walsh_hadamard(x: Tensor) -> Tensor:
    """Return the orthonormal Walsh-Hadamard transform of the last axis, `H x / sqrt(N)`, in natural order.

    `H[j, k] = (-1)^(number of bits that j and k share)` (Sylvester's matrix). The transform is its own inverse and
    adjoint, takes O(N log N), and is done as products with factors `H_32` of the Kronecker product H.

    Args:
        x: (..., N) real or complex, N a power of two.

    Raises:
        ValueError: N that is no power of two.
        TypeError: integer or boolean input.
    """
    size = x.shape[-1] if x.ndim else 0
    _require_power_of_two("walsh_hadamard", size)
    if not (x.is_floating_point() or x.is_complex()):
        raise TypeError(f"walsh_hadamard: input has dtype {x.dtype}, expected a floating or complex dtype")
    return on_parts(_transform, x)


def sequency_order(*spatial: int) -> Tensor:
    """Return the natural indices of the rows of H from the smoothest pattern to the roughest, int64 (N,).

    One size gives Walsh's order: row `sequency_order(N)[k]` of H changes its sign k times. Several sizes (rows, cols)
    stand for images flattened with the last axis fastest, on which H is the Kronecker product of an H for each axis:
    their patterns come by the total number of sign changes along the axes, and those of one total by the number
    along the first axis. The first M of them are a usual choice for single-pixel images.

    Args:
        spatial: the sizes of the image axes, powers of two.

    Raises:
        ValueError: sizes that are no powers of two.
    """
    if not spatial:
        raise ValueError("sequency_order: got no size, expected at least one")
    natural = torch.zeros(1, dtype=torch.int64)
    total = torch.zeros(1, dtype=torch.int64)
    for size in spatial:
        _require_power_of_two("sequency_order", size)
        changes = torch.arange(size)
        gray = changes ^ (changes >> 1)
        bits = size.bit_length() - 1
        reverse = sum((((gray >> bit) & 1) << (bits - 1 - bit) for bit in range(bits)), torch.zeros_like(gray))
        natural = (natural[:, None] * size + reverse).flatten()
        total = (total[:, None] + changes).flatten()
    return natural[torch.argsort(total, stable=True)]


@final
class Hadamard(LinearOperator):
    """Single-pixel sensing, `y = P H v / sqrt(N)`: some rows of the orthonormal Hadamard matrix, by the fast transform.

    Args:
        pixels: N, a power of two.
        rows: (M,) int64, distinct indices of rows in natural order, in the order in which they are measured; see
            `sequency_order`. None: all of them, in natural order.

    `A A^H = I`, so that the adjoint is the pseudo-inverse. `normal` keeps the coefficients where they are.

    Shapes: vectors (batch, ..., N) to measurements (batch, ..., M), real or complex, dtype kept. With images:
    `Hadamard(4096, sequency_order(64, 64)[:1024]) @ Flatten((64, 64))`.

    Raises:
        ValueError: N no power of two, rows out of range or twice, vectors or measurements of other lengths.
        TypeError: rows or vectors of the wrong kind of dtype.

    Reference: Duarte et al., Single-pixel imaging via compressive sampling, IEEE Signal Process Mag 25, 2008.
    """

    rows: Tensor
    measured: Tensor

    def __init__(self, pixels: int, rows: Tensor | None = None) -> None:
        super().__init__()
        _require_power_of_two("Hadamard", pixels)
        rows = torch.arange(pixels) if rows is None else rows
        if rows.dtype != torch.int64:
            raise TypeError(f"Hadamard: rows have dtype {rows.dtype}, expected torch.int64")
        if rows.ndim != 1 or len(rows) == 0:
            raise ValueError(f"Hadamard: rows {tuple(rows.shape)}, expected a non-empty (measurements,)")
        if int(rows.min()) < 0 or int(rows.max()) >= pixels or len(rows.unique()) != len(rows):
            raise ValueError(
                f"Hadamard: rows are out of range or not distinct, expected each of 0 to {pixels - 1} once"
            )
        self.pixels = pixels
        self.register_buffer("rows", rows, persistent=False)
        measured = torch.zeros(pixels, dtype=torch.bool, device=rows.device).index_fill(0, rows, True)
        self.register_buffer("measured", measured, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return `P H x / sqrt(N)`."""
        require_vectors("Hadamard", "vectors", x, self.pixels)
        return walsh_hadamard(x)[..., self.rows]

    def adjoint(self, y: Tensor) -> Tensor:
        """Return `H P^T y / sqrt(N)`."""
        require_vectors("Hadamard", "measurements", y, len(self.rows))
        return walsh_hadamard(y.new_zeros(*y.shape[:-1], self.pixels).index_copy(-1, self.rows, y))

    def normal(self, x: Tensor) -> Tensor:
        """Return `H P^T P H x / N`."""
        require_vectors("Hadamard", "vectors", x, self.pixels)
        if len(self.rows) == self.pixels:
            return x
        zero = torch.zeros((), dtype=x.dtype, device=x.device)
        return walsh_hadamard(torch.where(self.measured, walsh_hadamard(x), zero))

    @property
    def shapes(self) -> Shapes:
        """Vectors (batch, ..., N) to measurements (batch, ..., M)."""
        return matrix_shapes(len(self.rows), self.pixels)


def _transform(x: Tensor) -> Tensor:
    size, left = x.shape[-1], x.shape[-1]
    y = x.reshape(-1, size)
    while left > 1:
        factor = min(left, LARGEST_FACTOR)
        left //= factor
        matrix = _sylvester(factor, x)
        # The digit that was transformed moves to the front; after the last one all digits are in their places again.
        y = (y.reshape(-1, size // factor, factor) @ matrix).mT.reshape(-1, size)
    return y.reshape(x.shape)


def _sylvester(size: int, like: Tensor) -> Tensor:
    two = torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=like.dtype, device=like.device)
    one = torch.ones(1, 1, dtype=like.dtype, device=like.device)
    return reduce(torch.kron, [two] * (size.bit_length() - 1), one) / size**0.5


def _require_power_of_two(who: str, size: int) -> None:
    if size < 1 or size & (size - 1):
        raise ValueError(f"{who}: size {size}, expected a power of two")

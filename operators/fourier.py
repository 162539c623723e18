"""The centred orthonormal Fourier transform on any axes: the one place that knows about fftshift."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor

from operators.linear import LinearOperator, require_complex
from operators.shapes import MORE, Shapes


def centred_fft(x: Tensor, dim: Sequence[int]) -> Tensor:
    """Return `fftshift(fftn(ifftshift(x, dim), dim, norm="ortho"), dim)`: image to k-space, zero frequency central.

    Args:
        x: complex (or real) tensor of any shape.
        dim: the axes to transform.

    The fastMRI convention; for an axis of n samples the zero frequency lies at index n // 2, odd n included.
    """
    dim = tuple(dim)
    return torch.fft.fftshift(torch.fft.fftn(torch.fft.ifftshift(x, dim=dim), dim=dim, norm="ortho"), dim=dim)


def centred_ifft(x: Tensor, dim: Sequence[int]) -> Tensor:
    """Return the inverse, and adjoint, of `centred_fft` on the same axes: k-space to image."""
    dim = tuple(dim)
    return torch.fft.fftshift(torch.fft.ifftn(torch.fft.ifftshift(x, dim=dim), dim=dim, norm="ortho"), dim=dim)


def uncentre(x: Tensor, dim: Sequence[int]) -> Tensor:
    """Return `x` with the zero frequency moved from the middle to index 0 of the axes `dim` (ifftshift).

    Sampling masks are stored so, once, which keeps every shift out of the normal operator: a shift of the image is
    a phase in k-space, which commutes with the mask.
    """
    return torch.fft.ifftshift(x, dim=tuple(dim))


def centre(x: Tensor, dim: Sequence[int]) -> Tensor:
    """Return `x` with the zero frequency moved from index 0 to the middle of the axes `dim`; `uncentre` undoes it."""
    return torch.fft.fftshift(x, dim=tuple(dim))


@final
class Fourier(LinearOperator):
    """Centred orthonormal Fourier transform `F` over the last `ndim` axes; unitary, so `F^H F = I`.

    Args:
        ndim: number of trailing axes that are transformed.
    """

    def __init__(self, ndim: int) -> None:
        super().__init__()
        if ndim < 1:
            raise ValueError(f"Fourier: ndim is {ndim}, expected at least 1")
        self.dim = tuple(range(-ndim, 0))

    def forward(self, x: Tensor) -> Tensor:
        """Return `F x`, same shape and dtype (..., *spatial) complex."""
        self._check(x)
        return centred_fft(x, self.dim)

    def adjoint(self, y: Tensor) -> Tensor:
        """Return `F^H y = F^-1 y`."""
        self._check(y)
        return centred_ifft(y, self.dim)

    def normal(self, x: Tensor) -> Tensor:
        """Return x: F is unitary."""
        self._check(x)
        return x

    @property
    def shapes(self) -> Shapes:
        """(batch, ..., *spatial) to the same."""
        tensor = ("batch", MORE, *(f"n{axis}" for axis in range(1, len(self.dim) + 1)))
        return Shapes(tensor, tensor)

    def _check(self, x: Tensor) -> None:
        require_complex("Fourier", "input", x)
        if x.ndim <= len(self.dim):
            raise ValueError(
                f"Fourier: input {tuple(x.shape)} has {x.ndim} axes, expected a batch axis and {len(self.dim)} more"
            )

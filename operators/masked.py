"""Masks on single images: inpainting, and partial Fourier sampling of one coil."""

from __future__ import annotations

from typing import final

import numpy as np
import torch
from torch import Tensor

from operators.linear import LinearOperator, require_complex
from operators.sampled_fourier import SampledFourier
from operators.sampling import as_mask, sampled_share
from operators.shapes import Shapes, Sizes, batch_of, spatial_of


@final
class Inpainting(LinearOperator):
    """Keep the known pixels, `y = M x`, and set the others to exactly zero. `M^H = M = M^H M`.

    Args:
        known: (batch or 1, *spatial) bool or 0/1, NumPy or torch, True where a pixel is known, with size 1 along axes
            on which that does not depend (colour channels); (cols,) stands for (1, 1, cols).

    Shapes: image and measurement (batch, *spatial), any dtype, which is kept.

    Raises:
        ValueError: a mask of other values than 0 and 1, images that it does not fit.
    """

    known: Tensor

    def __init__(self, known: Tensor | np.ndarray) -> None:
        super().__init__()
        self.register_buffer("known", as_mask(known), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return `M x`."""
        _check("Inpainting", "image", x, self.known)
        return torch.where(self.known, x, torch.zeros((), dtype=x.dtype, device=x.device))

    def adjoint(self, y: Tensor) -> Tensor:
        """Return `M y`."""
        return self(y)

    def normal(self, x: Tensor) -> Tensor:
        """Return `M x`: M is a projection."""
        return self(x)

    @property
    def shapes(self) -> Shapes:
        """(batch, *spatial) to the same."""
        return Shapes(_sizes(self.known), _sizes(self.known))

    def extra_repr(self) -> str:
        """Return the share of known pixels."""
        return sampled_share(self.known)


@final
class PartialFourier(LinearOperator):
    """Sampled centred orthonormal Fourier transform of a single-coil image, `y = M F x`.

    Complex images: the adjoint is `F^H M y`. Real images: it is its real part, which makes `Re<A x, y> = <x, A^H y>`,
    the inner product of the real space that the images form. `normal` transforms the undersampled axes only, and
    for real images half of the frequencies: `Re F^H M F = F^H M_s F`, M_s the mean of the mask and its mirror image.

    Args:
        sampling_mask: (batch or 1, *spatial) bool or 0/1, NumPy or torch, zero frequency in the middle, with size 1
            along fully sampled axes; (cols,) stands for (1, 1, cols).
        real: whether the images are real.

    Shapes: image (batch, *spatial), complex or real as declared; k-space (batch, *spatial), complex, exactly zero
    where it is not sampled.

    Raises:
        ValueError: a mask of other values than 0 and 1, images or k-space that it does not fit.
        TypeError: real k-space, an image of the kind that was not declared.
    """

    symmetric_weights: Tensor

    def __init__(self, sampling_mask: Tensor | np.ndarray, real: bool = False) -> None:
        super().__init__()
        self.real = real
        self.sampled_fourier = SampledFourier(sampling_mask)
        weights, dim = self.sampled_fourier.weights[:, 0], self.sampled_fourier.undersampled
        mirrored = weights.flip(dim).roll((1,) * len(dim), dim) if dim else weights
        half = (weights + mirrored) / 2
        if dim:
            half = half.narrow(dim[-1], 0, half.shape[dim[-1]] // 2 + 1)
        self.register_buffer("symmetric_weights", half, persistent=False)

    @property
    def sampling_mask(self) -> Tensor:
        """The mask (batch or 1, *spatial), bool, zero frequency in the middle."""
        return self.sampled_fourier.sampling.sampling_mask

    def forward(self, x: Tensor) -> Tensor:
        """Return `M F x`."""
        self._check_image(x)
        x = torch.complex(x, torch.zeros_like(x)) if self.real else x
        kspace: Tensor = self.sampled_fourier(x[:, None])
        return kspace[:, 0]

    def adjoint(self, y: Tensor) -> Tensor:
        """Return `F^H M y`, or its real part."""
        require_complex("PartialFourier", "k-space", y)
        _check("PartialFourier", "k-space", y, self.sampling_mask)
        image = self.sampled_fourier.adjoint(y[:, None])[:, 0]
        return image.real if self.real else image

    def normal(self, x: Tensor) -> Tensor:
        """Return `F^H M F x`, or its real part."""
        self._check_image(x)
        if not self.real:
            return self.sampled_fourier.normal(x[:, None])[:, 0]
        dim = self.sampled_fourier.undersampled
        weights = self.symmetric_weights.to(x.dtype)
        if not dim:
            return x * weights
        return torch.fft.irfftn(torch.fft.rfftn(x, dim=dim) * weights, s=[x.shape[axis] for axis in dim], dim=dim)

    @property
    def shapes(self) -> Shapes:
        """Image (batch, *spatial) to k-space (batch, *spatial)."""
        return Shapes(_sizes(self.sampling_mask), _sizes(self.sampling_mask))

    def extra_repr(self) -> str:
        """Return the kind of the images and the share of samples that the mask keeps."""
        kind = f"{'real' if self.real else 'complex'} images"
        return ", ".join(filter(None, [kind, sampled_share(self.sampling_mask)]))

    def _check_image(self, x: Tensor) -> None:
        if self.real and not x.is_floating_point():
            raise TypeError(f"PartialFourier: image has dtype {x.dtype}, expected a floating dtype (real=True)")
        if not self.real:
            require_complex("PartialFourier", "image", x)
        _check("PartialFourier", "image", x, self.sampling_mask)


def _sizes(mask: Tensor) -> Sizes:
    return (batch_of(mask), *spatial_of(mask.shape[1:]))


def _check(who: str, name: str, x: Tensor, mask: Tensor) -> None:
    fits = x.ndim == mask.ndim and all(m in (1, n) for m, n in zip(mask.shape, x.shape, strict=True))
    if not fits:
        raise ValueError(f"{who}: {name} {tuple(x.shape)} does not fit the mask {tuple(mask.shape)} (batch, *spatial)")

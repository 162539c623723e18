"""The Fourier transform followed by a sampling mask, with a normal operator that transforms undersampled axes only."""

from __future__ import annotations

import math
from typing import final

import numpy as np
import torch
from torch import Tensor

from operators.fourier import Fourier, uncentre
from operators.linear import LinearOperator, require_complex
from operators.sampling import Sampling, sampled_share
from operators.sensitivity import broadcasts
from operators.shapes import Shapes


@final
class SampledFourier(LinearOperator):
    """Cartesian sampling of coil images, `B = M F`, F the centred orthonormal FFT over the last `fourier_ndim` axes.

    `normal` is `F_u^-1 M' F_u` where F_u is the plain FFT along the undersampled Fourier axes u only (along a fully
    sampled axis the FFT and its inverse cancel) and M' is the mask with the zero frequency at index 0 (the shifts of
    the image are phases in k-space that commute with the mask).

    Args:
        sampling_mask: (batch or 1, *spatial) bool or 0/1, NumPy or torch, with size 1 along axes that are sampled alike
            everywhere; (cols,) stands for (1, 1, cols).
        fourier_ndim: number of trailing spatial axes that are transformed; the others (time) index separate images.
            None: all of them.

    Attributes:
        undersampled: the Fourier axes along which the mask varies, negative.
        separate: all other spatial axes, negative, first axis first: B^H B does not mix their positions.

    Shapes: coil images and k-space (batch, coil, *spatial), complex.

    Raises:
        ValueError: `fourier_ndim` outside 1 to the number of spatial axes.
    """

    weights: Tensor

    def __init__(self, sampling_mask: Tensor | np.ndarray, fourier_ndim: int | None = None) -> None:
        super().__init__()
        self.sampling = Sampling(sampling_mask)
        mask = self.sampling.sampling_mask
        self.ndim = mask.ndim - 1
        self.fourier_ndim = self.ndim if fourier_ndim is None else fourier_ndim
        if not 1 <= self.fourier_ndim <= self.ndim:
            raise ValueError(
                f"SampledFourier: fourier_ndim is {fourier_ndim}, expected 1 to {self.ndim}, the number of spatial axes"
                f" of the sampling mask {tuple(mask.shape)}"
            )
        self.fourier = Fourier(self.fourier_ndim)
        varying = [a for a in range(-self.ndim, 0) if bool((mask != mask.narrow(a, 0, 1)).any())]
        self.undersampled = tuple(axis for axis in varying if axis >= -self.fourier_ndim)
        self.separate = tuple(axis for axis in range(-self.ndim, 0) if axis not in self.undersampled)
        for axis in range(-self.ndim, 0):
            if axis not in varying:
                mask = mask.narrow(axis, 0, 1)
        weights = uncentre(mask, self.undersampled) if self.undersampled else mask
        # real, as wide as the mask varies: (batch or 1, 1, *spatial)
        self.register_buffer("weights", weights[:, None].to(torch.get_default_dtype()), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return `M F x`."""
        return self.sampling(self.fourier(x))

    def adjoint(self, y: Tensor) -> Tensor:
        """Return `F^H M y`."""
        return self.fourier.adjoint(self.sampling(y))

    def normal(self, x: Tensor) -> Tensor:
        """Return `F^H M F x` through FFTs along the undersampled axes only."""
        require_complex("SampledFourier", "coil images", x)
        mask = self.sampling.sampling_mask
        if not broadcasts(tuple(mask.shape), (*x.shape[:1], *x.shape[2:])):
            raise ValueError(
                f"SampledFourier: coil images {tuple(x.shape)} do not fit the sampling mask {tuple(mask.shape)}"
                " (batch, *spatial), expected (batch, coil, *spatial)"
            )
        return self.project(x, self.weights)

    @property
    def shapes(self) -> Shapes:
        """(batch, coil, *spatial) to the same."""
        return self.sampling.shapes

    def extra_repr(self) -> str:
        """Return the share of samples that the mask keeps, and the number of axes transformed unless it is all."""
        axes = "" if self.fourier_ndim == self.ndim else f"fourier_ndim {self.fourier_ndim}"
        return ", ".join(filter(None, [sampled_share(self.sampling.sampling_mask), axes]))

    def project(self, coil_images: Tensor, weights: Tensor) -> Tensor:
        """Return `F_u^-1 W F_u x` for weights of these positions: the part of `normal` that works on any chunk."""
        weights = weights.to(coil_images.real.dtype)
        if not self.undersampled:
            return coil_images * weights
        return torch.fft.ifftn(torch.fft.fftn(coil_images, dim=self.undersampled) * weights, dim=self.undersampled)

    def conjugating_weights(self, dtype: torch.dtype) -> Tensor:
        """Return the weights of `project_conjugate` for complex images of this dtype, (batch or 1, 1, *spatial).

        Real part w / n, imaginary part -w / n, n the number of points transformed: packed as complex numbers, so that
        chunks are cut as from the images.
        """
        weights = self.weights.to(dtype.to_real())
        weights = weights / math.prod(weights.shape[axis] for axis in self.undersampled)
        return torch.complex(weights, -weights)

    def project_conjugate(self, coil_images: Tensor, weights: Tensor) -> Tensor:
        """Return `conj(F_u^-1 W F_u x)` with `conjugating_weights`, overwriting its input where it can.

        `conj(F^-1 z) = F conj(z) / n`: mask, conjugation and scale are one real product in place, and the conjugate
        coil images are what the coil combination multiplies by the maps without conjugating those.
        """
        spectrum = torch.fft.fftn(coil_images, dim=self.undersampled) if self.undersampled else coil_images
        torch.view_as_real(spectrum).mul_(torch.view_as_real(weights))
        return torch.fft.fftn(spectrum, dim=self.undersampled) if self.undersampled else spectrum

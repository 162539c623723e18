"""Multi-coil Cartesian MRI, `A = M F S`, with a normal operator that costs what the sampling costs."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from operators.fourier import Fourier, uncentre
from operators.linear import LinearOperator, require_complex
from operators.sampling import Sampling
from operators.sensitivity import Sensitivity

# Coil images of one chunk: small enough to stay in a core's cache from the first FFT to the coil combination.
CHUNK_BYTES = 2**20


@final
class Sense(LinearOperator):
    """The Cartesian SENSE operator `A x = M F (s_1 x, ..., s_C x)` in 2D, 3D or any number of spatial axes.

    `forward` and `adjoint` use the centred orthonormal FFT on all spatial axes. `normal` uses

        A^H A x = sum_c conj(s_c) F_u^-1 M' F_u (s_c x)

    where F_u is the plain FFT along the undersampled axes u only (along a fully sampled axis the FFT and its inverse
    cancel) and M' is the mask with the zero frequency at index 0 (the shifts of the image are phases in k-space that
    commute with the mask). Both forms agree to rounding. The first fully sampled axis is worked through in chunks
    that fit the cache; with an undersampled readout there is one chunk.

    Args:
        sensitivity_maps: (batch or 1, coil, *spatial) complex.
        sampling_mask: (batch or 1, *spatial) bool or 0/1, with size 1 along fully sampled axes. An axis along which a
            mask of full size does not vary is recognised as fully sampled too.

    Shapes: image (batch, *spatial), k-space (batch, coil, *spatial), complex, zero frequency in the middle. Input of
    higher precision than the maps is computed, and returned, in its own precision.

    Raises:
        ValueError: maps, mask, image or k-space shapes that do not fit each other.
        TypeError: real input.

    Reference: Pruessmann et al., SENSE, Magn Reson Med 42, 1999.
    """

    def __init__(self, sensitivity_maps: Tensor, sampling_mask: Tensor) -> None:
        super().__init__()
        self.sensitivity = Sensitivity(sensitivity_maps)
        self.sampling = Sampling(sampling_mask)
        mask = self.sampling.sampling_mask
        spatial = sensitivity_maps.shape[2:]
        batches = {mask.shape[0], sensitivity_maps.shape[0]} - {1}
        if mask.ndim != len(spatial) + 1 or len(batches) > 1:
            raise ValueError(
                f"Sense: sampling mask {tuple(mask.shape)} (batch, *spatial) does not fit sensitivity maps"
                f" {tuple(sensitivity_maps.shape)} (batch, coil, *spatial)"
            )
        if any(m not in (1, n) for m, n in zip(mask.shape[1:], spatial, strict=True)):
            raise ValueError(
                f"Sense: sampling mask {tuple(mask.shape)} has spatial size {tuple(mask.shape[1:])}, expected"
                f" {tuple(spatial)} or 1 along fully sampled axes"
            )
        self.fourier = Fourier(len(spatial))
        varies = [bool((mask != mask.narrow(axis, 0, 1)).any()) for axis in range(1, mask.ndim)]
        self.undersampled = tuple(axis - len(spatial) for axis, v in enumerate(varies) if v)
        full = [axis for axis, v in enumerate(varies) if not v]
        self.chunk_axis = full[0] + 1 if full else None  # as an axis of the image
        for axis in (a for a, v in enumerate(varies, start=1) if not v):
            mask = mask.narrow(axis, 0, 1)
        weights = uncentre(mask, self.undersampled) if self.undersampled else mask
        self.register_buffer("weights", weights[:, None].to(sensitivity_maps.real.dtype), persistent=False)

    weights: Tensor

    @property
    def sensitivity_maps(self) -> Tensor:
        """The maps (batch or 1, coil, *spatial)."""
        return self.sensitivity.sensitivity_maps

    @property
    def sampling_mask(self) -> Tensor:
        """The mask (batch or 1, *spatial), bool, zero frequency in the middle."""
        return self.sampling.sampling_mask

    def decoupled(self, start: int, stop: int, batch: int) -> Sense:
        """Return the independent problems of positions start..stop along the first spatial axis of `batch` images.

        With that axis fully sampled A^H A does not mix its positions: image[:, start:stop] of shape (batch, n, *rest),
        flattened to (batch n, *rest), goes with the operator returned here.

        Raises:
            ValueError: the first spatial axis is undersampled.
        """
        if self.chunk_axis != 1:
            raise ValueError("Sense: the first spatial axis is undersampled, expected it fully sampled to decouple")
        maps = self.sensitivity_maps[:, :, start:stop].movedim(2, 1)
        mask = self.sampling_mask[:, :1].expand(-1, stop - start, *[-1] * (maps.ndim - 3))
        maps = maps.expand(batch, *maps.shape[1:]).flatten(0, 1).contiguous()
        return Sense(maps, mask.flatten(0, 1) if len(mask) > 1 else mask[:, 0])

    def forward(self, x: Tensor) -> Tensor:
        """Return `M F S x`: image (batch, *spatial) to k-space (batch, coil, *spatial)."""
        return self.sampling(self.fourier(self.sensitivity(x)))

    def adjoint(self, y: Tensor) -> Tensor:
        """Return `S^H F^H M y`: k-space (batch, coil, *spatial) to image (batch, *spatial)."""
        return self.sensitivity.adjoint(self.fourier.adjoint(self.sampling(y)))

    def normal(self, x: Tensor) -> Tensor:
        """Return `A^H A x` through FFTs along the undersampled axes only; image to image."""
        require_complex("Sense", "image", x)
        maps = self.sensitivity_maps
        if x.shape[1:] != maps.shape[2:] or {len(maps), len(self.weights)} - {1, len(x)}:
            raise ValueError(
                f"Sense: image {tuple(x.shape)} does not fit sensitivity maps {tuple(maps.shape)}"
                f" (batch, coil, *spatial) and sampling mask {tuple(self.sampling_mask.shape)} (batch, *spatial)"
            )
        if self.chunk_axis is None:
            return self._normal(x, maps)
        axis = self.chunk_axis
        rows = x.shape[axis]
        bytes_per_row = x.numel() // rows * maps.shape[1] * x.element_size()
        step = max(1, CHUNK_BYTES // bytes_per_row)
        if step >= rows:
            return self._normal(x, maps)
        chunks = [
            self._normal(
                x.narrow(axis, start, min(step, rows - start)), maps.narrow(axis + 1, start, min(step, rows - start))
            )
            for start in range(0, rows, step)
        ]
        return torch.cat(chunks, dim=axis)

    def _normal(self, x: Tensor, maps: Tensor) -> Tensor:
        coil_images = maps * x[:, None]
        weights = self.weights.real.to(coil_images.real.dtype)
        if self.undersampled:
            spectrum = torch.fft.fftn(coil_images, dim=self.undersampled) * weights
            coil_images = torch.fft.ifftn(spectrum, dim=self.undersampled)
        else:
            coil_images = coil_images * weights
        return torch.linalg.vecdot(maps.to(coil_images.dtype), coil_images, dim=1)

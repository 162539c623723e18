"""Multi-coil Cartesian MRI, `A = M F S`, with a normal operator that costs what the sampling costs."""

from __future__ import annotations

from typing import final

import numpy as np
import torch
from torch import Tensor

from operators.coil_chunks import chunked_normal, decoded, encoded, positions_apart
from operators.fourier import Fourier
from operators.linear import LinearOperator, require_complex
from operators.sampled_fourier import SampledFourier
from operators.sampling import Sampling, as_mask
from operators.sensitivity import Sensitivity, broadcasts, combine, combine_conjugate, weight
from operators.shapes import Shapes, batch_of, dtype_name, spatial_of


@final
class Sense(LinearOperator):
    """The Cartesian SENSE operator `A x = M F (s_1 x, ..., s_C x)` in 2D, 3D, 2D+time or any number of spatial axes.

    `forward` and `adjoint` use the centred orthonormal FFT on the Fourier axes, by default all spatial axes. `normal`
    uses

        A^H A x = sum_c conj(s_c) F_u^-1 M' F_u (s_c x)

    where F_u is the plain FFT along the undersampled Fourier axes u only, see `SampledFourier`. Both forms agree to
    rounding. The axes that this does not mix (time, fully sampled axes, the batch) are worked through in chunks that
    fit the cache.

    Args:
        sensitivity_maps: (batch or 1, coil, *spatial) complex, with size 1 along axes that share the maps.
        sampling_mask: (batch or 1, *spatial) bool or 0/1, NumPy or torch, with size 1 along axes that are sampled alike
            everywhere. Axes that are missing in front count as such: (cols,) for lines, (rows, cols). An axis along
            which a mask of full size does not vary is recognised as fully sampled too.
        fourier_ndim: number of trailing spatial axes that are Fourier transformed; None: all. Dynamic 2D imaging has
            the spatial axes (time, rows, cols), fourier_ndim 2, a mask (batch, time, rows or 1, cols) and one set of
            maps (batch, coil, 1, rows, cols) for all frames.

    Shapes: image (batch, *spatial), k-space (batch, coil, *spatial), complex, zero frequency in the middle. Input of
    higher precision than the maps is computed, and returned, in its own precision.

    Raises:
        ValueError: maps, mask, image or k-space shapes that do not fit each other; `fourier_ndim` out of range.
        TypeError: real input.

    Reference: Pruessmann et al., SENSE, Magn Reson Med 42, 1999.
    """

    def __init__(
        self, sensitivity_maps: Tensor, sampling_mask: Tensor | np.ndarray, fourier_ndim: int | None = None
    ) -> None:
        super().__init__()
        self.sensitivity = Sensitivity(sensitivity_maps)
        mask = as_mask(sampling_mask, sensitivity_maps.ndim - 2, sensitivity_maps.device)
        self.encoding = SampledFourier(mask, fourier_ndim)
        check_mask("Sense", self.sampling_mask, sensitivity_maps, "(batch, coil, *spatial)")

    @property
    def sensitivity_maps(self) -> Tensor:
        """The maps (batch or 1, coil, *spatial)."""
        return self.sensitivity.sensitivity_maps

    @property
    def sampling_mask(self) -> Tensor:
        """The mask (batch or 1, *spatial), bool, zero frequency in the middle."""
        return self.encoding.sampling.sampling_mask

    @property
    def sampling(self) -> Sampling:
        """M."""
        return self.encoding.sampling

    @property
    def fourier(self) -> Fourier:
        """F."""
        return self.encoding.fourier

    @property
    def undersampled(self) -> tuple[int, ...]:
        """The Fourier axes along which the mask varies, negative."""
        return self.encoding.undersampled

    @property
    def chunk_axis(self) -> int | None:
        """The first axis of the image whose positions A^H A does not mix; None when it mixes all."""
        separate = self.encoding.separate
        return separate[0] + self.encoding.ndim + 1 if separate else None

    def decoupled(self, start: int, stop: int, batch: int) -> Sense:
        """Return the independent problems of positions start..stop along the first spatial axis of `batch` images.

        When A^H A does not mix the positions of that axis (time, a fully sampled readout), image[:, start:stop] of
        shape (batch, n, *rest), flattened to (batch n, *rest), goes with the operator returned here.

        Raises:
            ValueError: the first spatial axis is undersampled.
        """
        if self.chunk_axis != 1:
            raise ValueError("Sense: the first spatial axis is undersampled, expected it fully sampled to decouple")
        return Sense(*positions_apart(self.encoding, self.sensitivity_maps, slice(start, stop), batch))

    @property
    def shapes(self) -> Shapes:
        """Image (batch, *spatial) to k-space (batch, coil, *spatial)."""
        maps, mask = self.sensitivity_maps, self.sampling_mask
        batch, spatial = batch_of(maps, mask), spatial_of(maps.shape[2:], mask.shape[1:])
        return Shapes((batch, *spatial), (batch, maps.shape[1], *spatial))

    def extra_repr(self) -> str:
        """Return the dtype of the maps and the share of samples that the mask keeps."""
        return ", ".join(filter(None, (dtype_name(self.sensitivity_maps), self.encoding.extra_repr())))

    def forward(self, x: Tensor) -> Tensor:
        """Return `M F S x`: image (batch, *spatial) to k-space (batch, coil, *spatial)."""
        self.sensitivity.check_image(x)
        return encoded(self.encoding, self.sensitivity_maps, x, weight)

    def adjoint(self, y: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """Return `S^H F^H M y`: k-space (batch, coil, *spatial) to image (batch, *spatial).

        With `dtype` it is `adjoint(y.to(dtype))`, but only a few coils at a time are held in that precision.
        """
        check_kspace("Sense", y, self.sensitivity_maps, "(batch, coil, *spatial)")
        return decoded(self.encoding, self.sensitivity_maps, y, combine, dtype)

    def normal(self, x: Tensor) -> Tensor:
        """Return `A^H A x` through FFTs along the undersampled axes only; image to image."""
        require_complex("Sense", "image", x)
        maps, mask = self.sensitivity_maps, self.sampling_mask
        shape = tuple(x.shape)
        if not broadcasts((maps.shape[0], *maps.shape[2:]), shape) or not broadcasts(tuple(mask.shape), shape):
            raise ValueError(
                f"Sense: image {tuple(x.shape)} does not fit sensitivity maps {tuple(maps.shape)}"
                f" (batch, coil, *spatial) and sampling mask {tuple(self.sampling_mask.shape)} (batch, *spatial)"
            )
        return chunked_normal(self.encoding, maps, x, weight, combine, combine_conjugate)


def check_mask(who: str, sampling_mask: Tensor, sensitivity_maps: Tensor, layout: str) -> None:
    """Raise ValueError unless the mask (batch, *spatial) fits maps (batch, ..., *spatial)."""
    mask, maps = tuple(sampling_mask.shape), tuple(sensitivity_maps.shape)
    leading = layout.count(",")
    spatial = maps[leading:]
    if len(mask) != len(spatial) + 1 or len({mask[0], maps[0]} - {1}) > 1:
        raise ValueError(f"{who}: sampling mask {mask} (batch, *spatial) does not fit sensitivity maps {maps} {layout}")
    if any(m != n and 1 not in (m, n) for m, n in zip(mask[1:], spatial, strict=True)):
        raise ValueError(
            f"{who}: sampling mask {mask} has spatial size {mask[1:]}, expected {spatial} or 1 along fully sampled axes"
        )


def check_kspace(who: str, kspace: Tensor, sensitivity_maps: Tensor, layout: str) -> None:
    """Raise unless k-space (batch, coil, *spatial) fits maps (batch, ..., coil, *spatial)."""
    require_complex(who, "k-space", kspace)
    maps, shape = tuple(sensitivity_maps.shape), tuple(kspace.shape)
    coil = layout.count(",") - 1
    if not broadcasts((maps[0], *maps[coil:]), shape) or shape[1] != maps[coil]:
        raise ValueError(
            f"{who}: k-space {shape} does not fit sensitivity maps {maps} {layout}, expected (batch, coil, *spatial)"
        )

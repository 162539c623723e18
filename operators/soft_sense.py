"""Several sets of sensitivity maps at once, where one set cannot explain the coil images: soft-SENSE."""

from __future__ import annotations

from typing import final

import numpy as np
import torch
from torch import Tensor

from operators.coil_chunks import chunked_normal, decoded, encoded, positions_apart
from operators.linear import LinearOperator, require_complex
from operators.sampled_fourier import SampledFourier
from operators.sampling import Sampling, as_mask
from operators.sense import check_kspace, check_mask
from operators.sensitivity import broadcasts, combine_conjugate, combine_sets, weight_sets
from operators.shapes import Shapes, batch_of, dtype_name, spatial_of

_LAYOUT = "(batch, set, coil, *spatial)"


@final
class SoftSense(LinearOperator):
    """Cartesian SENSE with several sets of maps, `A x = M F sum_k S_k x_k`, one image for each set.

    One set fails where the object is folded into a field of view smaller than itself, or where coils move: there the
    calibration data have a second eigenvector, whose image takes up what the first cannot. The magnitude to show is
    `sqrt(sum_k |x_k|^2)`. The normal operator

        (A^H A x)_j = sum_c conj(s_jc) F_u^-1 M' F_u sum_k s_kc x_k

    costs the FFTs of a single set, see `Sense`.

    Args:
        sensitivity_maps: (batch or 1, set, coil, *spatial) complex, with size 1 along axes that share the maps;
            `espirit_maps(..., n_maps=2)` returns such maps.
        sampling_mask: (batch or 1, *spatial) bool or 0/1, or fewer axes, as in `Sense`.
        fourier_ndim: number of trailing spatial axes that are Fourier transformed; None: all.

    Shapes: image (batch, set, *spatial), k-space (batch, coil, *spatial), complex, zero frequency in the middle.

    Raises:
        ValueError: maps, mask, image or k-space shapes that do not fit each other; `fourier_ndim` out of range.
        TypeError: real input.

    Reference: Uecker et al., ESPIRiT, Magn Reson Med 71, 2014, equation 29.
    """

    sensitivity_maps: Tensor

    def __init__(
        self, sensitivity_maps: Tensor, sampling_mask: Tensor | np.ndarray, fourier_ndim: int | None = None
    ) -> None:
        super().__init__()
        require_complex("SoftSense", "sensitivity maps", sensitivity_maps)
        if sensitivity_maps.ndim < 4 or 0 in sensitivity_maps.shape:
            raise ValueError(f"SoftSense: maps {tuple(sensitivity_maps.shape)}, expected a non-empty {_LAYOUT}")
        self.register_buffer("sensitivity_maps", sensitivity_maps, persistent=False)
        mask = as_mask(sampling_mask, sensitivity_maps.ndim - 3, sensitivity_maps.device)
        self.encoding = SampledFourier(mask, fourier_ndim)
        check_mask("SoftSense", self.sampling_mask, sensitivity_maps, _LAYOUT)

    @property
    def sampling_mask(self) -> Tensor:
        """The mask (batch or 1, *spatial), bool, zero frequency in the middle."""
        return self.encoding.sampling.sampling_mask

    @property
    def sampling(self) -> Sampling:
        """M."""
        return self.encoding.sampling

    @property
    def sets(self) -> int:
        """The number of sets, and of images that make one sample."""
        return self.sensitivity_maps.shape[1]

    @property
    def chunk_axis(self) -> int | None:
        """The first axis of the image whose positions A^H A does not mix; None when it mixes all."""
        separate = self.encoding.separate
        return separate[0] + self.encoding.ndim + 2 if separate else None

    def decoupled(self, start: int, stop: int, batch: int) -> SoftSense:
        """Return the independent problems of positions start..stop along the first spatial axis of `batch` images.

        image[:, :, start:stop] of shape (batch, set, n, *rest), as (batch n, set, *rest), goes with the operator
        returned here; see `Sense.decoupled`.

        Raises:
            ValueError: the first spatial axis is undersampled.
        """
        if self.chunk_axis != 2:
            raise ValueError("SoftSense: the first spatial axis is undersampled, expected it fully sampled to decouple")
        return SoftSense(*positions_apart(self.encoding, self.sensitivity_maps, slice(start, stop), batch))

    @property
    def shapes(self) -> Shapes:
        """Images (batch, set, *spatial) to k-space (batch, coil, *spatial)."""
        maps, mask = self.sensitivity_maps, self.sampling_mask
        batch, spatial = batch_of(maps, mask), spatial_of(maps.shape[3:], mask.shape[1:])
        return Shapes((batch, self.sets, *spatial), (batch, maps.shape[2], *spatial))

    def extra_repr(self) -> str:
        """Return the dtype of the maps and the share of samples that the mask keeps."""
        return ", ".join(filter(None, (dtype_name(self.sensitivity_maps), self.encoding.extra_repr())))

    def forward(self, x: Tensor) -> Tensor:
        """Return `M F sum_k S_k x_k`: images (batch, set, *spatial) to k-space (batch, coil, *spatial)."""
        self._check_image(x)
        return encoded(self.encoding, self.sensitivity_maps, x, weight_sets)

    def adjoint(self, y: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """Return `S_k^H F^H M y` for each set k: k-space (batch, coil, *spatial) to images (batch, set, *spatial).

        With `dtype` it is `adjoint(y.to(dtype))`, but only a few coils at a time are held in that precision.
        """
        check_kspace("SoftSense", y, self.sensitivity_maps, _LAYOUT)
        return decoded(self.encoding, self.sensitivity_maps, y, combine_sets, dtype)

    def normal(self, x: Tensor) -> Tensor:
        """Return `A^H A x` through FFTs along the undersampled axes only; images to images."""
        self._check_image(x)
        return chunked_normal(self.encoding, self.sensitivity_maps, x, weight_sets, combine_sets, _combine_conjugate)

    def _check_image(self, x: Tensor) -> None:
        require_complex("SoftSense", "image", x)
        maps, mask, shape = self.sensitivity_maps, self.sampling_mask, tuple(x.shape)
        if (
            not broadcasts((*maps.shape[:2], *maps.shape[3:]), shape)
            or shape[1] != maps.shape[1]
            or not broadcasts(tuple(mask.shape), (*shape[:1], *shape[2:]))
        ):
            raise ValueError(
                f"SoftSense: image {shape} does not fit sensitivity maps {tuple(maps.shape)} {_LAYOUT} and sampling"
                f" mask {tuple(mask.shape)} (batch, *spatial), expected (batch, set, *spatial)"
            )


def _combine_conjugate(maps: Tensor, y: Tensor, out: Tensor) -> Tensor:
    """Write `sum_c s_kc y_c` to `out`, (batch, set, *spatial)."""
    for k in range(maps.shape[1]):
        combine_conjugate(maps[:, k], y.clone() if k + 1 < maps.shape[1] else y, out[:, k])
    return out

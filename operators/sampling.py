"""Sampling masks as operators on k-space."""

from __future__ import annotations

from typing import final

import numpy as np
import torch
from torch import Tensor

from operators.linear import LinearOperator, require_complex
from operators.shapes import Shapes, batch_of, spatial_of


@final
class Sampling(LinearOperator):
    """Diagonal sampling `y = M k`: keeps the measured samples and sets the others to exactly zero.

    M is a projection, so `M^H = M = M^H M`. Zeroing writes +0 (a product would leave the sign of the unseen sample
    in a negative zero).

    Args:
        sampling_mask: (batch or 1, *spatial) bool or 0/1, NumPy or torch, with size 1 along fully sampled axes; the
            same for all coils. (cols,) stands for (1, 1, cols), see `as_mask`.

    Shapes: k-space (batch, coil, *spatial), complex.
    """

    sampling_mask: Tensor

    def __init__(self, sampling_mask: Tensor | np.ndarray) -> None:
        super().__init__()
        self.register_buffer("sampling_mask", as_mask(sampling_mask), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return `M x`."""
        require_complex("Sampling", "k-space", x)
        mask = self.sampling_mask
        fits = x.ndim == mask.ndim + 1 and all(
            m in (1, n) for m, n in zip(mask.shape, (x.shape[0], *x.shape[2:]), strict=True)
        )
        if not fits:
            raise ValueError(
                f"Sampling: k-space {tuple(x.shape)} does not fit the sampling mask {tuple(mask.shape)}"
                " (batch, *spatial), expected (batch, coil, *spatial)"
            )
        return torch.where(mask[:, None], x, torch.zeros((), dtype=x.dtype, device=x.device))

    def adjoint(self, y: Tensor) -> Tensor:
        """Return `M y`."""
        return self(y)

    def normal(self, x: Tensor) -> Tensor:
        """Return `M x`: M is a projection."""
        return self(x)

    @property
    def shapes(self) -> Shapes:
        """(batch, coil, *spatial) to the same."""
        kspace = (batch_of(self.sampling_mask), "coil", *spatial_of(self.sampling_mask.shape[1:]))
        return Shapes(kspace, kspace)

    def extra_repr(self) -> str:
        """Return the share of samples that the mask keeps."""
        return sampled_share(self.sampling_mask)


def as_mask(sampling_mask: Tensor | np.ndarray, ndim: int | None = None, device: torch.device | None = None) -> Tensor:
    """Return a mask (batch or 1, *spatial) bool, from NumPy or torch, with missing axes in front as in broadcasting.

    A mask (cols,) becomes (1, ..., 1, cols): lines that are sampled at every position of the other axes and in every
    sample, as `random_mask` and the like return them. With two spatial axes (rows, cols) becomes (1, rows, cols).

    Args:
        sampling_mask: bool or 0/1.
        ndim: number of spatial axes, where it is known. None: one less than the mask has, and two for (cols,).
        device: where the mask is needed; None for where it is.

    Raises:
        TypeError: something else than an array or a tensor.
        ValueError: other values than 0 and 1, no axis or more than ndim + 1.
    """
    if not isinstance(sampling_mask, Tensor | np.ndarray):
        raise TypeError(f"sampling mask: got {type(sampling_mask).__name__}, expected a NumPy array or a tensor")
    mask = sampling_mask
    # a copy: operators must not change with the caller's mask, of which a part of them keeps what they need
    mask = mask.clone() if isinstance(mask, Tensor) else torch.from_numpy(np.array(mask, order="C"))
    axes = ndim if ndim is not None else max(mask.ndim - 1, 2 if mask.ndim == 1 else 1)
    if not 1 <= mask.ndim <= axes + 1:
        spatial = "*spatial" if ndim is None else f"{ndim} spatial axes"
        raise ValueError(
            f"sampling mask: shape {tuple(mask.shape)}, expected (batch or 1, {spatial}), or fewer axes: (cols,)"
        )
    if mask.dtype != torch.bool:
        if not bool(((mask == 0) | (mask == 1)).all()):
            raise ValueError("sampling mask: holds values other than 0 and 1")
        mask = mask != 0
    return mask.reshape(*[1] * (axes + 1 - mask.ndim), *mask.shape).to(device)


def sampled_share(mask: Tensor) -> str:
    """Return the share of samples that a mask keeps, in words; none for a mask without values (device meta)."""
    return "" if mask.is_meta else f"{100 * float(mask.double().mean()):.0f} % sampled"

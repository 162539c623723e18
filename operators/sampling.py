"""Sampling masks as operators on k-space."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from operators.linear import LinearOperator, require_complex


@final
class Sampling(LinearOperator):
    """Diagonal sampling `y = M k`: keeps the measured samples and sets the others to exactly zero.

    M is a projection, so `M^H = M = M^H M`. Zeroing writes +0 (a product would leave the sign of the unseen sample
    in a negative zero).

    Args:
        sampling_mask: (batch or 1, *spatial) bool or 0/1, with size 1 along fully sampled axes; the same for all coils.

    Shapes: k-space (batch, coil, *spatial), complex.
    """

    sampling_mask: Tensor

    def __init__(self, sampling_mask: Tensor) -> None:
        super().__init__()
        self.register_buffer("sampling_mask", checked_mask(sampling_mask), persistent=False)

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


def checked_mask(sampling_mask: Tensor) -> Tensor:
    """Return the mask as bool; raise ValueError when it holds anything but 0 and 1 or has no spatial axis."""
    if sampling_mask.ndim < 2:
        raise ValueError(f"sampling mask: shape {tuple(sampling_mask.shape)}, expected (batch or 1, *spatial)")
    if sampling_mask.dtype != torch.bool:
        if not bool(((sampling_mask == 0) | (sampling_mask == 1)).all()):
            raise ValueError("sampling mask: holds values other than 0 and 1")
        sampling_mask = sampling_mask != 0
    return sampling_mask

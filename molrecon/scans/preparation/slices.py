"""Some slices of a volume that stand for all, and the masks of single ones."""

from __future__ import annotations

from torch import Tensor


def spread(slices: list[int], count: int) -> list[int]:
    """Return at most `count` of the slices, evenly spread."""
    return slices[:: max(1, -(-len(slices) // count))]


def mask_of(sampling_mask: Tensor, k: int) -> Tensor:
    """Return the mask (1, rows or 1, cols) of slice k, of masks (slices or 1, rows or 1, cols)."""
    return sampling_mask if len(sampling_mask) == 1 else sampling_mask[[k]]

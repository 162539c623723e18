"""Cartesian encoding of coil images in pieces that fit the cache, for one set of coil maps or several."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from operators.sampled_fourier import SampledFourier

# Coil images of one chunk: small enough to stay in a core's cache from the first FFT to the coil combination.
CHUNK_BYTES = 2**21
# Without a cache to stay in, a chunk need only be small beside the memory.
DEVICE_CHUNK_BYTES = 2**28
# Coil images transformed at a time by forward and adjoint: the shifts and transforms make several copies of them, and
# in large ones most of the time goes into new pages of memory.
COIL_BYTES = 2**23


def encoded(encoding: SampledFourier, maps: Tensor, x: Tensor, weight: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Return `M F weight(maps, x)`, a few coils at a time so that the copies of the transform stay small."""
    axis = -encoding.ndim - 1
    coil = maps.shape[axis]
    count = _coils_at_a_time(x, x.dtype)
    if count >= coil:
        return encoding(weight(maps, x))
    groups = (encoding(weight(narrowed(maps, axis, start, count), x)) for start in range(0, coil, count))
    if torch.is_grad_enabled() and (x.requires_grad or maps.requires_grad):
        return torch.cat(list(groups), dim=1)
    first = next(groups)
    kspace = first.new_empty(len(x), coil, *first.shape[2:])
    kspace[:, :count] = first
    for start, group in zip(range(count, coil, count), groups, strict=True):
        kspace[:, start : start + count] = group
    return kspace


def decoded(
    encoding: SampledFourier,
    maps: Tensor,
    y: Tensor,
    combine: Callable[[Tensor, Tensor], Tensor],
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Return `combine(maps, F^H M y)`, the adjoint of `encoded`, a few coils at a time, each of them as `dtype`."""
    axis = -encoding.ndim - 1
    coil = maps.shape[axis]
    dtype = dtype or y.dtype
    count = _coils_at_a_time(y[:, 0], dtype)

    def group(start: int) -> Tensor:
        coil_images = encoding.adjoint(narrowed(y, 1, start, count).to(dtype))
        return combine(narrowed(maps, axis, start, count), coil_images)

    image = group(0)
    for start in range(count, coil, count):
        image = image + group(start)
    return image


def chunked_normal(
    encoding: SampledFourier,
    maps: Tensor,
    x: Tensor,
    weight: Callable[[Tensor, Tensor], Tensor],
    combine: Callable[[Tensor, Tensor], Tensor],
    combine_conjugate: Callable[[Tensor, Tensor, Tensor], Tensor],
) -> Tensor:
    """Return `combine(maps, B^H B weight(maps, x))` for B = `encoding`, in chunks of the axes that B^H B keeps apart.

    Args:
        maps: (batch or 1, ..., coil, *spatial), spatial sizes may be 1.
        x: (batch, ..., *spatial).
        weight: from maps and x to coil images (batch, coil, *spatial), position by position.
        combine: from maps and coil images back to the shape of x.
        combine_conjugate: from maps and conjugate coil images, which it may overwrite, to the conjugate of that,
            written to its third argument. Used where no gradient is asked for.
    """
    limit = CHUNK_BYTES if x.device.type == "cpu" else DEVICE_CHUNK_BYTES
    coil = maps.shape[-encoding.ndim - 1]

    def chunk(tensors: tuple[Tensor, ...], axes: Sequence[int], leaf: Callable[..., Tensor], join: bool) -> Tensor:
        """Return `leaf` of the tensors, the first of which is an image, in chunks of the axes, joined or the last."""
        image = tensors[0]
        size = image.numel() * coil * image.element_size()
        axes = [axis for axis in axes if image.shape[axis] > 1]
        if size <= limit or not axes:
            return leaf(*tensors)
        n = image.shape[axes[0]]
        step = max(1, limit * n // size)
        cuts = (tuple(narrowed(tensor, axes[0], start, step) for tensor in tensors) for start in range(0, n, step))
        pieces = [chunk(cut, axes[1:], leaf, join) for cut in cuts]
        return torch.cat(pieces, dim=axes[0]) if join else image

    axes = (*encoding.separate, 0)
    if torch.is_grad_enabled() and (x.requires_grad or maps.requires_grad):
        return chunk(
            (x, maps, encoding.weights), axes, lambda x, s, w: combine(s, encoding.project(weight(s, x), w)), True
        )
    image = x.new_empty(x.shape, dtype=torch.promote_types(x.dtype, maps.dtype))

    def coils(out: Tensor, x: Tensor, maps: Tensor, weights: Tensor) -> Tensor:
        return combine_conjugate(maps, encoding.project_conjugate(weight(maps, x), weights), out)

    def leaf(out: Tensor, x: Tensor, maps: Tensor, weights: Tensor) -> Tensor:
        # Volumes that are undersampled along all axes cannot be cut: what is left is a few coils at a time.
        count = max(1, DEVICE_CHUNK_BYTES // (out.numel() * out.element_size()))
        if count >= coil:
            return coils(out, x, maps, weights)
        axis = -encoding.ndim - 1
        group = torch.empty_like(out)
        coils(out, x, narrowed(maps, axis, 0, count), weights)
        for start in range(count, coil, count):
            out.add_(coils(group, x, narrowed(maps, axis, start, count), weights))
        return out

    chunk((image, x, maps, encoding.conjugating_weights(image.dtype)), axes, leaf, False)
    return image.conj_physical_()


def positions_apart(encoding: SampledFourier, maps: Tensor, positions: slice, batch: int) -> tuple[Tensor, Tensor, int]:
    """Return maps, mask and fourier_ndim of the problems of some positions along the first spatial axis, as a batch.

    The axis is one that A^H A does not mix. Maps (batch or 1, ..., *spatial) become (batch n, ..., *rest), or
    (1, ..., *rest) where they are the same for all; so does the mask.
    """
    count = positions.stop - positions.start

    def apart(tensor: Tensor) -> Tensor:
        """(batch or 1, n or 1, ...) to (batch n, ...), or (1, ...) when it is the same for all."""
        tensor = narrowed(tensor, 1, positions.start, count)
        if tensor.shape[:2] == (1, 1):
            return tensor[:, 0]
        return tensor.expand(batch, count, *tensor.shape[2:]).flatten(0, 1).contiguous()

    mask = encoding.sampling.sampling_mask
    if encoding.fourier_ndim == encoding.ndim:  # a Fourier axis, along which the mask does not vary
        mask = mask[:, :1]
    return apart(maps.movedim(-encoding.ndim, 1)), apart(mask), min(encoding.fourier_ndim, encoding.ndim - 1)


def narrowed(tensor: Tensor, axis: int, start: int, count: int) -> Tensor:
    """Return at most `count` positions of an axis from `start`, or the tensor itself where it has but one."""
    n = tensor.shape[axis]
    return tensor if n == 1 else tensor.narrow(axis, start, min(count, n - start))


def _coils_at_a_time(one_coil: Tensor, dtype: torch.dtype) -> int:
    limit = COIL_BYTES if one_coil.device.type == "cpu" else DEVICE_CHUNK_BYTES
    return max(1, limit // max(1, one_coil.numel() * dtype.itemsize))

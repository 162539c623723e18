"""Multi-coil Cartesian MRI, `A = M F S`, with a normal operator that costs what the sampling costs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import final

import numpy as np
import torch
from torch import Tensor

from operators.fourier import Fourier
from operators.linear import LinearOperator, require_complex
from operators.sampled_fourier import SampledFourier
from operators.sampling import Sampling, as_mask
from operators.sensitivity import Sensitivity, broadcasts, combine, combine_conjugate, weight
from operators.shapes import Shapes, batch_of, dtype_name, spatial_of

# Coil images of one chunk: small enough to stay in a core's cache from the first FFT to the coil combination.
CHUNK_BYTES = 2**21
# Without a cache to stay in, a chunk need only be small beside the memory.
DEVICE_CHUNK_BYTES = 2**28
# Coil images transformed at a time by forward and adjoint: the shifts and transforms make several copies of them, and
# in large ones most of the time goes into new pages of memory.
COIL_BYTES = 2**23


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


def encoded(encoding: SampledFourier, maps: Tensor, x: Tensor, weight: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Return `M F weight(maps, x)`, a few coils at a time so that the copies of the transform stay small."""
    axis = -encoding.ndim - 1
    coil = maps.shape[axis]
    count = _coils_at_a_time(x, x.dtype)
    if count >= coil:
        return encoding(weight(maps, x))
    groups = (encoding(weight(part(maps, axis, start, count), x)) for start in range(0, coil, count))
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
        coil_images = encoding.adjoint(part(y, 1, start, count).to(dtype))
        return combine(part(maps, axis, start, count), coil_images)

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
        cuts = (tuple(part(tensor, axes[0], start, step) for tensor in tensors) for start in range(0, n, step))
        parts = [chunk(cut, axes[1:], leaf, join) for cut in cuts]
        return torch.cat(parts, dim=axes[0]) if join else image

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
        coils(out, x, part(maps, axis, 0, count), weights)
        for start in range(count, coil, count):
            out.add_(coils(group, x, part(maps, axis, start, count), weights))
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
        tensor = part(tensor, 1, positions.start, count)
        if tensor.shape[:2] == (1, 1):
            return tensor[:, 0]
        return tensor.expand(batch, count, *tensor.shape[2:]).flatten(0, 1).contiguous()

    mask = encoding.sampling.sampling_mask
    if encoding.fourier_ndim == encoding.ndim:  # a Fourier axis, along which the mask does not vary
        mask = mask[:, :1]
    return apart(maps.movedim(-encoding.ndim, 1)), apart(mask), min(encoding.fourier_ndim, encoding.ndim - 1)


def part(tensor: Tensor, axis: int, start: int, count: int) -> Tensor:
    """Return at most `count` positions of an axis from `start`, or the tensor itself where it has but one."""
    n = tensor.shape[axis]
    return tensor if n == 1 else tensor.narrow(axis, start, min(count, n - start))


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


def _coils_at_a_time(one_coil: Tensor, dtype: torch.dtype) -> int:
    limit = COIL_BYTES if one_coil.device.type == "cpu" else DEVICE_CHUNK_BYTES
    return max(1, limit // max(1, one_coil.numel() * dtype.itemsize))

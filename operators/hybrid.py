"""A fully sampled readout needs no reconstruction: cut it to the object in the image, exactly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from operators.coil_chunks import narrowed
from operators.fourier import centred_fft, centred_ifft
from operators.linear import require_complex
from operators.sense import Sense, check_kspace
from operators.soft_sense import SoftSense


@final
@dataclass(frozen=True, eq=False)
class Hybrid:
    """The problem of the central rows of the image, equivalent to the full one, and the way back.

    Attributes:
        kspace: (batch, coil, ..., rows, ...) of the central rows, zero frequency in the middle.
        operator: the acquisition of these rows, of the kind that was given.
        full_rows: samples of the readout as measured.
        axis: the readout as an axis of image and k-space, negative.
    """

    kspace: Tensor
    operator: Sense | SoftSense
    full_rows: int
    axis: int

    def embed(self, image: Tensor) -> Tensor:
        """Return the image (batch, ..., rows, ...) on the full readout field of view, zero outside the central rows."""
        return _embed(image, self.full_rows, self.axis)


def hybrid(kspace: Tensor, operator: Sense | SoftSense, rows: int) -> Hybrid:
    """Return the equivalent problem of the central `rows` rows of the image.

    The readout, the first Fourier axis, is fully sampled, so `A^H A` does not mix its positions: the inverse FFT along
    it splits `A x = b` into one problem per row. The rows outside the object, those of readout oversampling in the
    first place, are dropped, and the rows kept are transformed back to a shorter readout. With P the crop of the image,
    `A' P = (the same crop of the coil images in k-space) A` and `A'^H A' P = P A^H A`, to rounding: any reconstruction
    that treats rows separately (CG-SENSE) gives the central rows of its full result. The noise level of k-space stays
    as it is.

    Args:
        kspace: (batch, coil, *spatial) complex, zero frequency in the middle.
        operator: the acquisition; its first Fourier axis (rows in 2D and 2D+time, the first axis in 3D) is fully
            sampled.
        rows: readout positions to keep, from `(full - rows) // 2` on.

    Raises:
        ValueError: an undersampled readout, more rows than there are, k-space and operator that do not fit.
        TypeError: real k-space.
    """
    encoding = operator.encoding
    axis = -encoding.fourier_ndim
    if axis in encoding.undersampled:
        raise ValueError(
            f"hybrid: the sampling mask {tuple(operator.sampling_mask.shape)} varies along the readout (axis {axis}),"
            " expected it fully sampled"
        )
    maps = operator.sensitivity_maps
    layout = "(batch, coil, *spatial)" if isinstance(operator, Sense) else "(batch, set, coil, *spatial)"
    check_kspace("hybrid", kspace, maps, layout)
    full = kspace.shape[axis]
    cropped = crop_readout(kspace, rows, axis)
    maps = narrowed(maps, axis, first_row(full, rows), rows)
    mask = operator.sampling_mask.narrow(axis, 0, 1)
    return Hybrid(cropped, type(operator)(maps, mask, encoding.fourier_ndim), full, axis)


def crop_readout(kspace: Tensor, rows: int, axis: int = -2) -> Tensor:
    """Return k-space whose image is the central `rows` positions of the image of `kspace` along `axis`.

    The orthonormal transforms leave the units of the image, and the noise level of k-space, as they are. For samples
    that are independent along the axis, measured or zero: `axis` must be fully sampled.

    Args:
        kspace: (batch, ...) complex, zero frequency in the middle.
        rows: positions to keep, from `first_row` on.
        axis: the readout, negative.

    Raises:
        ValueError: fewer than one or more than all positions.
        TypeError: real k-space.
    """
    require_complex("crop_readout", "k-space", kspace)
    if not -kspace.ndim < axis < 0:
        raise ValueError(f"crop_readout: axis is {axis}, expected -1 to {1 - kspace.ndim}, behind the batch")
    start = first_row(kspace.shape[axis], rows)
    shape = list(kspace.shape)
    shape[axis] = rows
    cropped = kspace.new_empty(shape)
    for one, out in zip(kspace, cropped, strict=True):  # one by one: the transforms need several copies
        out.copy_(centred_fft(centred_ifft(one, (axis,)).narrow(axis, start, rows), (axis,)))
    return cropped


def embed_readout(kspace: Tensor, full: int, axis: int = -2) -> Tensor:
    """Return k-space with `full` readout positions whose image is zero outside the central ones.

    `crop_readout` of it gives `kspace` back; they are adjoint to each other.

    Args:
        kspace: (batch, ...) complex, zero frequency in the middle, of the central positions.
        full: positions of the whole readout.
        axis: the readout, negative.

    Raises:
        ValueError: fewer positions than there are.
        TypeError: real k-space.
    """
    require_complex("embed_readout", "k-space", kspace)
    return centred_fft(_embed(centred_ifft(kspace, (axis,)), full, axis), (axis,))


def first_row(full: int, rows: int) -> int:
    """Return where the central `rows` of `full` positions begin, `(full - rows) // 2` as fastMRI crops."""
    if not 1 <= rows <= full:
        raise ValueError(f"crop_readout: {rows} rows, expected 1 to {full}")
    return (full - rows) // 2


def _embed(image: Tensor, full: int, axis: int) -> Tensor:
    rows = image.shape[axis]
    before = first_row(full, rows)
    shape = list(image.shape)

    def zeros(n: int) -> Tensor:
        shape[axis] = n
        return image.new_zeros(shape)

    return torch.cat((zeros(before), image, zeros(full - rows - before)), dim=axis)

"""Coil sensitivity maps as operators: one set, or several with an image for each."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from operators.linear import LinearOperator, require_complex
from operators.shapes import Shapes, batch_of, dtype_name, spatial_of


@final
class Sensitivity(LinearOperator):
    """Coil weighting `(S x)_c = s_c x`, with adjoint `S^H y = sum_c conj(s_c) y_c`.

    Args:
        sensitivity_maps: (batch or 1, coil, *spatial) complex, with size 1 along axes that share one set of maps
            (time).

    Shapes: image (batch, *spatial), coil images (batch, coil, *spatial), complex.
    """

    sensitivity_maps: Tensor

    def __init__(self, sensitivity_maps: Tensor) -> None:
        super().__init__()
        require_complex("Sensitivity", "sensitivity maps", sensitivity_maps)
        if sensitivity_maps.ndim < 3 or 0 in sensitivity_maps.shape:
            raise ValueError(
                f"Sensitivity: maps {tuple(sensitivity_maps.shape)}, expected a non-empty (batch, coil, *spatial)"
            )
        self.register_buffer("sensitivity_maps", sensitivity_maps, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the coil images `s_c x`."""
        self.check_image(x)
        return weight(self.sensitivity_maps, x)

    def adjoint(self, y: Tensor) -> Tensor:
        """Return the coil combination `sum_c conj(s_c) y_c`."""
        self.check_coil_images(y)
        return combine(self.sensitivity_maps, y)

    def check_image(self, x: Tensor) -> None:
        """Raise unless x is an image (batch, *spatial) that the maps fit."""
        require_complex("Sensitivity", "image", x)
        maps = self.sensitivity_maps
        if not broadcasts((maps.shape[0], *maps.shape[2:]), tuple(x.shape)):
            raise ValueError(
                f"Sensitivity: image {tuple(x.shape)} does not fit sensitivity maps {tuple(maps.shape)}"
                " (batch, coil, *spatial)"
            )

    def check_coil_images(self, y: Tensor) -> None:
        """Raise unless y holds coil images (batch, coil, *spatial) that the maps fit."""
        require_complex("Sensitivity", "coil images", y)
        maps = self.sensitivity_maps
        if not broadcasts(tuple(maps.shape), tuple(y.shape)) or y.shape[1] != maps.shape[1]:
            raise ValueError(
                f"Sensitivity: coil images {tuple(y.shape)} do not fit sensitivity maps {tuple(maps.shape)}"
                " (batch, coil, *spatial)"
            )

    @property
    def shapes(self) -> Shapes:
        """Image (batch, *spatial) to coil images (batch, coil, *spatial)."""
        maps = self.sensitivity_maps
        batch, spatial = batch_of(maps), spatial_of(maps.shape[2:])
        return Shapes((batch, *spatial), (batch, maps.shape[1], *spatial))

    def extra_repr(self) -> str:
        """Return the dtype of the maps."""
        return dtype_name(self.sensitivity_maps)


@final
class SoftSensitivity(LinearOperator):
    """Coil weighting by several sets of maps, `(S x)_c = sum_k s_kc x_k`, with adjoint `sum_c conj(s_kc) y_c`.

    Args:
        sensitivity_maps: (batch or 1, set, coil, *spatial) complex.

    Shapes: images (batch, set, *spatial), coil images (batch, coil, *spatial), complex.

    Raises:
        ValueError: shapes that do not fit.
        TypeError: real input.
    """

    sensitivity_maps: Tensor

    def __init__(self, sensitivity_maps: Tensor) -> None:
        super().__init__()
        require_complex("SoftSensitivity", "sensitivity maps", sensitivity_maps)
        if sensitivity_maps.ndim < 4 or 0 in sensitivity_maps.shape:
            raise ValueError(
                f"SoftSensitivity: maps {tuple(sensitivity_maps.shape)}, expected a non-empty (batch, set, coil,"
                " *spatial)"
            )
        self.register_buffer("sensitivity_maps", sensitivity_maps, persistent=False)

    @property
    def sets(self) -> int:
        """The number of sets, and of images that make one sample."""
        return self.sensitivity_maps.shape[1]

    def forward(self, x: Tensor) -> Tensor:
        """Return the coil images `sum_k s_kc x_k`."""
        self.check_image(x)
        return weight_sets(self.sensitivity_maps, x)

    def adjoint(self, y: Tensor) -> Tensor:
        """Return `sum_c conj(s_kc) y_c` for each set k."""
        require_complex("SoftSensitivity", "coil images", y)
        maps = self.sensitivity_maps
        if not broadcasts((maps.shape[0], *maps.shape[2:]), tuple(y.shape)) or y.shape[1] != maps.shape[2]:
            raise ValueError(
                f"SoftSensitivity: coil images {tuple(y.shape)} do not fit sensitivity maps {tuple(maps.shape)} (batch,"
                " set, coil, *spatial), expected (batch, coil, *spatial)"
            )
        return combine_sets(maps, y)

    def check_image(self, x: Tensor) -> None:
        """Raise unless x holds images (batch, set, *spatial) that the maps fit."""
        require_complex("SoftSensitivity", "image", x)
        maps = self.sensitivity_maps
        if not broadcasts((*maps.shape[:2], *maps.shape[3:]), tuple(x.shape)) or x.shape[1] != maps.shape[1]:
            raise ValueError(
                f"SoftSensitivity: image {tuple(x.shape)} does not fit sensitivity maps {tuple(maps.shape)} (batch,"
                " set, coil, *spatial), expected (batch, set, *spatial)"
            )

    @property
    def shapes(self) -> Shapes:
        """Images (batch, set, *spatial) to coil images (batch, coil, *spatial)."""
        maps = self.sensitivity_maps
        batch, spatial = batch_of(maps), spatial_of(maps.shape[3:])
        return Shapes((batch, maps.shape[1], *spatial), (batch, maps.shape[2], *spatial))

    def extra_repr(self) -> str:
        """Return the dtype of the maps."""
        return dtype_name(self.sensitivity_maps)


def weight(maps: Tensor, x: Tensor) -> Tensor:
    """Return `s_c x`, (batch, coil, *spatial), for maps (batch or 1, coil, *spatial)."""
    return maps * x[:, None]


def combine(maps: Tensor, y: Tensor) -> Tensor:
    """Return `sum_c conj(s_c) y_c`, (batch, *spatial), for maps (batch or 1, coil, *spatial)."""
    dtype = torch.promote_types(maps.dtype, y.dtype)
    return torch.linalg.vecdot(maps.to(dtype), y.to(dtype), dim=1)


def weight_sets(maps: Tensor, x: Tensor) -> Tensor:
    """Return `sum_k s_kc x_k`, (batch, coil, *spatial), for maps (batch or 1, set, coil, *spatial).

    One set comes after the other: no product of all sets is held.
    """
    total = maps[:, 0] * x[:, 0, None]
    for k in range(1, maps.shape[1]):
        total = total + maps[:, k] * x[:, k, None]
    return total


def combine_sets(maps: Tensor, y: Tensor) -> Tensor:
    """Return `sum_c conj(s_kc) y_c`, (batch, set, *spatial)."""
    return torch.stack([combine(one, y) for one in maps.unbind(1)], dim=1)


def combine_conjugate(maps: Tensor, y: Tensor, out: Tensor) -> Tensor:
    """Write `sum_c s_c y_c` to `out`, and return it, overwriting y (batch, coil, *spatial)."""
    # summed as real numbers: torch's complex sum is many times slower
    return out.copy_(torch.view_as_complex(torch.view_as_real(y.mul_(maps)).sum(1)))


def coil_norm(coil_images: Tensor, dim: int) -> Tensor:
    """Return the root sum of squares `sqrt(sum_c |y_c|^2)` of complex y (..., coil, ...) over `dim`, that of the coils.

    Args:
        dim: not negative.
    """
    # coil after coil, as real numbers: torch's norm of complex numbers takes thirty times as long
    first, *others = torch.view_as_real(coil_images.resolve_conj()).unbind(dim)
    squares = first.square()
    for one in others:
        squares = squares.addcmul_(one, one)
    return squares.sum(-1).sqrt()


def broadcasts(sizes: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    """Tell whether a tensor of `sizes` broadcasts to `shape`, axis by axis: each size equal, or 1."""
    return len(sizes) == len(shape) and all(m in (1, n) for m, n in zip(sizes, shape, strict=True))

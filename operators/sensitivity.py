"""Coil sensitivity maps as an operator."""

from __future__ import annotations

from typing import final

from torch import Tensor

from operators.linear import LinearOperator, require_complex


@final
class Sensitivity(LinearOperator):
    """Coil weighting `(S x)_c = s_c x`, with adjoint `S^H y = sum_c conj(s_c) y_c`.

    Args:
        sensitivity_maps: (batch or 1, coil, *spatial) complex.

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
        require_complex("Sensitivity", "image", x)
        maps = self.sensitivity_maps
        if x.shape[1:] != maps.shape[2:] or maps.shape[0] not in (1, x.shape[0]):
            raise ValueError(
                f"Sensitivity: image {tuple(x.shape)} does not fit sensitivity maps {tuple(maps.shape)}"
                " (batch, coil, *spatial)"
            )
        return maps * x[:, None]

    def adjoint(self, y: Tensor) -> Tensor:
        """Return the coil combination `sum_c conj(s_c) y_c`."""
        require_complex("Sensitivity", "coil images", y)
        maps = self.sensitivity_maps
        if y.shape[1:] != maps.shape[1:] or maps.shape[0] not in (1, y.shape[0]):
            raise ValueError(
                f"Sensitivity: coil images {tuple(y.shape)} do not fit sensitivity maps {tuple(maps.shape)}"
                " (batch, coil, *spatial)"
            )
        return (maps.conj() * y).sum(1)

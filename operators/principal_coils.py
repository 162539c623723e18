"""The same acquisition as its few strongest virtual coils see it: a cheaper operator that is close to the first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from operators.compression import mix_coils
from operators.linear import LinearOperator
from operators.sense import Sense
from operators.soft_sense import SoftSense

COILS = 8  # of 15 simulated coils they hold 99.8 % of the maps' energy
MOST_BYTES = 2**28  # of all maps: a second copy of a large volume's would not be small beside the data


@final
@dataclass(frozen=True, eq=False)
class PrincipalCoils:
    """An operator with fewer coils, and how its coils were mixed.

    Attributes:
        operator: `A' = M F W S`, W the mixing; A itself where there is nothing to gain.
        matrix: W (batch or 1, virtual coil, coil), orthonormal rows; None: all coils as they are.
    """

    operator: LinearOperator
    matrix: Tensor | None = None

    def mixed(self, kspace: Tensor) -> Tensor:
        """Return `W b` (batch, virtual coil, *spatial), the data of the operator."""
        return kspace if self.matrix is None else mix_coils(self.matrix, kspace)


def principal_coils(operator: LinearOperator, count: int = COILS) -> PrincipalCoils:
    """Return the acquisition by the `count` virtual coils that hold most of the energy of the sensitivity maps.

    W are the first eigenvectors of the maps' Gram matrix (coil, coil), summed over all pixels and sets, of each sample.
    Mixing commutes with transform and sampling, so `A'^H A'` is `A^H A` less the energy of the coils left out. It does
    not see the data: for data of such coils use `compression.virtual_coils`.

    Cartesian operators of `count` coils or fewer, those whose maps are larger than MOST_BYTES, and all other operators
    are returned as they are. The mixing is held fixed where a gradient flows to the maps.
    """
    if not isinstance(operator, Sense | SoftSense):
        return PrincipalCoils(operator)
    maps, ndim = operator.sensitivity_maps, operator.encoding.ndim
    coil_axis = maps.ndim - ndim - 1
    if maps.shape[coil_axis] <= count or maps.numel() * maps.element_size() > MOST_BYTES:
        return PrincipalCoils(operator)
    coil_first = maps.movedim(coil_axis, 1).contiguous()
    with torch.no_grad():
        rows = coil_first.flatten(2)  # (batch, coil, set and pixels)
        gram = (rows @ rows.mH).to(torch.complex128)
        matrix = torch.linalg.eigh(gram).eigenvectors[..., -count:].mH.to(maps.dtype)
    sets = mix_coils(matrix, coil_first).movedim(1, coil_axis).contiguous()
    return PrincipalCoils(type(operator)(sets, operator.sampling_mask, operator.encoding.fourier_ndim), matrix)

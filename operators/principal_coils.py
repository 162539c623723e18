"""The same acquisition as its strongest virtual coils see it: a cheaper operator that is close."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from operators.compression import mix_coils
from operators.linear import LinearOperator
from operators.sense import Sense
from operators.soft_sense import SoftSense

FEWEST = 8  # virtual coils: of the maps of 15 simulated ones they hold 99.8 % of the energy
SHARE = 0.99  # of the energy of the maps, at least
MOST_BYTES = 2**28  # of a sample's maps: a second copy of a large volume's would not be small beside the data


@final
@dataclass(frozen=True, eq=False)
class PrincipalCoils:
    """An operator with fewer coils, and how its coils were mixed.

    Attributes:
        operator: `A' = M F W S`, W the mixing; A itself where there is nothing to gain.
        matrix: W (batch or 1, virtual coil, coil), orthonormal rows, or rows of zeros in samples that need fewer coils
            than others; None: all coils as they are.
    """

    operator: LinearOperator
    matrix: Tensor | None = None

    def mixed(self, kspace: Tensor) -> Tensor:
        """Return `W b` (batch, virtual coil, *spatial), the data of the operator."""
        return kspace if self.matrix is None else mix_coils(self.matrix, kspace)


def principal_coils(operator: LinearOperator) -> PrincipalCoils:
    """Return the acquisition by the virtual coils that hold most of the energy of the sensitivity maps.

    W are the first eigenvectors of the maps' Gram matrix (coil, coil), summed over all pixels and sets, of each sample:
    as few as hold SHARE of the energy, but FEWEST at least. Mixing commutes with transform and sampling, so `A'^H A'`
    is `A^H A` less the energy of the coils left out. It does not see the data: to compress these, use
    `compression.virtual_coils`.

    Cartesian operators of FEWEST coils or fewer, those with larger maps than MOST_BYTES a sample, and all other
    operators are returned as they are. The mixing is held fixed where a gradient flows to the maps.
    """
    if not isinstance(operator, Sense | SoftSense):
        return PrincipalCoils(operator)
    maps = operator.sensitivity_maps
    coil_axis = maps.ndim - operator.encoding.ndim - 1
    if maps.shape[coil_axis] <= FEWEST or maps[0].numel() * maps.element_size() > MOST_BYTES:
        return PrincipalCoils(operator)
    coil_first = maps.movedim(coil_axis, 1).contiguous()
    matrix = _mixing(coil_first)
    sets = mix_coils(matrix, coil_first).movedim(1, coil_axis).contiguous()
    return PrincipalCoils(type(operator)(sets, operator.sampling_mask, operator.encoding.fourier_ndim), matrix)


@torch.no_grad()
def _mixing(maps: Tensor) -> Tensor:
    """Return W (batch, virtual coil, coil) of maps (batch, coil, ...)."""
    rows = maps.flatten(2)
    energies, vectors = torch.linalg.eigh((rows @ rows.mH).to(torch.complex128))
    energies, matrix = energies.flip(-1).clamp_min(0), vectors.flip(-1).mH
    before = energies.cumsum(-1) - energies  # what the stronger ones hold
    needed = before < SHARE * energies.sum(-1, keepdim=True)
    needed[:, :FEWEST] = True
    count = int(needed.sum(-1).max())
    return (matrix * needed[..., None])[:, :count].to(maps.dtype)

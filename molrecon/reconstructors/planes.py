"""A method of planes on volumes and series, one plane after the other: what may guide a model that sees them whole."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, final

import torch
from torch import Tensor

from molrecon.reconstructors.base import Reconstructor
from molrecon.reconstructors.certificate import Certificate
from molrecon.reconstructors.conditioning import Conditioning, condition
from molrecon.reconstructors.learned import LearnedReconstructor
from molrecon.solvers.batched import norm
from molrecon.solvers.solution import Solution
from molrecon.solvers.solver_settings import SolverSettings
from operators import LinearOperator, Sense, SoftSense, centred_ifft


@final
class PlaneByPlane(Reconstructor):
    """The images of a method of planes at each position of the first axis, which A^H A does not mix.

    That axis is the fully sampled readout of a volume, or the time of a series. As an equilibrium it is one with a
    network that acts on each plane by itself: a block-diagonal H, whose Lipschitz constant is that of a block.

    Args:
        planes: the method.

    Shapes: k-space (batch, coil, positions, rows, cols), image (batch, positions, rows, cols), complex; with several
    sets of maps (batch, set, positions, rows, cols).

    Raises:
        ValueError: a method of other than two axes; called on a scan whose first axis is undersampled.
    """

    ndim = 3

    def __init__(self, planes: LearnedReconstructor) -> None:
        super().__init__()
        if planes.ndim != 2:
            raise ValueError(f"PlaneByPlane: {type(planes).__name__} has {planes.ndim} axes, expected one of planes")
        self.planes = planes
        self.takes_sets = planes.takes_sets
        self.solver = planes.solver

    @property
    def phase_reference(self) -> bool:
        """Whether the network sees the image without its smooth phase, see `Conditioning`."""
        return self.planes.phase_reference

    def settings(self) -> dict[str, Any]:
        """Return the constructor's argument."""
        return {"planes": self.planes}

    def certificate(self) -> Certificate:
        """Return that of the method of planes, which holds for all of them together."""
        return self.planes.certificate()

    def condition(
        self, kspace: Tensor, operator: LinearOperator, noise_level: float | Tensor | None = None
    ) -> Conditioning:
        """Return scale, relative noise level and smooth phase of all planes together, see `conditioning.condition`."""
        return condition(kspace, operator, noise_level, phase_reference=self.phase_reference)

    def _solve(
        self,
        kspace: Tensor,
        operator: LinearOperator,
        conditioning: Conditioning | None,
        start: Tensor | None,
        solver: SolverSettings | None,
    ) -> Solution:
        if not isinstance(operator, Sense | SoftSense) or operator.encoding.ndim != 3:
            raise ValueError(f"PlaneByPlane: {operator}, expected Sense or SoftSense of three spatial axes")
        if -3 in operator.encoding.undersampled:
            raise ValueError(
                "PlaneByPlane: the first of the three axes is undersampled, expected time or a fully sampled readout:"
                " a 3D scan is for a model of planes, such as mol-guided-2d, which takes it apart along its readout"
            )
        whole = conditioning or self.condition(kspace, operator)
        batch, positions = len(kspace), kspace.shape[2]
        if operator.encoding.fourier_ndim == 3:
            kspace = centred_ifft(kspace, (2,))
        found = []
        for k in range(positions):
            found.append(
                self.planes(
                    kspace[:, :, k],
                    operator.decoupled(k, k + 1, batch),
                    conditioning=replace(whole, phase=whole.phase.select(-3, k), guide=None),
                    start=None if start is None else start.select(-3, k),
                    solver=solver,
                )
            )
        return _joined(found)


def _joined(planes: list[Solution]) -> Solution:
    """Return the solution of all planes together; its bound is that of all of them."""
    value = torch.stack([plane.value for plane in planes], -3)
    tiny = torch.finfo(value.dtype).tiny  # what a bound is relative to where the image is zero
    errors = torch.stack([plane.error_bound * norm(plane.value.detach()).clamp_min(tiny) for plane in planes])
    bound = torch.linalg.vector_norm(errors, dim=0) / norm(value.detach()).clamp_min(tiny)
    return Solution(
        value,
        bound,
        bound[None],
        torch.stack([plane.converged for plane in planes]).all(0),
        torch.stack([plane.n_steps for plane in planes]).amax(0),
        kind=planes[0].kind,
    )

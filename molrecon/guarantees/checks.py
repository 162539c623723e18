"""Whether a model keeps, on a given scan, what its certificate promises. Each check says what it tried and found.

A check can refute a certificate and never prove one: certificates are proofs, or only claims
(`molrecon.reconstructors.certificate`).
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from itertools import combinations
from typing import final

import torch
from torch import Tensor

from molrecon.guarantees.estimates import (
    LipschitzEstimate,
    MonotonicityEstimate,
    local_lipschitz,
    local_monotonicity,
    neighbours,
)
from molrecon.reconstructors.classical import CGSense
from molrecon.reconstructors.conditioning import Conditioning
from molrecon.reconstructors.mol import MOL
from molrecon.solvers.batched import norm, per_sample
from molrecon.solvers.conjugate_gradient import conjugate_gradient
from molrecon.solvers.solution import Solution
from molrecon.solvers.solver_settings import SolverSettings
from operators import LinearOperator

ROUNDING = 1e-6  # relative slack of comparisons in double precision; of the inner solves of `check_decrease`, too


@final
@dataclass(frozen=True)
class EquilibriumCheck:
    """Solves from different starts. `excess` is the largest `(|x_i - x_j| - e_i - e_j) / |x_i|` of two of them, e their
    error bounds: positive only if there are two equilibria or a bound is wrong. `distance` is that pair's relative
    distance, `n_steps` the iterations from each start (of the slowest sample).
    """

    starts: tuple[str, ...]
    distance: float
    excess: float
    converged: bool
    n_steps: tuple[int, ...]

    @property
    def violated(self) -> bool:
        """Whether some pair lies farther apart than the error bounds allow."""
        return self.excess > ROUNDING


@final
@dataclass(frozen=True)
class DecreaseCheck:
    """The factors `|r(x_k+1)| / |r(x_k)|` of the error bound in plain iterations, against the promised q."""

    promised: float
    worst: float
    n_steps: int

    @property
    def violated(self) -> bool:
        """Whether one step decreased the bound by less than promised, inexact inner solves allowed for."""
        return self.worst > self.promised * (1 + ROUNDING) + 2 * ROUNDING


def double_precision(model: MOL, conditioning: Conditioning) -> tuple[MOL, Conditioning]:
    """Return copies in double precision, the model in evaluation mode, for comparisons without rounding."""
    phase = conditioning.phase.to(torch.complex128)
    guide = None if conditioning.guide is None else conditioning.guide.double()
    exact = Conditioning(
        conditioning.scale.double(), conditioning.noise_level.double(), phase / phase.abs(), guide=guide
    )
    return copy.deepcopy(model).double().eval(), exact


@torch.no_grad()
def starting_images(
    kspace: Tensor, operator: LinearOperator, conditioning: Conditioning, seed: int
) -> dict[str, Tensor]:
    """Return first iterates as different as possible, by name, each (batch, *spatial): zero, the CG-SENSE image, noise,
    another image (CG-SENSE upside down), and noise a thousand times as large as the image.
    """
    sense = CGSense()(kspace, operator, solver=SolverSettings(max_steps=30)).value
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(sense.shape, dtype=sense.dtype, generator=generator).to(sense.device)
    noise = per_sample(conditioning.scale, sense) * noise
    return {
        "zero": torch.zeros_like(sense),
        "CG-SENSE": sense,
        "noise": noise,
        "another image": sense.flip(tuple(range(1, sense.ndim))),
        "huge": 1e3 * noise,
    }


@torch.no_grad()
def check_equilibrium(
    model: MOL, kspace: Tensor, operator: LinearOperator, conditioning: Conditioning, *, seed: int = 0
) -> EquilibriumCheck:
    """Solve from each of `starting_images` to the model's tolerance and compare every pair of results.

    Starts far away are given four times the model's iterations.
    """
    patient = replace(model.solver, max_steps=4 * model.solver.max_steps)
    starts = starting_images(kspace, operator, conditioning, seed)
    solutions = [
        model(kspace, operator, conditioning=conditioning, start=start, solver=patient) for start in starts.values()
    ]
    distances, excesses = [], []
    for one, other in combinations(solutions, 2):
        distance = norm(one.value - other.value)
        size = norm(one.value).clamp_min(torch.finfo(distance.dtype).tiny)
        distances.append(distance / size)
        excesses.append((distance - absolute_error(one) - absolute_error(other)) / size)
    worst = int(torch.stack(excesses).argmax())
    return EquilibriumCheck(
        starts=tuple(starts),
        distance=float(torch.stack(distances).flatten()[worst]),
        excess=float(torch.stack(excesses).flatten()[worst]),
        converged=all(bool(s.converged.all()) for s in solutions),
        n_steps=tuple(int(s.n_steps.max()) for s in solutions),
    )


@torch.no_grad()
def check_decrease(
    model: MOL,
    kspace: Tensor,
    operator: LinearOperator,
    conditioning: Conditioning,
    *,
    n_steps: int = 10,
    seed: int = 0,
) -> DecreaseCheck:
    """Run the plain iteration with nearly exact inner solves, from the zero-filled image and from noise.

    `r(x_k+1) = H(x_k+1) - H(x_k)` for exact ones, so `|r|`, and with it the error bound `|r| / m`, falls at least by
    q = Lip(H) a step. This is computed here afresh, in double precision, by none of the solver's code.
    """
    promised = model.certificate().contraction
    model, conditioning = double_precision(model, conditioning)
    denoise = conditioning.denoiser(model.network)
    scale = per_sample(conditioning.scale, conditioning.phase)
    weight = per_sample(model.data_weight(conditioning.noise_level), conditioning.phase)
    right_side = weight * operator.adjoint(kspace.to(torch.complex128)) / scale

    def regularised(x: Tensor) -> Tensor:
        return x + weight * operator.normal(x)

    worst = 0.0
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(right_side.shape, dtype=right_side.dtype, generator=generator).to(right_side.device)
    for start in (right_side / weight, noise):
        x, last = start, None
        for _ in range(n_steps + 1):
            residual = denoise(x) + right_side - regularised(x)
            size = norm(residual)
            if last is not None:
                settled = last <= 1e-9 * norm(x)
                worst = max(worst, float(torch.where(settled, 0.0, size / last).max()))
            last = size
            x = x + conjugate_gradient(regularised, residual, tol=ROUNDING, max_steps=500, verify=False).value
    return DecreaseCheck(promised, worst, n_steps)


def check_locally(
    model: MOL,
    image: Tensor,
    conditioning: Conditioning,
    *,
    power_steps: int = 30,
    ascent_steps: int = 2,
    lanczos_steps: int = 20,
    seed: int = 0,
) -> tuple[LipschitzEstimate, MonotonicityEstimate]:
    """Return the local estimates, in double precision, at three points: the image, and two images 2 % and 20 % away.

    Args:
        model, known: the denoiser as this scan sees it.
        image: (1, *spatial), in the units of the data, such as the equilibrium.
        power_steps, ascent_steps, lanczos_steps, seed: see `local_lipschitz` and `local_monotonicity`.
    """
    model, conditioning = double_precision(model, conditioning)
    x = image.to(torch.complex128) / per_sample(conditioning.scale, conditioning.phase)
    points = torch.cat([neighbours(x, 1, 0.02, seed), neighbours(x, 1, 0.2, seed + 1)[1:]])
    denoise = conditioning.repeated(len(points)).denoiser(model.network)
    radii = (1e-2, 1e-1)
    stretch = local_lipschitz(
        denoise, points, power_steps=power_steps, ascent_steps=ascent_steps, radii=radii, seed=seed
    )
    return stretch, local_monotonicity(denoise, points, lanczos_steps=lanczos_steps, radii=radii, seed=seed)


def absolute_error(solution: Solution) -> Tensor:
    """Return the error bound in the units of the value, (batch,).

    Without a bound it is the rounding of an explicit method's image.
    """
    size = norm(solution.value)
    if solution.kind == "none":
        return 4 * torch.finfo(size.dtype).eps * size
    return solution.error_bound.to(size.dtype) * size

"""How far a change of the data or of the coil maps moves the equilibrium, against what the certificate allows."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Tensor

from molrecon.guarantees.attack import worst_case_kspace
from molrecon.guarantees.checks import ROUNDING, absolute_error
from molrecon.reconstructors.conditioning import Conditioning
from molrecon.reconstructors.mol import MOL
from molrecon.reconstructors.robustness_bounds import data_robustness_bound, operator_robustness_bound
from molrecon.solvers.batched import norm, per_sample
from molrecon.solvers.solution import Solution
from molrecon.solvers.solver_settings import SolverSettings
from operators import LinearOperator, Sense, SoftSense

# Of the reconstructions inside an attack and of their gradients; what it finds is evaluated at the model's own.
ATTACK_TOL = 1e-2


@final
@dataclass(frozen=True)
class PerturbationCheck:
    """How far one perturbation moved the reconstruction: `change` against `bound`, both relative to `|x|`.

    `size` is relative to the norm of what was perturbed; `change` is that of the exact equilibria at least, the error
    bounds of both solves being taken off; `tightness = change / bound`.
    """

    perturbed: str
    kind: str
    size: float
    change: float
    bound: float

    @property
    def tightness(self) -> float:
        """How much of the bound was reached, at most 1 unless it is violated."""
        return self.change / self.bound if self.bound > 0 else math.inf

    @property
    def violated(self) -> bool:
        """Whether the reconstruction moved farther than the bound."""
        return self.change > self.bound * (1 + ROUNDING)


def check_data_perturbations(
    model: MOL,
    kspace: Tensor,
    operator: LinearOperator,
    conditioning: Conditioning,
    *,
    sizes: tuple[float, ...] = (0.05,),
    attack_steps: int = 10,
    seed: int = 0,
) -> list[PerturbationCheck]:
    """Perturb the k-space by Gaussian noise and by the worst case found, `|d| = size |b|`, conditioning held fixed.

    Args:
        sizes: relative to |b|.
        attack_steps: of projected gradient ascent, see `worst_case_kspace`.
    """
    generator = torch.Generator(kspace.device).manual_seed(seed)
    project = operator.sampling if isinstance(operator, (Sense, SoftSense)) else None
    rough = coarser(model.solver, ATTACK_TOL, ATTACK_TOL)

    base, ratio = _solved(model, kspace, operator, conditioning), model.weight_ratio(conditioning)
    checks = []
    for size in sizes:
        radius = size * norm(kspace)
        noise = torch.randn(kspace.shape, dtype=kspace.dtype, device=kspace.device, generator=generator)
        noise = noise if project is None else project(noise)
        noise = per_sample(radius / norm(noise), noise) * noise
        attack = worst_case_kspace(
            warm_started(
                lambda b, start: model(b, operator, conditioning=conditioning, start=start, solver=rough).value,
                base.value,
            ),
            kspace,
            radius,
            attack_steps,
            generator=generator,
            project=project,
            reference=base.value,
        )
        for kind, change in (("Gaussian", noise), ("worst case", attack.perturbation)):
            with torch.no_grad():
                moved = model(kspace + change, operator, conditioning=conditioning, start=base.value)
            bound = data_robustness_bound(ratio, operator, change)
            checks.append(_perturbation("k-space", kind, size, base, moved, bound))
    return checks


def check_map_perturbations(
    model: MOL,
    kspace: Tensor,
    operator: LinearOperator,
    conditioning: Conditioning,
    *,
    maps: Tensor,
    rebuild: Callable[[Tensor], LinearOperator],
    size: float = 0.01,
    attack_steps: int = 10,
    seed: int = 0,
) -> list[PerturbationCheck]:
    """Perturb the coil maps by Gaussian noise and by the worst case found, `|D| = size |S|`, all else held fixed.

    Args:
        maps: S (batch, coil, *spatial), as many as samples.
        rebuild: maps -> operator with these maps, differentiable.

    The change is compared with `operator_robustness_bound`, for which the equilibrium's own error is allowed.
    """
    generator = torch.Generator(kspace.device).manual_seed(seed)
    base, ratio = _solved(model, kspace, operator, conditioning), model.weight_ratio(conditioning)
    radius = size * norm(maps)
    noise = torch.randn(maps.shape, dtype=maps.dtype, device=maps.device, generator=generator)
    noise = per_sample(radius / norm(noise), noise) * noise
    rough = coarser(model.solver, ATTACK_TOL, ATTACK_TOL)
    attack = worst_case_kspace(
        warm_started(
            lambda s, start: model(kspace, rebuild(s), conditioning=conditioning, start=start, solver=rough).value,
            base.value,
        ),
        maps,
        radius,
        attack_steps,
        generator=generator,
        reference=base.value,
    )
    checks = []
    for kind, change in (("Gaussian", noise), ("worst case", attack.perturbation)):
        changed = rebuild(maps + change)
        with torch.no_grad():
            moved = model(kspace, changed, conditioning=conditioning, start=base.value)
            bound = operator_robustness_bound(ratio, operator, changed, kspace, base.value)
        checks.append(_perturbation("maps", kind, size, base, moved, bound))
    return checks


def _perturbation(
    perturbed: str, kind: str, size: float, base: Solution, moved: Solution, bound: Tensor
) -> PerturbationCheck:
    change = norm(moved.value - base.value) - absolute_error(moved) - absolute_error(base)
    worst = int((change / bound).argmax())
    scale = float(norm(base.value)[worst])
    return PerturbationCheck(perturbed, kind, size, max(0.0, float(change[worst]) / scale), float(bound[worst]) / scale)


@torch.no_grad()
def _solved(model: MOL, kspace: Tensor, operator: LinearOperator, conditioning: Conditioning) -> Solution:
    return model(kspace, operator, conditioning=conditioning)


def warm_started(solve: Callable[[Tensor, Tensor], Tensor], start: Tensor) -> Callable[[Tensor], Tensor]:
    """Return `solve` as a function of its first argument, each call started at what the last one found."""
    last = start

    def warm(data: Tensor) -> Tensor:
        nonlocal last
        value = solve(data, last)
        last = value.detach()
        return value

    return warm


def coarser(settings: SolverSettings, tol: float, backward_tol: float) -> SolverSettings:
    """Return the same settings with goals of at least these; backward solves that miss theirs are not logged."""
    return replace(
        settings,
        tol=max(tol, settings.tol),
        backward_tol=max(backward_tol, settings.backward_tol),
        on_backward=lambda answer: None,
    )

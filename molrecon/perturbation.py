"""How far a change of the data or of the coil maps moves the equilibrium, against what the certificate allows."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar, final

import torch
from torch import Tensor

from molrecon.attack import worst_case_kspace
from molrecon.batched import norm, per_sample
from molrecon.checks import ROUNDING, absolute_error
from molrecon.conditioning import Conditioning
from molrecon.deep_equilibrium import DeepEquilibrium
from molrecon.mol import MOL
from molrecon.solution import Solution
from operators import LinearOperator, Sense

Equilibrium = TypeVar("Equilibrium", MOL, DeepEquilibrium)

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


def data_robustness_bound(ratio: Tensor, operator: LinearOperator, change: Tensor) -> Tensor:
    """Return `min(sqrt(lambda / m) / 2 |d|, (lambda / m) |A^H d|)` >= |x*(b + d) - x*(b)|, (batch,).

    Args:
        ratio: lambda / m (batch,), see `weight_ratio`; 1 / mu for CG-SENSE with the weight mu.
        operator: A.
        change: d (batch, coil, *spatial).

    The first follows from `m |dx|^2 + lambda |A dx|^2 <= lambda |A dx| |d|`, the second from `<= lambda |dx| |A^H d|`.
    """
    return torch.minimum(ratio.sqrt() / 2 * norm(change), ratio * norm(operator.adjoint(change)))


def weight_ratio(model: MOL, known: Conditioning) -> Tensor:
    """Return `lambda / m` of the certificate, (batch,); infinite without monotonicity."""
    m = model.certificate().monotonicity
    weight = model.data_weight(known.noise_level).detach()
    return weight / m if m > 0 else torch.full_like(weight, math.inf)


def operator_robustness_bound(
    ratio: Tensor, operator: LinearOperator, changed: LinearOperator, kspace: Tensor, image: Tensor
) -> Tensor:
    """Return a bound of `|x*(A + D, b) - x*(A, b)|` for a changed operator (coil maps) A + D, (batch,).

    With x = x*(A, b), its data residual e = A x - b, and y = x*(A + D, b), subtracting the two equilibria gives

        F(y) - F(x) + lambda (A + D)^H (A + D) (y - x) = -lambda (D^H e + (A + D)^H D x).

    The inner product with s = y - x, monotonicity, and the maximum over `t = |(A + D) s|` give

        m |s|^2 <= lambda |s| |D^H e| + lambda (t |D x| - t^2) <= lambda |s| |D^H e| + lambda |D x|^2 / 4,

    hence `|s| <= a + sqrt(a^2 + lambda |D x|^2 / (4 m))` with `a = lambda |D^H e| / (2 m)`. Without using t it is
    `|s| <= (lambda / m) |D^H e + (A + D)^H D x|`. The smaller one is returned. There is no bound in |D| alone: it
    scales with the image and with its data residual.

    Args:
        ratio: lambda / m (batch,); scale, noise level and phase are held fixed.
        operator, changed: A and A + D.
        kspace: b. image: x, in the units of the data; exact up to its error bound.
    """
    misfit = operator(image) - kspace
    shift = changed(image) - operator(image)
    pulled = changed.adjoint(misfit) - operator.adjoint(misfit)
    half = ratio * norm(pulled) / 2
    through_data = half + (half.square() + ratio * norm(shift).square() / 4).sqrt()
    through_image = ratio * norm(pulled + changed.adjoint(shift))
    return torch.minimum(through_data, through_image)


def check_data_perturbations(
    model: MOL,
    kspace: Tensor,
    operator: LinearOperator,
    known: Conditioning,
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
    project = operator.sampling if isinstance(operator, Sense) else None
    rough = with_tolerance(model, ATTACK_TOL, ATTACK_TOL)

    base, ratio = _solved(model, kspace, operator, known), weight_ratio(model, known)
    found = []
    for size in sizes:
        radius = size * norm(kspace)
        noise = torch.randn(kspace.shape, dtype=kspace.dtype, device=kspace.device, generator=generator)
        noise = noise if project is None else project(noise)
        noise = per_sample(radius / norm(noise), noise) * noise
        attack = worst_case_kspace(
            warm_started(lambda b, start: rough(b, operator, conditioning=known, start=start).value, base.value),
            kspace,
            radius,
            attack_steps,
            generator=generator,
            project=project,
            reference=base.value,
        )
        for kind, change in (("Gaussian", noise), ("worst case", attack.perturbation)):
            with torch.no_grad():
                moved = model(kspace + change, operator, conditioning=known, start=base.value)
            bound = data_robustness_bound(ratio, operator, change)
            found.append(_perturbation("k-space", kind, size, base, moved, bound))
    return found


def check_map_perturbations(
    model: MOL,
    kspace: Tensor,
    operator: LinearOperator,
    known: Conditioning,
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
    base, ratio = _solved(model, kspace, operator, known), weight_ratio(model, known)
    radius = size * norm(maps)
    noise = torch.randn(maps.shape, dtype=maps.dtype, device=maps.device, generator=generator)
    noise = per_sample(radius / norm(noise), noise) * noise
    rough = with_tolerance(model, ATTACK_TOL, ATTACK_TOL)
    attack = worst_case_kspace(
        warm_started(lambda s, start: rough(kspace, rebuild(s), conditioning=known, start=start).value, base.value),
        maps,
        radius,
        attack_steps,
        generator=generator,
        reference=base.value,
    )
    found = []
    for kind, change in (("Gaussian", noise), ("worst case", attack.perturbation)):
        changed = rebuild(maps + change)
        with torch.no_grad():
            moved = model(kspace, changed, conditioning=known, start=base.value)
            bound = operator_robustness_bound(ratio, operator, changed, kspace, base.value)
        found.append(_perturbation("maps", kind, size, base, moved, bound))
    return found


def _perturbation(
    perturbed: str, kind: str, size: float, base: Solution, moved: Solution, bound: Tensor
) -> PerturbationCheck:
    change = norm(moved.value - base.value) - absolute_error(moved) - absolute_error(base)
    worst = int((change / bound).argmax())
    scale = float(norm(base.value)[worst])
    return PerturbationCheck(perturbed, kind, size, max(0.0, float(change[worst]) / scale), float(bound[worst]) / scale)


@torch.no_grad()
def _solved(model: MOL, kspace: Tensor, operator: LinearOperator, known: Conditioning) -> Solution:
    return model(kspace, operator, conditioning=known)


def warm_started(solve: Callable[[Tensor, Tensor], Tensor], start: Tensor) -> Callable[[Tensor], Tensor]:
    """Return `solve` as a function of its first argument, each call started at what the last one found."""
    last = start

    def warm(data: Tensor) -> Tensor:
        nonlocal last
        value = solve(data, last)
        last = value.detach()
        return value

    return warm


def with_tolerance(model: Equilibrium, tol: float, backward_tol: float) -> Equilibrium:
    """Return the same model, weights shared, with tolerances of at least these."""
    other = copy.copy(model)
    other.tol, other.backward_tol = max(tol, model.tol), max(backward_tol, model.backward_tol)
    return other

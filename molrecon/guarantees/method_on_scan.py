"""One method on one scan: its images of perturbed data, how far they moved, and the worst perturbation of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import final

import numpy as np
import torch
from torch import Tensor

from molrecon.guarantees.attack import worst_case_kspace
from molrecon.guarantees.checks import ROUNDING, absolute_error
from molrecon.guarantees.perturbation import coarser, warm_started
from molrecon.guarantees.robustness_trials import Trial
from molrecon.io import center_crop
from molrecon.reconstructors.base import Reconstructor
from molrecon.scans.metrics import psnr
from molrecon.scans.preparation import PreparedVolume
from molrecon.solvers.batched import norm
from molrecon.solvers.solution import Kind, Solution
from operators import LinearOperator

ASCENT_TOL, ASCENT_BACKWARD_TOL = 5e-3, 1e-1  # a direction of ascent wants no more


@final
class ConditionedMethod:
    """A method on one slice, with what it takes from the scan (maps, noise level, scale, phase) held fixed.

    Args:
        model: the method, on the device of the data.
        kspace: b (1, coil, rows, cols).
        operator: A.
        noise_level: in the units of k-space.
        hold_guide: whether the images that guide the method are held fixed, too, or follow the data.
    """

    def __init__(
        self, model: Reconstructor, kspace: Tensor, operator: LinearOperator, noise_level: float, *, hold_guide: bool
    ) -> None:
        self.model, self.operator = model, operator
        found = model.condition(kspace, operator, noise_level)
        self.guided = found is not None and found.guide is not None
        self.conditioning = found if found is None or hold_guide else replace(found, guide=None)
        rough = None if model.solver is None else coarser(model.solver, ASCENT_TOL, ASCENT_BACKWARD_TOL)
        self._ascend = warm_started(
            lambda b, start: (
                model(
                    b,
                    operator,
                    noise_level,
                    conditioning=self.conditioning,
                    start=self._start(start),
                    solver=rough,
                ).value
            ),
            operator.adjoint(kspace),
        )

    def solve(self, kspace: Tensor, start: Tensor | None) -> Solution:
        """Return the image (1, rows, cols) as accurate as a user gets it."""
        solution: Solution = self.model(kspace, self.operator, conditioning=self.conditioning, start=self._start(start))
        return solution

    def _start(self, start: Tensor | None) -> Tensor | None:
        """Return the start of a method that iterates to a tolerance; the image of others would depend on it."""
        return None if self.model.solver is None else start

    def ascend(self, kspace: Tensor) -> Tensor:
        """Return the image, differentiable, as accurate as a direction of ascent needs it."""
        return self._ascend(kspace)

    def bound(self, change: Tensor) -> Tensor | None:
        """Return an upper bound of `|x(b + d) - x(b)|` for any b, (1,); None where none is known."""
        return self.model.change_bound(self.conditioning, self.operator, change)


@final
class MethodOnScan:
    """One method on one scan, slice by slice. Arguments as of `evaluate` and `ConditionedMethod`."""

    def __init__(
        self,
        model: Reconstructor,
        prepared: PreparedVolume,
        reference: np.ndarray,
        device: torch.device | str,
        *,
        hold_guide: bool = True,
    ) -> None:
        self.model, self.prepared, self.reference, self.device = model, prepared, reference, device
        self.hold_guide = hold_guide
        self.fixed = self._conditioned(prepared)
        self.base = self._solve(self.fixed, prepared, [None] * len(self.fixed))

    def image(self) -> np.ndarray:
        """Return the magnitudes of x(b), (slices, *recon_shape)."""
        return _magnitude(self.prepared, self.base)

    @property
    def guided(self) -> bool:
        """Whether the method follows images of the scan that it finds before it starts."""
        return self.fixed[0].guided

    @property
    def guarantee(self) -> Kind:
        """What the bound of the image's change rests on; "none" where there is no bound."""
        if self.fixed[0].bound(torch.zeros_like(self.prepared.kspace[[0]], device=self.device)) is None:
            return "none"
        return "estimated" if self.model.certificate().kind == "estimated" else "certified"

    def trial(self, level: float, change: Tensor, again: PreparedVolume) -> tuple[Trial, np.ndarray]:
        """Return what the perturbation does, and the magnitudes of x(b + d), held fixed; `again` is the scan b + d."""
        fixed = self._solve(self.fixed, again, [one.value for one in self.base])
        reestimated = self._solve(self._conditioned(again), again, [one.value for one in fixed])
        image = _magnitude(self.prepared, fixed)
        pairs = zip(self.fixed, self.base, fixed, change.to(self.device).split(1), strict=True)
        slices = [_movement(*pair) for pair in pairs]
        trial = Trial(
            level=level,
            psnr=psnr(self.reference, image),
            psnr_reestimated=psnr(self.reference, _magnitude(again, reestimated)),
            moved=max(one.moved for one in slices),
            bound=_largest(one.bound for one in slices),
            tightness=_largest(one.tightness for one in slices),
            violations=sum(one.violated for one in slices),
            converged=all(bool(one.converged.all()) for one in (*self.base, *fixed, *reestimated)),
        )
        return trial, image

    def search(self, level: float, steps: int, start: Tensor) -> tuple[Tensor, tuple[float, ...]]:
        """Return the worst perturbation found, (slices, coil, rows, cols), and `Trial.ascent`."""
        weight, target = self._delivered()
        perturbations, squares = torch.empty_like(start), torch.zeros(steps + 1)
        for k, method in enumerate(self.fixed):
            kspace, w = self.prepared.kspace[[k]].to(self.device), weight[[k]].to(self.device)

            def magnitude(b: Tensor, method: ConditionedMethod = method, w: Tensor = w) -> Tensor:
                return method.ascend(b).abs() * w

            attack = worst_case_kspace(
                magnitude,
                kspace,
                level * norm(kspace),
                steps,
                generator=torch.Generator(kspace.device),  # not used: the start is given
                project=self.prepared.cartesian_operator([k]).on(self.device).sampling,
                reference=target[[k]].to(self.device),
                start=start[[k]].to(self.device),
            )
            perturbations[k] = attack.perturbation[0].cpu()
            squares += attack.history[:, 0].cpu().square()
        return perturbations, tuple((squares.sqrt() / float(np.linalg.norm(self.reference))).tolist())

    def _delivered(self) -> tuple[Tensor, Tensor]:
        """Return what images are weighted with (see `PreparedVolume.magnitude`) and the reference, both uncropped.

        Outside what is delivered both are zero.
        """
        maps, shape = self.prepared.sensitivity_maps[:, 0], self.prepared.volume.recon_shape
        inside = np.zeros(maps.shape[-2:], np.float32)
        target = np.zeros((len(maps), *inside.shape), np.float32)
        center_crop(inside, shape)[...] = 1
        center_crop(target, shape)[...] = self.reference
        return torch.linalg.vector_norm(maps, dim=1) * torch.from_numpy(inside), torch.from_numpy(target)

    def _conditioned(self, prepared: PreparedVolume) -> list[ConditionedMethod]:
        slices = enumerate(prepared.kspace.to(self.device).split(1))
        return [
            ConditionedMethod(
                self.model,
                kspace,
                prepared.operator([k]).on(self.device),
                prepared.noise_level,
                hold_guide=self.hold_guide,
            )
            for k, kspace in slices
        ]

    @torch.no_grad()
    def _solve(
        self, method: Sequence[ConditionedMethod], prepared: PreparedVolume, starts: Sequence[Tensor | None]
    ) -> list[Solution]:
        slices = zip(method, prepared.kspace.to(self.device).split(1), starts, strict=True)
        return [one.solve(kspace, start) for one, kspace, start in slices]


@final
@dataclass(frozen=True)
class _Movement:
    """How far one slice moved, as in `Trial`."""

    moved: float
    bound: float | None
    tightness: float | None
    violated: bool


def _movement(method: ConditionedMethod, before: Solution, after: Solution, change: Tensor) -> _Movement:
    size, distance = float(norm(before.value)), float(norm(after.value - before.value))
    allowed = method.bound(change)
    if allowed is None:
        return _Movement(distance / size, None, None, False)
    bound = float(allowed)
    # The bound speaks of the exact images, from which each of these may be so far.
    exact = max(0.0, distance - float(absolute_error(before) + absolute_error(after)))
    tightness = exact / bound if bound else 0.0
    return _Movement(distance / size, bound / size, tightness, exact > bound * (1 + ROUNDING))


def _largest(values: Iterable[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)


def _magnitude(prepared: PreparedVolume, solutions: Sequence[Solution]) -> np.ndarray:
    return prepared.magnitude(torch.cat([one.value for one in solutions]).cpu())

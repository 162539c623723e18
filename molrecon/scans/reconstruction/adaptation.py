"""The strength of a learned prior, adapted to a scan by some of its samples, which are withheld for it.

A learned model is told the noise level, and takes away what looks like noise of that size; lambda and the thresholds of
its network follow it. Where a scan has errors of another kind as well (motion, aliasing that its maps do not explain),
or less noise than its edge of k-space shows, another level than the noise's is better. Which one, the scan itself can
say: images of a part of the samples, at several levels, are asked for the others. The level that predicts them best is
used with all samples. It is fixed before the final iteration, which keeps its certificate and bound.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import final

import numpy as np
import torch
from torch import Tensor

from molrecon.reconstructors.base import Reconstructor, evaluating
from molrecon.reconstructors.learned import LearnedReconstructor
from molrecon.scans.preparation import PreparedVolume, spread
from molrecon.scans.reconstruction.device import on_device
from molrecon.solvers.in_threads import in_threads
from operators.withholding import withhold

FACTORS = (0.7, 1.0, 1.4, 2.0)  # of the noise level
SLICES = 3  # that are looked at
SHARE = 0.125  # of the lines outside the calibration region
LEAST_GAIN = 0.01  # of the withheld samples' squared error, for a level other than the noise's
REGULAR = 0.8  # of the gaps between lines, that are equally wide to a line, of regular sampling
ROUGH_TOL = 2e-2  # of an equilibrium's error bound: the errors compared are tens of per cent


@final
@dataclass(frozen=True)
class Adaptation:
    """The noise level that a model is told, and why.

    Attributes:
        factor: of the scan's noise level.
        errors: by factor, `|A x - b|^2 / |b|^2` of the withheld samples.
        slices: those that were looked at.
        seconds: that it took, beside those of the reconstruction.
    """

    factor: float
    errors: dict[float, float]
    slices: tuple[int, ...]
    seconds: float = field(default=0.0, compare=False)


@final
class NotAdaptable(ValueError):
    """A scan or a method for which there is nothing to adapt, or nothing to judge it by."""


@torch.no_grad()
def adapt(
    prepared: PreparedVolume,
    model: Reconstructor,
    *,
    factors: Sequence[float] = FACTORS,
    device: torch.device | str = "cpu",
    at_once: int = 1,
) -> Adaptation:
    """Return the noise level for a scan: that whose images predict withheld samples best.

    Of SLICES slices the share SHARE of the lines outside the calibration region is withheld, the same for all levels.
    Another level than the noise's has to lower the squared error of all of them by LEAST_GAIN.

    Args:
        prepared: the scan.
        model: a learned model of planes.
        factors: of the noise level, 1 among them.
        device: where to compute. at_once: how many problems, in threads.

    Raises:
        NotAdaptable: a method that is not learned, or sees more than planes; a scan on a trajectory, without data, with
            fewer than two lines outside its calibration region, or with regular sampling: without some of its lines
            the gaps are twice as wide as those of the scan, and call for a stronger prior than the scan needs.
        ValueError: factors without 1.
    """
    start = time.perf_counter()
    if 1 not in factors:
        raise ValueError(f"adapt: factors {tuple(factors)}, expected 1 among them")
    reason = _reason_not_to(prepared, model)
    if reason is not None:
        raise NotAdaptable(f"adapt: {reason}")
    prepared = prepared if model.takes_sets else prepared.first_set()
    slices = spread([int(k) for k in np.flatnonzero(~prepared.empty)], SLICES)
    solver = None if model.solver is None else replace(model.solver, tol=max(ROUGH_TOL, model.solver.tol))
    with evaluating(on_device(model, device)) as working:

        def squares(k: int) -> list[float]:
            """Return the energy of the withheld samples of a slice, and what is left of it at each level."""
            operator = prepared.cartesian_operator([k]).on(torch.device(device))
            if _regular(operator.sampling_mask):
                raise NotAdaptable("adapt: every n-th line is sampled, expected irregular sampling")
            try:
                kept, judge = withhold(operator, 1, np.random.default_rng(k), SHARE)
            except ValueError as error:
                raise NotAdaptable(f"adapt: {error}") from error
            kspace = prepared.kspace[[k]].to(device)
            given, target = kept.sampling(kspace), judge.sampling(kspace)
            levels = (prepared.noise_level * factor for factor in factors)
            images = (working(given, kept, level, solver=solver).value for level in levels)
            return [_energy(target), *(_energy(judge(image) - target) for image in images)]

        energy, *errors = np.sum(list(in_threads(squares, slices, at_once)), axis=0)
    relative = dict(zip(factors, (float(error / energy) for error in errors), strict=True))
    best = min(relative, key=lambda factor: relative[factor])
    best = best if relative[best] <= (1 - LEAST_GAIN) * relative[1.0] else 1.0
    return Adaptation(best, relative, tuple(slices), time.perf_counter() - start)


def _energy(kspace: Tensor) -> float:
    return float(kspace.abs().square().sum())


def _regular(mask: Tensor) -> bool:
    """Tell whether lines (1, 1, cols) are sampled at equal distances, but for the centre; no mask of two axes is."""
    if mask.shape[-2] > 1:
        return False
    gaps = np.diff(np.flatnonzero(mask.cpu().numpy().reshape(-1)))
    values, counts = np.unique(gaps[gaps > 1], return_counts=True)
    if not len(values):
        return False
    common = np.abs(values - values[np.argmax(counts)]) <= 1
    return bool(counts[common].sum() >= REGULAR * counts.sum())


def _reason_not_to(prepared: PreparedVolume, model: Reconstructor) -> str | None:
    """Return what there is against adapting the method to the scan, a clause; None: nothing."""
    name = type(model).__name__
    if not isinstance(model, LearnedReconstructor):
        return f"{name} is not learned, expected a learned model of planes"
    if model.ndim == 3:
        return f"{name} sees many planes at a time, expected a learned model of planes"
    if prepared.trajectory is not None:
        return "the samples lie on a trajectory, expected the grid"
    if bool(prepared.empty.all()):
        return "the scan holds no data, expected some"
    return None

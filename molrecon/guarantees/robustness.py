"""What perturbed data do to a reconstruction: PSNR against the size of the perturbation, random and worst-case."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import product
from typing import final

import numpy as np
import torch
from torch import Tensor

from molrecon.guarantees.attack import worst_case_kspace
from molrecon.guarantees.checks import ROUNDING, absolute_error
from molrecon.guarantees.defaults import DRAWS, LEVELS, STEPS
from molrecon.guarantees.perturbation import coarser, warm_started
from molrecon.guarantees.robustness_trials import Curve, Robustness, Trial
from molrecon.io import RawVolume, center_crop
from molrecon.reconstructors.base import Reconstructor, evaluating
from molrecon.scans.metrics import psnr
from molrecon.scans.preparation import PreparedVolume, prepare
from molrecon.scans.progress import progress_bar
from molrecon.scans.reconstruction import on_device
from molrecon.solvers.batched import norm, per_sample
from molrecon.solvers.solution import Kind, Solution
from operators import LinearOperator
from operators.hybrid import embed_readout

ASCENT_TOL, ASCENT_BACKWARD_TOL = 5e-3, 1e-1  # a direction of ascent wants no more
SHOWN_LEVEL = 0.05  # the worst case of the level nearest to this is kept as a picture


def select_slices(volume: RawVolume, wanted: Sequence[int] | None) -> list[int]:
    """Return the slices to evaluate: the wanted ones, or all that hold data.

    Raises:
        ValueError: a wanted slice that the volume does not have, or that holds no data.
    """
    filled = [k for k, one in enumerate(volume.kspace) if one.any()]
    missing = [k for k in wanted or () if k not in filled]
    if missing:
        raise ValueError(f"select_slices: slices {missing}, expected some of those that hold data: {filled}")
    return filled if wanted is None else sorted(set(wanted))


def take_slices(volume: RawVolume, slices: Sequence[int]) -> RawVolume:
    """Return the volume with these slices only."""
    chosen = list(slices)
    reference = None if volume.reference is None else volume.reference[chosen]
    mask = volume.sampling_mask
    mask = mask if len(mask) == 1 else mask[chosen]
    return replace(volume, kspace=volume.kspace[chosen], sampling_mask=mask, reference=reference)


def evaluate(
    prepared: PreparedVolume,
    reference: np.ndarray,
    methods: Mapping[str, Reconstructor],
    levels: Sequence[float] = LEVELS,
    *,
    draws: int = DRAWS,
    steps: int = STEPS,
    seed: Sequence[int] = (0,),
    device: torch.device | str = "cpu",
    progress: bool = False,
) -> Robustness:
    """Perturb the measured samples of a scan, at random and in the worst case, and score every method.

    Random perturbations are complex white noise on the measured samples, scaled to `|d| = level |b|` in each slice:
    the same directions at all levels and for all methods. The worst case is looked for, for each method by itself, by
    projected gradient ascent of `|x(b + d) - reference|` over `|d| <= level |b|` in magnitudes, so that it is the
    lowest PSNR that was found. The ascent holds fixed what the method was told about b, as its bound does; it starts
    at the worst case of the level below, at the first level from noise. Both kinds of d are scored twice, see `Trial`.

    Args:
        prepared: the undersampled scan; its k-space as cropped there is b. No slice without data. Of several sets of
            coil maps the first is used, for all methods alike.
        reference: (slices, *recon_shape), from `compare.reference_image`; it is not perturbed.
        methods: by name. They are evaluated in evaluation mode, and left where and as they are.
        levels: `|d| / |b|`; 0 is always there.
        draws: random perturbations a level, at least 1.
        steps: of the ascent, a level, at least 1.
        seed: of the random perturbations.
        device: where to reconstruct.
        progress: show bars when it takes longer than a few seconds.

    Raises:
        ValueError: a negative level, no draws, no steps, a slice without data.

    Reference: Antun, Renna, Poon, Adcock, Hansen, PNAS 117, 2020.
    """
    levels = sorted({0.0, *levels})
    if levels[0] < 0 or not np.isfinite(levels[-1]) or draws < 1 or steps < 1 or bool(prepared.empty.any()):
        raise ValueError(
            f"evaluate: got levels {levels}, {draws} draws, {steps} steps and {int(prepared.empty.sum())} slices"
            " without data; expected levels that are not negative, at least one draw and step, and no such slices"
        )
    prepared = prepared.first_set()
    with ExitStack() as modes:
        runs = {
            name: _MethodOnScan(modes.enter_context(evaluating(on_device(model, device))), prepared, reference, device)
            for name, model in methods.items()
        }
        return _evaluate(runs, prepared, reference, tuple(levels), draws, steps, seed, progress)


def _evaluate(
    runs: Mapping[str, _MethodOnScan],
    prepared: PreparedVolume,
    reference: np.ndarray,
    levels: tuple[float, ...],
    draws: int,
    steps: int,
    seed: Sequence[int],
    progress: bool,
) -> Robustness:
    shown_level, shown_slice = min(levels, key=lambda level: abs(level - SHOWN_LEVEL)), len(reference) // 2
    gaussian: dict[str, list[Trial]] = {name: [] for name in runs}
    random = [(level, draw) for level in levels for draw in range(draws if level else 1)]
    for level, draw in progress_bar(random, "random", progress, unit="draw"):
        change = level * _noise(prepared, (*seed, draw))
        again = _prepared_again(prepared, change)
        for name, run in runs.items():
            gaussian[name].append(run.trial(level, change, again)[0])
    worst = {name: [trials[0]] for name, trials in gaussian.items()}
    pictures = {name: run.image()[shown_slice] for name, run in runs.items()}
    changes = dict.fromkeys(runs, _noise(prepared, (*seed, 0)))
    for name, level in progress_bar(list(product(runs, levels[1:])), "worst case", progress, unit="search"):
        run = runs[name]
        changes[name], ascent = run.search(level, steps, changes[name])
        trial, image = run.trial(level, changes[name], _prepared_again(prepared, changes[name]))
        worst[name].append(replace(trial, ascent=ascent))
        if level == shown_level:
            pictures[name] = image[shown_slice]
    curves = {
        name: Curve(run.guarantee, tuple(gaussian[name]), tuple(worst[name]), pictures[name])
        for name, run in runs.items()
    }
    return Robustness(curves, levels, draws, steps, shown_level, shown_slice, reference[shown_slice])


@final
class HeldFixed:
    """A method on one slice, with all it was told about the scan (maps, noise level, scale, phase) held fixed.

    Args:
        model: the method, on the device of the data.
        kspace: b (1, coil, rows, cols).
        operator: A.
        noise_level: in the units of k-space.
    """

    def __init__(self, model: Reconstructor, kspace: Tensor, operator: LinearOperator, noise_level: float) -> None:
        self.model, self.operator = model, operator
        self.conditioning = model.condition(kspace, operator, noise_level)
        rough = None if model.solver is None else coarser(model.solver, ASCENT_TOL, ASCENT_BACKWARD_TOL)
        self._ascend = warm_started(
            lambda b, start: (
                model(b, operator, noise_level, conditioning=self.conditioning, start=start, solver=rough).value
            ),
            operator.adjoint(kspace),
        )

    def solve(self, kspace: Tensor, start: Tensor | None) -> Solution:
        """Return the image (1, rows, cols) as accurate as a user gets it."""
        solution: Solution = self.model(kspace, self.operator, conditioning=self.conditioning, start=start)
        return solution

    def ascend(self, kspace: Tensor) -> Tensor:
        """Return the image, differentiable, as accurate as a direction of ascent needs it."""
        return self._ascend(kspace)

    def bound(self, change: Tensor) -> Tensor | None:
        """Return an upper bound of `|x(b + d) - x(b)|` for any b, (1,); None where none is known."""
        return self.model.change_bound(self.conditioning, self.operator, change)


@final
class _MethodOnScan:
    """One method on one scan, slice by slice."""

    def __init__(
        self, model: Reconstructor, prepared: PreparedVolume, reference: np.ndarray, device: torch.device | str
    ) -> None:
        self.model, self.prepared, self.reference, self.device = model, prepared, reference, device
        self.fixed = self._hold_fixed(prepared)
        self.base = self._solve(self.fixed, prepared, [None] * len(self.fixed))

    def image(self) -> np.ndarray:
        """Return the magnitudes of x(b), (slices, *recon_shape)."""
        return _magnitude(self.prepared, self.base)

    @property
    def guarantee(self) -> Kind:
        """What the bound of the image's change rests on; "none" where there is no bound."""
        if self.fixed[0].bound(torch.zeros_like(self.prepared.kspace[[0]], device=self.device)) is None:
            return "none"
        return "estimated" if self.model.certificate().kind == "estimated" else "certified"

    def trial(self, level: float, change: Tensor, again: PreparedVolume) -> tuple[Trial, np.ndarray]:
        """Return what the perturbation does, and the magnitudes of x(b + d), held fixed; `again` is the scan b + d."""
        fixed = self._solve(self.fixed, again, [one.value for one in self.base])
        anew = self._solve(self._hold_fixed(again), again, [one.value for one in fixed])
        image = _magnitude(self.prepared, fixed)
        pairs = zip(self.fixed, self.base, fixed, change.to(self.device).split(1), strict=True)
        slices = [_movement(*pair) for pair in pairs]
        trial = Trial(
            level=level,
            psnr=psnr(self.reference, image),
            psnr_reestimated=psnr(self.reference, _magnitude(again, anew)),
            moved=max(one.moved for one in slices),
            bound=_largest(one.bound for one in slices),
            tightness=_largest(one.tightness for one in slices),
            violations=sum(one.violated for one in slices),
            converged=all(bool(one.converged.all()) for one in (*self.base, *fixed, *anew)),
        )
        return trial, image

    def search(self, level: float, steps: int, start: Tensor) -> tuple[Tensor, tuple[float, ...]]:
        """Return the worst perturbation found, (slices, coil, rows, cols), and `Trial.ascent`."""
        weight, target = self._delivered()
        found, squares = torch.empty_like(start), torch.zeros(steps + 1)
        for k, method in enumerate(self.fixed):
            kspace, w = self.prepared.kspace[[k]].to(self.device), weight[[k]].to(self.device)

            def magnitude(b: Tensor, method: HeldFixed = method, w: Tensor = w) -> Tensor:
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
            found[k] = attack.perturbation[0].cpu()
            squares += attack.history[:, 0].cpu().square()
        return found, tuple((squares.sqrt() / float(np.linalg.norm(self.reference))).tolist())

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

    def _hold_fixed(self, prepared: PreparedVolume) -> list[HeldFixed]:
        slices = enumerate(prepared.kspace.to(self.device).split(1))
        return [
            HeldFixed(self.model, kspace, prepared.operator([k]).on(self.device), prepared.noise_level)
            for k, kspace in slices
        ]

    @torch.no_grad()
    def _solve(
        self, method: Sequence[HeldFixed], prepared: PreparedVolume, starts: Sequence[Tensor | None]
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


def _movement(method: HeldFixed, before: Solution, after: Solution, change: Tensor) -> _Movement:
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


def _noise(prepared: PreparedVolume, seed: Sequence[int]) -> Tensor:
    """Return complex white noise on the measured samples, with the norm of the k-space in each slice."""
    generator = torch.Generator().manual_seed(int(np.random.SeedSequence(seed).generate_state(1)[0]))
    b = prepared.kspace
    noise = prepared.cartesian_operator(slice(None)).sampling(torch.randn(b.shape, dtype=b.dtype, generator=generator))
    return noise * per_sample(norm(b) / norm(noise), noise)


def _prepared_again(prepared: PreparedVolume, change: Tensor) -> PreparedVolume:
    """Return the perturbed scan, with maps and noise level estimated from it if they were estimated before.

    The perturbation is put into the k-space as it was measured, readout oversampling included, so that without a
    perturbation everything is found as it was.
    """
    given, volume = prepared.maps_source.method == "given", prepared.volume
    measured = embed_readout(change, volume.kspace.shape[-2]) if change.any() else torch.zeros(())
    return prepare(
        replace(volume, kspace=volume.kspace + measured.numpy()),
        prepared.sensitivity_maps.numpy() if given else None,
        None if prepared.noise_estimated else prepared.noise_level,
    ).first_set()

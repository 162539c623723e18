"""What perturbed data do to a reconstruction: PSNR against the size of the perturbation, random and worst-case."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import product

import numpy as np
import torch
from torch import Tensor

from molrecon.guarantees.defaults import DRAWS, LEVELS, STEPS
from molrecon.guarantees.method_on_scan import MethodOnScan
from molrecon.guarantees.robustness_trials import Curve, Robustness, Trial
from molrecon.io import RawVolume
from molrecon.reconstructors.base import Reconstructor, evaluating
from molrecon.scans.preparation import PreparedVolume, prepare
from molrecon.scans.progress import progress_bar
from molrecon.scans.reconstruction import on_device
from molrecon.solvers.batched import norm, per_sample
from operators.hybrid import embed_readout

SHOWN_LEVEL = 0.05  # the worst case of the level nearest to this is kept as a picture


def select_slices(volume: RawVolume, requested: Sequence[int] | None) -> list[int]:
    """Return the slices to evaluate: the requested ones, or all that hold data.

    Raises:
        ValueError: a requested slice that the volume does not have, or that holds no data.
    """
    filled = [k for k, one in enumerate(volume.kspace) if one.any()]
    missing = [k for k in requested or () if k not in filled]
    if missing:
        raise ValueError(f"select_slices: slices {missing}, expected some of those that hold data: {filled}")
    return filled if requested is None else sorted(set(requested))


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
    lowest PSNR that was found. The ascent holds maps, noise level, scale and phase of b fixed, as the bound does; it
    starts at the worst case of the level below, at the first level from noise. Both kinds of d are scored twice, see
    `Trial`.

    A guided method is there twice: with its guide held fixed, as its bound has it, and as `NAME, through its guide`,
    without a bound, where the guide is found from the perturbed data and the ascent goes through it as well.

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
        runs: dict[str, MethodOnScan] = {}
        for name, method in methods.items():
            model = modes.enter_context(evaluating(on_device(method, device)))
            runs[name] = MethodOnScan(model, prepared, reference, device)
            if runs[name].guided:
                through = MethodOnScan(model, prepared, reference, device, hold_guide=False)
                runs[f"{name}, through its guide"] = through
        return _evaluate(runs, prepared, reference, tuple(levels), draws, steps, seed, progress)


def _evaluate(
    runs: Mapping[str, MethodOnScan],
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

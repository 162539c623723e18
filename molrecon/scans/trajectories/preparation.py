"""From a raw volume of any kind to what every method needs."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from molrecon.io import RawVolume
from molrecon.io.masks import infer_sampling_mask
from molrecon.reconstructors.classical import CGSense
from molrecon.scans.data_checks import LEAST_SQUARES, energy_of
from molrecon.scans.preparation import (
    COMPARED_SLICES,
    NOISE_AGREEMENT,
    NOISE_SLICES,
    MapsSource,
    PreparedVolume,
    estimate_maps,
    explained_by_two_sets,
    given_maps,
    mixed,
    prepare,
    spread,
    whitening,
)
from molrecon.scans.preparation.slices import mask_of
from molrecon.scans.progress import progress_bar
from molrecon.scans.trajectories.calibration import calibration_on_grid
from molrecon.scans.trajectories.samples import Trajectory
from operators import density_compensation, trajectory_noise_level
from operators.calibration import calibration_region

REDUNDANCY = 3  # samples of all coils to a pixel, at least, for the residual to be of noise


def prepare_volume(
    volume: RawVolume,
    maps: np.ndarray | None = None,
    noise_level: float | None = None,
    device: torch.device | str = "cpu",
    progress: bool = False,
    *,
    map_sets: int | None = None,
    compress: int | Literal["auto"] | None = None,
    shared: PreparedVolume | None = None,
) -> PreparedVolume:
    """Prepare samples on the grid as `prepare` does, and samples on a trajectory as follows.

    Samples are weighted for their density, `density_weighted`: the weighted operator has a norm of about 1, as the
    Cartesian operators have that models are trained with, and all methods take the weighted problem as they take any.
    The coil maps are ESPIRiT's, of the centre of k-space as `gridded_calibration` finds it on the grid, or of the
    calibration data of the volume: one set, unless two are asked for. Samples between the points of the grid do not
    fold as lines on it do, so a second set explains little: in radial and spiral phantoms it changes CG-SENSE by -0.6
    to -0.1 dB, also where the object is 1.3 fields of view wide or the coils moved.

    The noise level is that of the noise scan, and else of the part of the readout's field of view outside the object.
    Where a readout has none, it is the smaller one of two that can only be too high: of the periphery of k-space, and
    of what CG-SENSE leaves of the data of several coils.

    Arguments are those of `prepare`; noise_level is that of a sample. Coils on a trajectory are not compressed: "auto"
    keeps all of them.

    Raises:
        ValueError: as `prepare`; a centre of k-space that is not sampled densely; a number of virtual coils for a
            trajectory.
    """
    if volume.trajectory is None or volume.grid is None:
        return prepare(volume, maps, noise_level, device, progress, map_sets=map_sets, compress=compress, shared=shared)
    start = time.perf_counter()
    if noise_level is not None and not noise_level >= 0:
        raise ValueError(f"prepare: noise_level is {noise_level}, expected a number that is not negative")
    if map_sets not in (None, 1, 2):
        raise ValueError(f"prepare: map_sets is {map_sets}, expected 1, 2 or None")
    if compress not in (None, "auto"):
        raise ValueError(f"prepare: compress is {compress}, expected None or 'auto' for samples on a trajectory")
    mixing, scanned = whitening(volume)
    samples = mixed(volume.kspace, mixing)
    trajectory = _weighted(volume, volume.trajectory, volume.grid, progress, shared)
    empty = np.array([not one.any() for one in volume.kspace])
    gain, weighted = trajectory.noise_gain, trajectory.weigh(samples)
    if shared is not None and shared.trajectory is not None:
        ratio = gain / shared.trajectory.noise_gain
        return replace(
            shared,
            volume=volume,
            kspace=weighted,
            empty=empty,
            trajectory=trajectory,
            noise_level=ratio * shared.noise_level,
            noise_estimates={name: ratio * level for name, level in shared.noise_estimates.items()},
            seconds=time.perf_counter() - start,
        )
    level, estimates = _noise_level(volume, samples, noise_level, scanned)
    if maps is not None:
        images = (*samples.shape[:2], *volume.grid)
        sensitivity_maps, source = given_maps(maps, images, volume.grid[0], mixing)
    elif volume.n_coils == 1:
        ones = torch.ones(len(samples), 1, 1, *volume.grid, dtype=torch.complex64)
        sensitivity_maps, source = ones, MapsSource("ones", {})
    else:
        sensitivity_maps, source = _estimated_maps(volume, mixing, empty, level, device, progress, map_sets or 1)
    prepared = PreparedVolume(
        volume=volume,
        kspace=weighted,
        sampling_mask=torch.from_numpy(volume.sampling_mask),
        sensitivity_maps=sensitivity_maps,
        maps_source=source,
        noise_level=gain * level,
        noise_estimated=noise_level is None,
        empty=empty,
        seconds=0.0,
        noise_estimates={name: gain * value for name, value in estimates.items()},
        prewhitened=mixing is not None,
        trajectory=trajectory,
    )
    if list(estimates) == ["periphery"]:
        prepared = _with_least_squares(prepared)
    return replace(prepared, seconds=time.perf_counter() - start)


def _estimated_maps(
    volume: RawVolume,
    mixing: Tensor | None,
    empty: np.ndarray,
    noise_level: float,
    device: torch.device | str,
    progress: bool,
    sets: int,
) -> tuple[Tensor, MapsSource]:
    """Return ESPIRiT's maps, see `estimate_maps`, and in `detail` what a second set would explain, see `MapSets`."""
    measured = volume.calibration if volume.calibration is not None else calibration_on_grid([volume])
    calibration, mask = mixed(measured, mixing), torch.from_numpy(infer_sampling_mask(measured))
    maps, source = estimate_maps(calibration, mask, empty, noise_level, device, progress, sets)
    shape = (calibration.shape[-2], calibration.shape[-1])
    energies = []
    for k in spread([int(k) for k in np.flatnonzero(~empty)], NOISE_SLICES):
        region = calibration_region(calibration[[k]], mask_of(mask, k))
        energies.append(float(explained_by_two_sets(region, shape, noise_level).energy[0, 1]))
    return maps, MapsSource(source.method, {**source.detail, "second_set_energy": float(np.median(energies))})


def _weighted(
    volume: RawVolume, points: np.ndarray, grid: tuple[int, int], progress: bool, shared: PreparedVolume | None
) -> Trajectory:
    """Return the trajectory with its weights, those of the image that shares them where it is the same."""
    if shared is not None and shared.trajectory is not None and np.array_equal(shared.trajectory.points, points):
        return shared.trajectory
    tensor = torch.from_numpy(points)
    weights = [
        density_compensation(one[None], grid) for one in progress_bar(list(tensor), "sampling density", progress)
    ]
    return Trajectory(tensor, torch.cat(weights), grid)


def _noise_level(
    volume: RawVolume, samples: Tensor, given: float | None, scanned: float | None
) -> tuple[float, dict[str, float]]:
    """Return the noise level of a sample to use, that given where there is one, and the estimates."""
    if volume.trajectory is None or volume.grid is None:
        raise ValueError("prepare: samples on the grid, expected a trajectory")
    extent = (volume.recon_shape[0] / volume.grid[0], volume.recon_shape[1] / volume.grid[1])
    filled = [k for k, one in enumerate(samples) if bool(one.any())]
    pairs = [
        trajectory_noise_level(samples[k], torch.from_numpy(volume.trajectory[k % len(volume.trajectory)]), extent)
        for k in spread(filled, NOISE_SLICES)
    ]
    outer, edge = (float(np.median([pair[n] for pair in pairs])) for n in (0, 1))
    estimates = {"periphery": edge} if math.isnan(outer) else {"outer readout": outer, "periphery": edge}
    level = outer if math.isfinite(outer) else edge
    if scanned is not None:
        # The periphery holds fine detail too: without the outer readout, a noise scan below it is no contradiction.
        agrees = max(scanned / level, level / scanned) <= NOISE_AGREEMENT
        if agrees or (math.isnan(outer) and scanned < edge):
            level, estimates = scanned, {name: value for name, value in estimates.items() if name != "periphery"}
        estimates["noise scan"] = scanned
    return (level if given is None else given), estimates


@torch.no_grad()
def _with_least_squares(prepared: PreparedVolume) -> PreparedVolume:
    """Return the scan with the noise level that CG-SENSE leaves of its data, where that is less than the periphery's.

    With `n = C (sum w)^2 / sum w^2` samples that weigh alike and p unknown pixels it is `|r| / sqrt(n - p)`. Errors of
    the maps are in r too, so it can be too high. It needs more samples than pixels: `REDUNDANCY`. Of several sets of
    maps the first is taken, which leaves fewer pixels unknown.
    """
    trajectory, first = prepared.trajectory, prepared.first_set()
    filled = [int(k) for k in np.flatnonzero(~prepared.empty)]
    coils, pixels = prepared.kspace.shape[1], math.prod(prepared.sensitivity_maps.shape[-2:])
    levels = []
    for k in spread(filled, COMPARED_SLICES):  # CG-SENSE takes longer than the other estimates
        samples = coils * (0.0 if trajectory is None else trajectory.effective_samples(k))
        if coils == 1 or samples < REDUNDANCY * pixels:
            return prepared
        operator, kspace = first.operator([k]), first.kspace[[k]]
        residual = operator(CGSense()(kspace, operator, solver=LEAST_SQUARES).value) - kspace
        levels.append(math.sqrt(energy_of(residual) / (samples - pixels)))
    level = float(np.median(levels))
    estimates = {**prepared.noise_estimates, "least squares": level}
    lower = min(level, prepared.noise_level) if prepared.noise_estimated else prepared.noise_level
    return replace(prepared, noise_level=lower, noise_estimates=estimates)

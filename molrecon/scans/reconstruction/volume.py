"""Reconstruction of a volume slice by slice, from the raw data or from the prepared volume."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from molrecon.io import RawVolume, center_crop
from molrecon.reconstructors.base import Reconstructor, evaluating
from molrecon.reconstructors.defaults import DEFAULT_BATCH_SIZE
from molrecon.scans.parts.noise_maps import NoiseMaps, noise_maps
from molrecon.scans.parts.wanted import PLAIN, Parts
from molrecon.scans.preparation import PreparedVolume
from molrecon.scans.reconstruction.adaptation import Adaptation
from molrecon.scans.reconstruction.device import on_device
from molrecon.scans.reconstruction.report import assemble_reconstruction
from molrecon.scans.reconstruction.result import Reconstruction
from molrecon.scans.reconstruction.slices import Method, solve_batches
from molrecon.scans.trajectories.preparation import prepare_volume
from molrecon.solvers.solution import Solution
from molrecon.solvers.solver_settings import SolverSettings
from operators import Sense, SoftSense, WeightedSense


def reconstruct_volume(
    volume: RawVolume,
    model: Reconstructor,
    *,
    solver: SolverSettings | None = None,
    maps: np.ndarray | None = None,
    noise_level: float | None = None,
    device: torch.device | str = "cpu",
    batch_size: int = DEFAULT_BATCH_SIZE,
    progress: bool = False,
    map_sets: int | None = None,
) -> Reconstruction:
    """Reconstruct every slice of a scan.

    Args:
        volume: the scan, from `molrecon.io.read_volume`.
        model: any reconstructor. It is used in evaluation mode, and left where it is and as it was: on another device
            a copy does the work.
        solver: how to iterate, in place of the model's own settings.
        maps: sensitivity maps (slices or 1, coil, rows, cols) complex; None: ESPIRiT from the calibration region.
        noise_level: sigma with E|n|^2 = sigma^2 in the units of kspace; None: estimated from the data.
        device: where to compute.
        batch_size: slices at a time, a thread each on the CPU; halved by itself when a GPU runs out of memory.
        progress: show bars on stderr for work of more than a few seconds.
        map_sets: estimate so many sets of maps, 1 or 2; None: as many as the data need.

    Raises:
        ValueError: maps that do not fit, a calibration region too small for ESPIRiT, a batch size below 1.
    """
    prepared = prepare_volume(volume, maps, noise_level, device, progress, map_sets=map_sets)
    return reconstruct_prepared(prepared, model, solver=solver, device=device, batch_size=batch_size, progress=progress)


def reconstruct_prepared(
    prepared: PreparedVolume,
    model: Reconstructor,
    *,
    solver: SolverSettings | None = None,
    device: torch.device | str = "cpu",
    batch_size: int = DEFAULT_BATCH_SIZE,
    progress: bool = False,
    keep_residual: bool = False,
    parts: Parts = PLAIN,
    adaptation: Adaptation | None = None,
) -> Reconstruction:
    """Do the second half of `reconstruct_volume`, for callers that use the prepared volume for more than this.

    `adaptation` is the noise level that the model is told (`adapt`); None: that of the scan. With `keep_residual` the
    result has its `last_residual`, for a page. `parts` says what else is wanted beside the magnitude. Raises ValueError
    for noise maps of a method without a derivative (`Reconstructor.response`).
    """
    start = time.perf_counter()
    solver = solver or model.solver
    called_with = replace(solver, keep_residual=True) if solver is not None and keep_residual else solver
    prepared = prepared if model.takes_sets else prepared.first_set()
    with evaluating(on_device(model, device)) as working:
        scale = np.ones(len(prepared.empty))
        place = {int(k): number for number, k in enumerate(np.flatnonzero(~prepared.empty))}
        noises: dict[int, NoiseMaps] = {}  # by the first slice of each batch

        def method_of(batch: list[int]) -> Method:
            def method(kspace: Tensor, A: Sense | SoftSense | WeightedSense) -> Solution:
                level = prepared.noise_level
                assumed_level = level if adaptation is None else adaptation.factor * level
                conditioning = working.condition(kspace, A, assumed_level)
                solution: Solution = working(kspace, A, assumed_level, conditioning=conditioning, solver=called_with)
                if parts.noise_probes is not None:
                    seeds, image = [place[k] for k in batch], solution.value
                    noises[batch[0]] = noise_maps(
                        working, A, kspace, prepared.sample_noise_level, image, conditioning, parts.noise_probes, seeds
                    )
                if conditioning is not None:
                    scale[batch] = conditioning.scale.cpu().double().numpy()
                return solution

            return method

        slices = solve_batches(method_of, prepared, device=device, batch_size=batch_size, progress=progress)
        certificate = working.certificate()
    noise = None if parts.noise_probes is None else _delivered_noise(prepared, [noises[k] for k in sorted(noises)])
    result = assemble_reconstruction(
        prepared, slices, model, certificate, scale, solver=solver, device=device, parts=parts, noise=noise
    )
    return replace(result, seconds=prepared.seconds + time.perf_counter() - start, adaptation=adaptation)


def _delivered_noise(prepared: PreparedVolume, noises: list[NoiseMaps]) -> tuple[np.ndarray, np.ndarray]:
    """Return the noise maps of all slices, zero in those without data, cropped: (slices, *recon_shape) float32."""
    maps = np.zeros((2, len(prepared.kspace), *prepared.sensitivity_maps.shape[-2:]), np.float32)
    for number, name in enumerate(("deviation", "amplification")):
        if noises:
            maps[number, ~prepared.empty] = torch.cat([getattr(one, name).cpu() for one in noises]).numpy()
    deviation, amplification = np.ascontiguousarray(center_crop(maps, prepared.volume.recon_shape))
    return deviation, amplification

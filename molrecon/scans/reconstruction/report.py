"""Solved slices with what is said of them: checks of their data, warnings, magnitudes in the units of the input."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from molrecon.io.large_arrays import planes, release
from molrecon.reconstructors.base import Reconstructor
from molrecon.reconstructors.certificate import Certificate
from molrecon.reconstructors.learned import LearnedReconstructor
from molrecon.scans.data_checks import SliceChecks, check_slice
from molrecon.scans.data_warnings import (
    DataWarning,
    noise_warnings,
    remark_warnings,
    slice_warnings,
    training_warnings,
    trajectory_warnings,
)
from molrecon.scans.parts.wanted import PLAIN, Parts
from molrecon.scans.preparation import PreparedVolume, spread
from molrecon.scans.reconstruction.result import Reconstruction
from molrecon.scans.reconstruction.slices import SliceSolutions
from molrecon.scans.trajectories.checks import check_samples
from molrecon.solvers.solver_settings import SolverSettings
from operators import WeightedSense

CHECKED_PLANES = 16  # of a 3D scan


def assemble_reconstruction(
    prepared: PreparedVolume,
    slices: SliceSolutions,
    model: Reconstructor,
    certificate: Certificate,
    scale: np.ndarray,
    *,
    solver: SolverSettings | None,
    device: torch.device | str,
    parts: Parts = PLAIN,
    noise: tuple[np.ndarray, np.ndarray] | None = None,
) -> Reconstruction:
    """Return solved slices as a reconstruction: check their data, and say what there is reason to warn of.

    Args:
        prepared: with as many sets of maps as the images have.
        slices: of a method. model, certificate: that method.
        scale: (slices,), see `Reconstruction`.
        solver: of the call, where it had one.
        device: for the checks.
        parts: what is wanted beside the magnitude. noise: the noise maps, see `Reconstruction`.
    """
    checks = _checks(prepared, slices.image, torch.device(device))
    return Reconstruction(
        image=prepared.magnitude(slices.image),
        method=type(model).__name__,
        error_bound=slices.error_bound,
        kind=slices.kind,
        residuals=slices.residuals,
        converged=slices.converged,
        n_steps=slices.n_steps,
        empty=prepared.empty,
        voxel_size=prepared.volume.voxel_size,
        noise_level=prepared.noise_level,
        scale=scale,
        certificate=certificate,
        solver=solver or model.solver,
        complex_image=prepared.complex_image(slices.image) if parts.complex else None,
        noise=noise,
        seconds=prepared.seconds + slices.seconds,
        left_out=prepared.volume.left_out,
        checks=checks,
        warnings=_warnings(prepared, checks, scale, parts, model),
        geometry=prepared.volume.geometry,
        last_residual=None if slices.last_residual is None else prepared.magnitude(slices.last_residual),
    )


def _checks(prepared: PreparedVolume, image: Tensor, device: torch.device) -> list[SliceChecks]:
    checks = [SliceChecks()] * len(image)
    filled = [int(k) for k in np.flatnonzero(~prepared.empty)]
    # Neighbouring planes of a 3D scan come from the same readouts: some of them stand for all.
    for k in spread(filled, CHECKED_PLANES) if prepared.volume.volumetric else filled:
        kspace, operator = prepared.kspace[[k]].to(device), prepared.operator([k]).to(device)
        if isinstance(operator, WeightedSense):
            effective = 0.0 if prepared.trajectory is None else prepared.trajectory.effective_samples(k)
            checks[k] = check_samples(kspace, operator, prepared.noise_level, image[[k]].to(device), effective)
        else:
            checks[k] = check_slice(kspace, operator, prepared.noise_level, image[[k]].to(device))
        release()
    return checks


def _warnings(
    prepared: PreparedVolume, checks: list[SliceChecks], scale: np.ndarray, parts: Parts, model: Reconstructor
) -> list[DataWarning]:
    maps_given = prepared.maps_source.method == "given"
    largest = max(float(np.abs(one).max()) for one in planes(prepared.volume.kspace))
    rounding = torch.finfo(torch.float32).eps * largest
    warnings = [
        *remark_warnings(prepared.volume),
        *noise_warnings(prepared.noise_level, prepared.noise_estimates, prepared.noise_estimated, rounding),
    ]
    energy = prepared.maps_source.detail.get("second_set_energy")
    if isinstance(energy, float):
        warnings += trajectory_warnings(energy, prepared.sets)
    if isinstance(model, LearnedReconstructor):
        noise = float((prepared.noise_level / scale[~prepared.empty]).max(initial=0.0))
        warnings += training_warnings(
            prepared.volume, noise, sets=prepared.sets, phase=parts.complex, planes=model.ndim != 3
        )
    return warnings + [warning for k, one in enumerate(checks) for warning in slice_warnings(k, one, maps_given)]

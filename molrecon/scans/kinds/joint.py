"""Planes that are one problem because a model sees them together: a 3D scan, or one slice at all times."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from molrecon.reconstructors.base import Reconstructor, evaluating
from molrecon.scans.parts.wanted import PLAIN, Parts
from molrecon.scans.preparation import PreparedVolume
from molrecon.scans.progress import watched
from molrecon.scans.reconstruction import Reconstruction, SliceSolutions, Unit, assemble_reconstruction, on_device
from molrecon.solvers.solution import Kind, Solution
from molrecon.solvers.solver_settings import SolverSettings
from operators import Sense, SoftSense
from operators.model_error import coil_model_error


def joint_volume_problem(prepared: PreparedVolume) -> tuple[Tensor, Sense | SoftSense]:
    """Return k-space (1, coil, readout, rows, cols) and operator of a 3D scan; views of what is held, no copies.

    The readout was transformed when the scan was read, so that it is an axis of separate planes for the operator
    (`fourier_ndim` 2), and joined by the network alone.
    """
    maps = prepared.sensitivity_maps.permute(1, 2, 0, 3, 4)[None]  # (1, set, coil, readout, rows, cols)
    return prepared.kspace.transpose(0, 1)[None], _operator(maps, prepared.sampling_mask[None])


def joint_series_problem(frames: Sequence[PreparedVolume], k: int) -> tuple[Tensor, Sense | SoftSense]:
    """Return k-space (1, coil, time, rows, cols) and operator of slice k at all times, with the maps of the first."""
    maps = frames[0].sensitivity_maps[k][None, :, :, None]  # (1, set, coil, 1, rows, cols)
    masks = [one.sampling_mask[k if len(one.sampling_mask) > 1 else 0] for one in frames]
    rows = max(mask.shape[0] for mask in masks)
    # where a frame lacks the slice, its zeros were not measured
    mask = torch.stack([mask.expand(rows, -1) & (not one.empty[k]) for mask, one in zip(masks, frames, strict=True)])
    mask = mask[None]
    return torch.stack([one.kspace[k] for one in frames], 1)[None], _operator(maps, mask)


def joint_noise_level(planes: Sequence[PreparedVolume], slices: Sequence[int]) -> float:
    """Return `sqrt(sigma^2 + e^2)`, e^2 the mean over planes of the squared error of their maps, `coil_model_error`.

    A model of single planes adds that error by itself; the calibration data of a volume are judged plane by plane.

    Args:
        planes: prepared volumes of one noise level.
        slices: of each, those to look at.
    """
    sigma, squares = planes[0].noise_level, []
    for one in planes:
        for k in slices:
            if not one.empty[k]:
                error = coil_model_error(one.kspace[[k]], one.operator([k]))
                squares.append(float(error) ** 2)
    return math.sqrt(sigma**2 + sum(squares) / max(1, len(squares)))


def _operator(maps: Tensor, mask: Tensor) -> Sense | SoftSense:
    return Sense(maps[:, 0], mask, 2) if maps.shape[1] == 1 else SoftSense(maps, mask, 2)


def reconstruct_jointly(
    frames: Sequence[PreparedVolume],
    model: Reconstructor,
    *,
    solver: SolverSettings | None = None,
    device: torch.device | str = "cpu",
    progress: bool = False,
    parts: Parts = PLAIN,
) -> list[Reconstruction]:
    """Reconstruct a 3D scan as a whole, or every slice of a series at all times.

    Args:
        frames: one prepared 3D scan, or several frames of 2D slices, with the maps of the first.
        model: a reconstructor of three axes, (readout, rows, cols) or (time, rows, cols).
        solver, device, progress: as of `reconstruct_volume`.
        parts: what is wanted beside the magnitude.

    Returns:
        one for each frame. Bound, steps and scale of a slice are those of the problem that it belongs to.

    Raises:
        ValueError: a noise map is wanted.
    """
    if parts.noise_probes is not None:
        raise ValueError("reconstruct: a noise map was asked for, expected none where many planes are one problem")
    start = time.perf_counter()
    frames = list(frames) if model.takes_sets else [one.first_set() for one in frames]
    volume = len(frames) == 1
    filled = ~np.all([one.empty for one in frames], axis=0)
    numbers = [int(k) for k in np.flatnonzero(filled)]
    problems = [numbers] if volume else [[k] for k in numbers]  # the slices of each
    results = [_FrameSolutions(one) for one in frames]
    with evaluating(on_device(model, device)) as working, torch.no_grad():
        certificate = working.certificate()
        for slices in problems:
            kspace, operator = joint_volume_problem(frames[0]) if volume else joint_series_problem(frames, slices[0])
            kspace, operator = kspace.to(device), operator.on(torch.device(device))
            conditioning = working.condition(kspace, operator, joint_noise_level(frames, slices))
            with watched(solver or working.solver, "iterations", progress) as settings:
                solution: Solution = working(kspace, operator, conditioning=conditioning, solver=settings)
            scale = 1.0 if conditioning is None else float(conditioning.scale)
            planes = solution.value[0].cpu().movedim(-3, 0)  # (readout or time, [set,] rows, cols)
            for k, one in enumerate(results):
                one.fill(slices, planes if volume else planes[k, None], solution, scale)
    seconds = (time.perf_counter() - start) / len(frames)
    unit: Unit = "volume" if volume else "series"
    return [
        replace(
            assemble_reconstruction(
                one.prepared,
                one.solutions(seconds),
                model,
                certificate,
                one.scale,
                solver=solver,
                device=device,
                parts=parts,
            ),
            unit=unit,
        )
        for one in results
    ]


class _FrameSolutions:
    """The slices of one frame, filled in as the problems that they belong to are solved."""

    def __init__(self, prepared: PreparedVolume) -> None:
        n, sets = len(prepared.kspace), () if prepared.sets == 1 else (prepared.sets,)
        self.prepared = prepared
        self.image = prepared.kspace.new_zeros(n, *sets, *prepared.kspace.shape[-2:])
        self.error_bound, self.converged = np.zeros(n), np.ones(n, dtype=bool)
        self.n_steps, self.residuals = np.zeros(n, dtype=np.int64), [np.zeros(0)] * n
        self.scale = np.ones(n)
        self.kind: Kind = "none"

    def fill(self, slices: Sequence[int], planes: Tensor, solution: Solution, scale: float) -> None:
        """Take in the planes of the solution of a problem, which are these slices."""
        chosen = [k for k in slices if not self.prepared.empty[k]]
        places = [k if len(planes) == len(self.image) else 0 for k in chosen]
        self.image[chosen] = planes[places].to(self.image.dtype)
        self.error_bound[chosen] = float(solution.error_bound_as(self.image.dtype))
        self.converged[chosen], self.n_steps[chosen] = bool(solution.converged), int(solution.n_steps)
        self.scale[chosen], self.kind = scale, solution.kind
        history = solution.residuals[: int(solution.n_steps) + 1, 0].cpu().double().numpy()
        for k in chosen:
            self.residuals[k] = history

    def solutions(self, seconds: float) -> SliceSolutions:
        """Return all of it, with the seconds that it took."""
        return SliceSolutions(
            self.image, self.error_bound, self.residuals, self.converged, self.n_steps, self.kind, seconds
        )

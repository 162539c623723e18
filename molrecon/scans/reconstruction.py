"""From a raw volume to an image volume with a report on every slice.

volume = molrecon.io.read_volume("scan.h5")
model = molrecon.weights.load("mol-guided-2d", Reconstructor)
result = reconstruct_volume(volume, model)
result.image         # (slices, rows, cols) float32, in the units of the input
result.error_bound   # (slices,): each slice is within this relative distance of the exact equilibrium
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal, final

import numpy as np
import torch
from torch import Tensor

from molrecon.io import RawVolume, center_crop
from molrecon.io.geometry import Geometry
from molrecon.io.large_arrays import planes, release
from molrecon.reconstructors.base import Reconstructor, evaluating
from molrecon.reconstructors.certificate import Certificate
from molrecon.reconstructors.defaults import DEFAULT_BATCH_SIZE
from molrecon.reconstructors.learned import LearnedReconstructor
from molrecon.scans.data_checks import SliceChecks, check_slice
from molrecon.scans.data_warnings import DataWarning, noise_warnings, remark_warnings, slice_warnings, training_warnings
from molrecon.scans.parts.noise_maps import NoiseMaps, noise_maps
from molrecon.scans.parts.wanted import PLAIN, Parts
from molrecon.scans.preparation import PreparedVolume, spread
from molrecon.scans.progress import progress_bar
from molrecon.scans.trajectories.checks import check_samples
from molrecon.scans.trajectories.preparation import prepare_volume
from molrecon.solvers.in_threads import in_threads
from molrecon.solvers.solution import Kind, Solution
from molrecon.solvers.solver_settings import SolverSettings
from operators import Sense, SoftSense, WeightedSense

CHECKED_PLANES = 16  # of a 3D scan
Unit = Literal["slice", "volume", "series"]
Method = Callable[[Tensor, Sense | SoftSense | WeightedSense], Solution]


@final
@dataclass(frozen=True, eq=False)
class SliceSolutions:
    """What a method returned on every slice of a volume.

    Attributes:
        image: (slices, rows, cols) complex64, not cropped to the recon matrix along the columns yet; (slices, set,
            rows, cols) with several sets of maps.
        error_bound: (slices,), as in `Solution`.
        residuals: as in `Solution`, one array per slice; empty for a slice without data.
        converged: (slices,) bool. n_steps: (slices,) int.
        kind: what the bounds rest on, see `Solution`.
        seconds: duration of the solves alone.
        last_residual: as in `Solution`, shaped like the image; None where it was not asked for, or there is none.

    A slice without data is zero, converged, with bound 0 after 0 steps.
    """

    image: Tensor
    error_bound: np.ndarray
    residuals: list[np.ndarray]
    converged: np.ndarray
    n_steps: np.ndarray
    kind: Kind
    seconds: float
    last_residual: Tensor | None = None


@final
@dataclass(frozen=True, eq=False)
class Reconstruction:
    """A reconstructed volume, or a series of volumes (`joined`).

    Of a series the image is (time, slices, rows, cols), and what is (slices,) holds the slices of all frames one after
    another.

    Attributes:
        image: (slices, rows, cols) float32, magnitude in the units of the input, comparable with the root sum of
            squares of the coil images; cropped to the recon matrix.
        method: the class of the reconstructor.
        error_bound: (slices,), upper bound of the relative distance to the exact solution of the method's own equation;
            a guarantee when `kind` is "certified", NaN when it is "none". 0 in slices without data. Where several
            slices are one problem (`unit`) each has the bound of them all: of `|x - x*| / |x|` with norms over them.
        kind: what the bounds rest on, see `Solution`.
        residuals: as in `Solution`, one array per slice.
        converged: (slices,) bool, the goal of `solver` was reached. n_steps: (slices,) int.
        empty: (slices,) bool, the slice holds no data and is delivered as zeros.
        voxel_size: mm (row, column, slice), or None.
        noise_level: the complex noise standard deviation that was used, in the units of kspace.
        scale: (slices,), the intensity by which the model divided each slice, in the units of the image; 1 where empty.
        certificate: what is guaranteed about the model.
        solver: goals and limits of the iterations; None for a method that iterates nothing.
        seconds: from the raw data to the image, sensitivity maps included.
        left_out: what the file holds and the image does not, as in `RawVolume`.
        checks: how well the data of each slice fit their model and image; of empty slices nothing is known, and of a 3D
            scan CHECKED_PLANES of them are looked at.
        warnings: what the checks, the noise estimates and the reader of the file give reason to warn of; those of the
            whole volume first, then slice by slice.
        geometry: where the voxels are in the patient, or None.
        time_step: of a series, seconds from frame to frame; None where it is unknown.
        unit: what one problem was: a "slice", all slices of a 3D scan ("volume"), or a slice at all times ("series").
        last_residual: (slices, rows, cols) float32, magnitude of `Solution.last_residual`, in the units of the image:
            what is left of the method's equation, pixel by pixel, and no map of the error. Of a series that of its
            first frame. None where it was not asked for, or the method has none.
        complex_image: complex64 of the shape of the image, which is its magnitude; the phase is relative to that of the
            coil maps, and of several sets that of the first. None where it was not asked for.
        noise: standard deviation and amplification, of the shape of the image each, see `NoiseMaps`; None likewise.
    """

    image: np.ndarray
    method: str
    error_bound: np.ndarray
    kind: Kind
    residuals: list[np.ndarray]
    converged: np.ndarray
    n_steps: np.ndarray
    empty: np.ndarray
    voxel_size: tuple[float, float, float] | None
    noise_level: float
    scale: np.ndarray
    certificate: Certificate
    solver: SolverSettings | None
    seconds: float
    left_out: Mapping[str, int] = field(default_factory=dict)
    checks: list[SliceChecks] = field(default_factory=list)
    warnings: list[DataWarning] = field(default_factory=list)
    geometry: Geometry | None = None
    time_step: float | None = None
    unit: Unit = "slice"
    last_residual: np.ndarray | None = None
    complex_image: np.ndarray | None = None
    noise: tuple[np.ndarray, np.ndarray] | None = None


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
        map_sets: estimate so many sets of maps, 1 or 2; None: as many as the data ask for.

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
) -> Reconstruction:
    """Do the second half of `reconstruct_volume`, for callers that use the prepared volume for more than this.

    With `keep_residual` the result has its `last_residual`, for a page. `parts` says what else is wanted beside the
    magnitude. Raises ValueError for noise maps of a method whose derivative is not known (`Reconstructor.response`).
    """
    start = time.perf_counter()
    solver = solver or model.solver
    called_with = replace(solver, keep_residual=True) if solver is not None and keep_residual else solver
    prepared = prepared if model.takes_sets else prepared.first_set()
    with evaluating(on_device(model, device)) as working:
        scale = np.ones(len(prepared.empty))
        place = {int(k): number for number, k in enumerate(np.flatnonzero(~prepared.empty))}
        noises: dict[int, NoiseMaps] = {}  # by the first slice of each part

        def method_of(part: list[int]) -> Method:
            def method(kspace: Tensor, A: Sense | SoftSense | WeightedSense) -> Solution:
                known = working.condition(kspace, A, prepared.noise_level)
                solution: Solution = working(kspace, A, prepared.noise_level, conditioning=known, solver=called_with)
                if parts.noise_probes is not None:
                    seeds = [place[k] for k in part]
                    image, level = solution.value, prepared.sample_noise_level
                    noises[part[0]] = noise_maps(working, A, kspace, level, image, known, parts.noise_probes, seeds)
                if known is not None:
                    scale[part] = known.scale.cpu().double().numpy()
                return solution

            return method

        slices = solve_parts(method_of, prepared, device=device, batch_size=batch_size, progress=progress)
        certificate = working.certificate()
    noise = None if parts.noise_probes is None else _delivered(prepared, [noises[k] for k in sorted(noises)])
    found = reported(
        prepared, slices, model, certificate, scale, solver=solver, device=device, parts=parts, noise=noise
    )
    return replace(found, seconds=prepared.seconds + time.perf_counter() - start)


def reported(
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
    """Return solved slices with all that is said of them; the data are checked here.

    Args:
        prepared: with as many sets of maps as the images have.
        slices: of a method. model, certificate: that method.
        scale: (slices,), see `Reconstruction`.
        solver: of the call, where it had one.
        device: for the checks.
        parts: what is wanted beside the magnitude. noise: the noise maps, see `Reconstruction`.
    """
    learned = isinstance(model, LearnedReconstructor)
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
        warnings=_warnings(prepared, checks, _training(prepared, scale, parts, model.ndim) if learned else []),
        geometry=prepared.volume.geometry,
        last_residual=None if slices.last_residual is None else prepared.magnitude(slices.last_residual),
    )


def _delivered(prepared: PreparedVolume, noises: list[NoiseMaps]) -> tuple[np.ndarray, np.ndarray]:
    """Return the noise maps of all slices, zero in those without data, cropped: (slices, *recon_shape) float32."""
    whole = np.zeros((2, len(prepared.kspace), *prepared.sensitivity_maps.shape[-2:]), np.float32)
    for number, name in enumerate(("deviation", "amplification")):
        if noises:
            whole[number, ~prepared.empty] = torch.cat([getattr(one, name).cpu() for one in noises]).numpy()
    deviation, amplification = np.ascontiguousarray(center_crop(whole, prepared.volume.recon_shape))
    return deviation, amplification


def on_device(model: Reconstructor, device: torch.device | str) -> Reconstructor:
    """Return the model if all of it is on the device, else a copy there: the caller's own stays where it is."""
    where = {tensor.device for tensor in (*model.parameters(), *model.buffers())}
    return model if where <= {_full(device)} else copy.deepcopy(model).to(device)


def _full(device: torch.device | str) -> torch.device:
    device = torch.device(device)
    return torch.device("cuda", torch.cuda.current_device()) if device == torch.device("cuda") else device


def _checks(prepared: PreparedVolume, image: Tensor, device: torch.device) -> list[SliceChecks]:
    checks = [SliceChecks()] * len(image)
    filled = [int(k) for k in np.flatnonzero(~prepared.empty)]
    # Neighbours of a 3D scan come from the same readouts: some of them tell of all.
    for k in spread(filled, CHECKED_PLANES) if prepared.volume.volumetric else filled:
        kspace, operator = prepared.kspace[[k]].to(device), prepared.operator([k]).to(device)
        if isinstance(operator, WeightedSense):
            effective = 0.0 if prepared.trajectory is None else prepared.trajectory.effective_samples(k)
            checks[k] = check_samples(kspace, operator, prepared.noise_level, image[[k]].to(device), effective)
        else:
            checks[k] = check_slice(kspace, operator, prepared.noise_level, image[[k]].to(device))
        release()
    return checks


def _training(prepared: PreparedVolume, scale: np.ndarray, parts: Parts, ndim: int | None) -> list[DataWarning]:
    relative = float((prepared.noise_level / scale[~prepared.empty]).max(initial=0.0))
    return training_warnings(prepared.volume, relative, sets=prepared.sets, phase=parts.complex, planes=ndim != 3)


def _warnings(prepared: PreparedVolume, checks: list[SliceChecks], of_training: list[DataWarning]) -> list[DataWarning]:
    given = prepared.maps_source.method == "given"
    largest = max(float(np.abs(one).max()) for one in planes(prepared.volume.kspace))
    rounding = torch.finfo(torch.float32).eps * largest
    return [
        *remark_warnings(prepared.volume),
        *noise_warnings(prepared.noise_level, prepared.noise_estimates, prepared.noise_estimated, rounding),
        *of_training,
        *(warning for k, one in enumerate(checks) for warning in slice_warnings(k, one, given)),
    ]


def solve_slices(
    method: Method,
    prepared: PreparedVolume,
    *,
    device: torch.device | str = "cpu",
    batch_size: int = DEFAULT_BATCH_SIZE,
    progress: bool = False,
    description: str = "slices",
) -> SliceSolutions:
    """Run any method `(kspace, A) -> Solution` on the slices of a prepared volume, a few at a time.

    On a GPU they are a batch. On the CPU each has a thread of its own (see `in_threads`), as far as torch has threads:
    two slices in a batch take as long as two slices one after the other, and a thread each takes half of that.

    Raises:
        ValueError: a batch size below 1.
        torch.OutOfMemoryError: when even a single slice does not fit the device.
    """
    return solve_parts(
        lambda part: method,
        prepared,
        device=device,
        batch_size=batch_size,
        progress=progress,
        description=description,
    )


def solve_parts(
    method_of: Callable[[list[int]], Method],
    prepared: PreparedVolume,
    *,
    device: torch.device | str = "cpu",
    batch_size: int = DEFAULT_BATCH_SIZE,
    progress: bool = False,
    description: str = "slices",
) -> SliceSolutions:
    """Do as `solve_slices`, with a method that knows which slices it is given, in whatever order and thread."""
    if batch_size < 1:
        raise ValueError(f"solve_slices: batch_size is {batch_size}, expected at least 1")
    start = time.perf_counter()
    n_slices = prepared.kspace.shape[0]
    sets = () if prepared.sets == 1 else (prepared.sets,)
    image = prepared.kspace.new_zeros(n_slices, *sets, *prepared.sensitivity_maps.shape[-2:])
    error_bound, converged = np.zeros(n_slices), np.ones(n_slices, dtype=bool)
    n_steps, residuals = np.zeros(n_slices, dtype=np.int64), [np.zeros(0)] * n_slices
    kind: Kind = "none"
    left: Tensor | None = None
    filled = [int(k) for k in np.flatnonzero(~prepared.empty)]
    side_by_side = torch.device(device).type == "cpu" and torch.get_num_threads() > 1
    size, at_once = (1, batch_size) if side_by_side else (batch_size, 1)
    batches = [filled[i : i + size] for i in range(0, len(filled), size)]
    solve = partial(_solve_in_memory, method_of, prepared, device=torch.device(device))
    found = in_threads(solve, batches, at_once)
    for _ in progress_bar(batches, description, progress, unit="batch"):
        release()
        for part, solution in next(found):
            kind = solution.kind
            image[part] = solution.value.cpu().to(image.dtype)
            if solution.last_residual is not None:
                left = torch.zeros_like(image) if left is None else left
                left[part] = solution.last_residual.cpu().to(left.dtype)
            error_bound[part] = solution.error_bound.cpu().double().numpy()
            converged[part] = solution.converged.cpu().numpy()
            n_steps[part] = solution.n_steps.cpu().numpy()
            for position, k in enumerate(part):
                residuals[k] = solution.residuals[: n_steps[k] + 1, position].cpu().double().numpy()
    seconds = time.perf_counter() - start
    return SliceSolutions(image, error_bound, residuals, converged, n_steps, kind, seconds, left)


def _solve_in_memory(
    method_of: Callable[[list[int]], Method], prepared: PreparedVolume, batch: list[int], device: torch.device
) -> list[tuple[list[int], Solution]]:
    """Solve a batch, or its two halves when it does not fit the device's memory."""
    try:
        with torch.no_grad():
            kspace, operator = prepared.kspace[batch].to(device), prepared.operator(batch).on(device)
            return [(batch, method_of(batch)(kspace, operator))]
    except torch.OutOfMemoryError:
        if len(batch) == 1:
            raise
    torch.cuda.empty_cache()
    half = len(batch) // 2
    first = _solve_in_memory(method_of, prepared, batch[:half], device)
    return first + _solve_in_memory(method_of, prepared, batch[half:], device)

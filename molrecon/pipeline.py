"""From a raw volume to an image volume with a report on every slice.

volume = molrecon.io.read_volume("scan.h5")
model = molrecon.weights.load_model("mol-brain-2d")
result = reconstruct_volume(volume, model)
result.image         # (slices, rows, cols) float32, in the units of the input
result.error_bound   # (slices,): each slice is within this relative distance of the exact equilibrium
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from torch import Tensor

from molrecon.defaults import DEFAULT_BATCH_SIZE
from molrecon.io import RawVolume
from molrecon.lipschitz import Certificate
from molrecon.mol import MOL
from molrecon.preparation import PreparedVolume, prepare
from molrecon.progress import progress_bar
from molrecon.solution import Solution
from operators import Sense

Method = Callable[[Tensor, Sense], Solution]


@final
@dataclass(frozen=True, eq=False)
class SliceSolutions:
    """What a method returned on every slice of a volume.

    Attributes:
        image: (slices, rows, cols) complex64, not cropped to the recon matrix along the columns yet.
        error_bound: (slices,), as in `Solution`.
        residuals: the history of the bound, one array (n_steps + 1,) per slice; empty for a slice without data.
        converged: (slices,) bool. n_steps: (slices,) int.
        seconds: duration of the solves alone.

    A slice without data is zero, converged, with bound 0 after 0 steps.
    """

    image: Tensor
    error_bound: np.ndarray
    residuals: list[np.ndarray]
    converged: np.ndarray
    n_steps: np.ndarray
    seconds: float


@final
@dataclass(frozen=True, eq=False)
class Reconstruction:
    """A reconstructed volume.

    Attributes:
        image: (slices, rows, cols) float32, magnitude in the units of the input, comparable with the root sum of
            squares of the coil images; cropped to the recon matrix.
        error_bound: (slices,), upper bound of the relative distance to the exact equilibrium; a guarantee when
            `certificate` is "certified".
        residuals: the history of that bound, one array (n_steps + 1,) per slice.
        converged: (slices,) bool, the bound reached `tol`. n_steps: (slices,) int.
        empty: (slices,) bool, the slice holds no data and is delivered as zeros.
        voxel_size: mm (row, column, slice), or None.
        noise_level: the complex noise standard deviation that was used, in the units of kspace.
        scale: (slices,), the intensity by which the model divided each slice, in the units of the image; 1 where empty.
        certificate: what is guaranteed about the model.
        tol, max_steps: the solver's settings.
        seconds: from the raw data to the image, sensitivity maps included.
    """

    image: np.ndarray
    error_bound: np.ndarray
    residuals: list[np.ndarray]
    converged: np.ndarray
    n_steps: np.ndarray
    empty: np.ndarray
    voxel_size: tuple[float, float, float] | None
    noise_level: float
    scale: np.ndarray
    certificate: Certificate
    tol: float
    max_steps: int
    seconds: float


def reconstruct_volume(
    volume: RawVolume,
    model: MOL,
    *,
    maps: np.ndarray | None = None,
    noise_level: float | None = None,
    device: torch.device | str = "cpu",
    batch_size: int = DEFAULT_BATCH_SIZE,
    progress: bool = False,
) -> Reconstruction:
    """Reconstruct every slice of a scan.

    Args:
        volume: the scan, from `molrecon.io.read_volume`.
        model: the reconstructor; its `tol` and `max_steps` apply. It is moved to `device`.
        maps: sensitivity maps (slices or 1, coil, rows, cols) complex; None: ESPIRiT from the calibration region.
        noise_level: sigma with E|n|^2 = sigma^2 in the units of kspace; None: estimated from the data.
        device: where to compute.
        batch_size: slices at a time; halved by itself when a GPU runs out of memory.
        progress: show bars on stderr for work of more than a few seconds.

    Raises:
        ValueError: maps that do not fit, a calibration region too small for ESPIRiT, a batch size below 1.
    """
    prepared = prepare(volume, maps, noise_level, device, progress)
    return reconstruct_prepared(prepared, model, device=device, batch_size=batch_size, progress=progress)


def reconstruct_prepared(
    prepared: PreparedVolume,
    model: MOL,
    *,
    device: torch.device | str = "cpu",
    batch_size: int = DEFAULT_BATCH_SIZE,
    progress: bool = False,
) -> Reconstruction:
    """Do the second half of `reconstruct_volume`, for callers that use the prepared volume for more than this."""
    start = time.perf_counter()
    model = model.to(device)

    def method(kspace: Tensor, A: Sense) -> Solution:
        return model(kspace, A, noise_level=prepared.noise_level)

    slices = solve_slices(method, prepared, device=device, batch_size=batch_size, progress=progress)
    return Reconstruction(
        image=prepared.magnitude(slices.image),
        error_bound=slices.error_bound,
        residuals=slices.residuals,
        converged=slices.converged,
        n_steps=slices.n_steps,
        empty=prepared.empty,
        voxel_size=prepared.volume.voxel_size,
        noise_level=prepared.noise_level,
        scale=_scale(prepared, model),
        certificate=model.certificate(),
        tol=model.tol,
        max_steps=model.max_steps,
        seconds=prepared.seconds + time.perf_counter() - start,
    )


def _scale(prepared: PreparedVolume, model: MOL) -> np.ndarray:
    scale = np.ones(len(prepared.empty))
    for k in map(int, np.flatnonzero(~prepared.empty)):
        known = model.condition(prepared.kspace[[k]], prepared.operator([k]), prepared.noise_level)
        scale[k] = float(known.scale)
    return scale


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

    Raises:
        ValueError: a batch size below 1.
        torch.OutOfMemoryError: when even a single slice does not fit the device.
    """
    if batch_size < 1:
        raise ValueError(f"solve_slices: batch_size is {batch_size}, expected at least 1")
    start = time.perf_counter()
    n_slices = prepared.kspace.shape[0]
    image = torch.zeros_like(prepared.kspace[:, 0])
    error_bound, converged = np.zeros(n_slices), np.ones(n_slices, dtype=bool)
    n_steps, residuals = np.zeros(n_slices, dtype=np.int64), [np.zeros(0)] * n_slices
    filled = [int(k) for k in np.flatnonzero(~prepared.empty)]
    batches = [filled[i : i + batch_size] for i in range(0, len(filled), batch_size)]
    for batch in progress_bar(batches, description, progress, unit="batch"):
        for part, solution in _solve_in_memory(method, prepared, batch, torch.device(device)):
            image[part] = solution.value.cpu().to(image.dtype)
            error_bound[part] = solution.error_bound.cpu().double().numpy()
            converged[part] = solution.converged.cpu().numpy()
            n_steps[part] = solution.n_steps.cpu().numpy()
            for position, k in enumerate(part):
                residuals[k] = solution.residuals[: n_steps[k] + 1, position].cpu().double().numpy()
    return SliceSolutions(image, error_bound, residuals, converged, n_steps, time.perf_counter() - start)


def _solve_in_memory(
    method: Method, prepared: PreparedVolume, batch: list[int], device: torch.device
) -> list[tuple[list[int], Solution]]:
    """Solve a batch, or its two halves when it does not fit the device's memory."""
    try:
        with torch.no_grad():
            return [(batch, method(prepared.kspace[batch].to(device), prepared.operator(batch).to(device)))]
    except torch.OutOfMemoryError:
        if len(batch) == 1:
            raise
    torch.cuda.empty_cache()
    half = len(batch) // 2
    first = _solve_in_memory(method, prepared, batch[:half], device)
    return first + _solve_in_memory(method, prepared, batch[half:], device)

"""Any method on the slices of a prepared volume: in batches on a GPU, in threads on the CPU."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import final

import numpy as np
import torch
from torch import Tensor

from molrecon.io.large_arrays import release
from molrecon.reconstructors.defaults import DEFAULT_BATCH_SIZE
from molrecon.scans.preparation import PreparedVolume
from molrecon.scans.progress import progress_bar
from molrecon.solvers.in_threads import in_threads
from molrecon.solvers.solution import Kind, Solution
from operators import Sense, SoftSense, WeightedSense

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
    return solve_batches(
        lambda batch: method,
        prepared,
        device=device,
        batch_size=batch_size,
        progress=progress,
        description=description,
    )


def solve_batches(
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
    last_residual: Tensor | None = None
    filled = [int(k) for k in np.flatnonzero(~prepared.empty)]
    side_by_side = torch.device(device).type == "cpu" and torch.get_num_threads() > 1
    size, at_once = (1, batch_size) if side_by_side else (batch_size, 1)
    batches = [filled[i : i + size] for i in range(0, len(filled), size)]
    solve = partial(_solve_in_memory, method_of, prepared, device=torch.device(device))
    solved = in_threads(solve, batches, at_once)
    for _ in progress_bar(batches, description, progress, unit="batch"):
        release()
        for batch, solution in next(solved):
            kind = solution.kind
            image[batch] = solution.value.cpu().to(image.dtype)
            if solution.last_residual is not None:
                last_residual = torch.zeros_like(image) if last_residual is None else last_residual
                last_residual[batch] = solution.last_residual.cpu().to(image.dtype)
            error_bound[batch] = solution.error_bound_as(image.dtype).cpu().double().numpy()
            converged[batch] = solution.converged.cpu().numpy()
            n_steps[batch] = solution.n_steps.cpu().numpy()
            for position, k in enumerate(batch):
                residuals[k] = solution.residuals[: n_steps[k] + 1, position].cpu().double().numpy()
    seconds = time.perf_counter() - start
    return SliceSolutions(image, error_bound, residuals, converged, n_steps, kind, seconds, last_residual)


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

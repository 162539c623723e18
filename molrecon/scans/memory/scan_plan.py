"""How a scan is reconstructed inside a budget: where k-space and maps lie, slices at a time, and the network's plan.

What is held is counted, not measured; `tests/molrecon/scans/memory` compares it with the peak of whole processes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import final

from molrecon.io.large_arrays import arrays_on_disk, on_disk
from molrecon.networks.denoiser import Denoiser
from molrecon.reconstructors.base import Reconstructor
from molrecon.reconstructors.learned import LearnedReconstructor
from molrecon.reconstructors.mol import MOL
from molrecon.scans.memory.file_sizes import file_size
from molrecon.scans.memory.network_plan import (
    PROGRAM_BYTES,
    bill,
    fit_to_memory,
    gib,
    parse_size,
    plan_memory,
    solve_items,
)
from molrecon.scans.preparation import PreparedVolume
from molrecon.scans.reconstruction import Unit

# What drawing and writing load and hold besides: matplotlib, the encoders of the page and of the cohort's. A process
# whose arrays need 100 MiB holds 690 to 780 MiB at most, 400 of them the program.
OUTPUT_BYTES = 300 * 1024**2
PLANE_COPIES = 8  # of a slice's k-space, with two sets of maps, while it is cropped, calibrated, solved and checked
IMAGE_PIXEL = 64  # bytes of all images of a pixel: solution, magnitude, and what pages show of them
OTHER_PIXEL = 3000  # bytes, of models that cannot say what they hold


@final
@dataclass(frozen=True, eq=False)
class ScanPlan:
    """How the images of a series are reconstructed inside the budget.

    Attributes:
        budget: bytes.
        model: the model, set up for it.
        batch_size: slices at a time.
        choices: in one sentence.
        items: bytes of what is held at the peak.
    """

    budget: int
    model: Reconstructor
    batch_size: int
    choices: str
    items: dict[str, int]

    @property
    def total(self) -> int:
        """The estimated peak in bytes."""
        return sum(self.items.values())

    def describe(self) -> str:
        """Return the plan and its bill in one sentence."""
        return f"{self.choices}; estimated {gib(self.total)} of {gib(self.budget)} GiB: {bill(self.items)}"


@contextmanager
def inside_budget(path: Path, folder: Path, budget: int | None) -> Iterator[None]:
    """Let large arrays lie in files of a folder where a scan would not fit otherwise; None: no budget, nothing is done.

    Args:
        path: of the scan, not read yet.
        folder: on a disk.
        budget: bytes.

    Raises:
        ValueError: reading the scan alone takes more than the budget, or one slice of it does.
        UnreadableInput: a file that cannot be used.
    """
    size = None if budget is None else file_size(path)
    if budget is None or size is None:
        yield
        return
    fixed = PROGRAM_BYTES + OUTPUT_BYTES
    work = PLANE_COPIES * size.plane
    # k-space, what is left of it once it is cropped or mixed, and two sets of maps
    whole = fixed + max(4 * size.kspace + work, size.kspace + size.transient)
    least = fixed + max(work, size.transient) + (0 if size.by_slice else size.kspace)
    if least > budget:
        reading = "one slice of it at a time" if size.by_slice else "all of it, as files of this kind are read,"
        raise ValueError(
            f"{path.name}: the budget is {gib(budget)} GiB, expected {gib(least)} or more: {reading} takes so much"
        )
    if whole <= budget:
        yield
        return
    with arrays_on_disk(folder):
        yield


def plan_series(
    prepared: PreparedVolume,
    frames: int,
    model: Reconstructor,
    unit: Unit,
    budget: int | str,
    batch_size: int,
) -> ScanPlan:
    """Return how a series is reconstructed inside the budget: precision, window and tiles of a MOL, slices at a time.

    Args:
        prepared: its first frame.
        frames: how many.
        model: what reconstructs it. unit: what it sees at a time.
        budget: bytes, or a size that `parse_size` reads.
        batch_size: slices at a time, at most.

    Raises:
        ValueError: not even one slice, or the volume or series that is one problem, fits; the message says what would.
    """
    budget = parse_size(budget) if isinstance(budget, str) else budget
    slices, coils = prepared.kspace.shape[:2]
    rows, cols = prepared.sensitivity_maps.shape[-2:]
    arrays = _arrays(prepared, frames, unit)
    pixels = slices * rows * cols * frames
    writing = {"program": PROGRAM_BYTES, **arrays, "images": IMAGE_PIXEL * pixels, "output": OUTPUT_BYTES}
    _check(budget, writing, f"writing {slices * frames} slices of {rows} x {cols}")
    if unit != "slice":
        return _plan_joint(prepared, frames, model, unit, budget, arrays)
    plane = max(8 * prepared.kspace[0].numel(), prepared.volume.kspace[0].nbytes)
    items: dict[str, int] = {}
    for size in range(min(batch_size, slices), 0, -1):
        work = _slice_items(model, size * rows * cols, size * plane)
        items = {"program": PROGRAM_BYTES, **arrays, "solutions": 16 * pixels, **work}
        if sum(items.values()) <= budget:
            choices = (
                f"{size} slice{'s' if size > 1 else ''} at a time{', k-space and maps on disk' if on_disk() else ''}"
            )
            return ScanPlan(budget, model, size, choices, items)
    _check(budget, items, f"one slice of {rows} x {cols} with {coils} coils")
    raise RuntimeError("plan_series: no batch was tried")


def _check(budget: int, items: dict[str, int], work: str) -> None:
    total = sum(items.values())
    if total > budget:
        raise ValueError(
            f"plan_series: the budget is {gib(budget)} GiB, expected {gib(total)} or more for {work}: {bill(items)}"
        )


def _plan_joint(
    prepared: PreparedVolume, frames: int, model: Reconstructor, unit: Unit, budget: int, arrays: dict[str, int]
) -> ScanPlan:
    if not isinstance(model, MOL):
        raise ValueError(f"plan_series: {type(model).__name__} sees a {unit} at a time, expected MOL with a budget")
    slices, coils, rows, cols = prepared.kspace.shape
    shape = (slices if unit == "volume" else frames, rows, cols)
    # The network's plan counts the problem's k-space and maps; of a volume they are those that are held in any case.
    problem = 2 * 8 * coils * math.prod(shape)
    others = sum(arrays.values()) - (problem if unit == "volume" and not on_disk() else 0)
    # What is solved already, and a step's image in the units of the data, for the progress bar.
    others = max(0, others) + 16 * slices * frames * rows * cols + 16 * math.prod(shape)
    if others >= budget:
        _check(budget, {**arrays, "others": others}, f"a {unit} of {shape[0]} x {rows} x {cols}")
    first = model.first.network if isinstance(model.first, LearnedReconstructor) else None
    plan = plan_memory(budget - others, model.network, shape, coils, first=first, window=model.solver.window)
    return ScanPlan(budget, fit_to_memory(model, plan), 1, plan.choices(), plan.items | {"other arrays": others})


def _arrays(prepared: PreparedVolume, frames: int, unit: Unit) -> dict[str, int]:
    """Return what is held in memory of all slices: k-space as measured, and as it is solved, and maps."""
    if on_disk():
        return {}
    volume, kspace = prepared.volume.kspace, prepared.kspace
    copies = 0 if kspace.data_ptr() == volume.ctypes.data else (frames if unit == "series" else 1)
    measured = volume.nbytes * frames + (0 if prepared.volume.calibration is None else volume.nbytes)
    maps = prepared.sensitivity_maps
    return {
        "k-space": measured + copies * 8 * kspace.numel(),
        "maps": 8 * maps.numel() if maps.stride(0) else 8 * maps[0].numel(),
    }


def _slice_items(model: Reconstructor, pixels: int, plane: int) -> dict[str, int]:
    """Return what the work on slices of so many pixels together holds, `plane` bytes of k-space."""
    network = getattr(model, "network", None)
    window = 0 if model.solver is None else model.solver.window
    items = {"slices": PLANE_COPIES * plane}
    if not isinstance(network, Denoiser):
        return items
    try:
        field = network.receptive_field()
    except (TypeError, ValueError):  # it does not say
        return items | {"network": OTHER_PIXEL * pixels}
    return items | solve_items(pixels, pixels, field, 4, window, True)

"""A reconstruction inside a given amount of memory: tiles, Anderson window and precision are chosen for it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import TypeVar, final

import torch

from molrecon.networks import Denoiser
from molrecon.networks.denoiser import ReceptiveField
from molrecon.networks.tiling import Tiled, cut_axis
from molrecon.reconstructors.learned import LearnedReconstructor
from molrecon.reconstructors.mol import MOL
from molrecon.solvers.fixed_point import WINDOW
from operators.coil_chunks import CHUNK_BYTES, DEVICE_CHUNK_BYTES
from operators.principal_coils import FEWEST, MOST_BYTES

UNITS = {"": 1, "k": 1000, "M": 1000**2, "G": 1000**3, "T": 1000**4}
UNITS |= {f"{prefix}i": 1024**power for power, prefix in enumerate("kMGT", start=1)}
GIB = 1024**3

# Steps to the tolerance by Anderson differences kept, relative to the default (packaged 2D model, 4x and 8x).
STEPS = {10: 1.0, 8: 1.05, 6: 1.15, 4: 1.25, 2: 1.6, 1: 2.0, 0: 6.0}
NETWORK_SHARE = 0.6  # of an iteration's time
SINGLE_PRECISION_COST = 4.0  # it stops short of the tolerance of a strongly weighted data term: the last resort
TILES_ALONG_AXIS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 24, 32)
MOST_WORK = 30.0  # pixels computed for one of the image: smaller tiles would take too long to be of use
LEFT_OVER_BYTES = 320 * 1024**2  # what the C library keeps of freed tensors under 32 MiB, at most
# Python, torch and the libraries' own buffers: importing torch holds 220 MiB, a build with CUDA 500 MiB, also where
# there is no GPU.
PROGRAM_BYTES = (400 if torch.version.cuda is None else 700) * 1024**2


def parse_size(text: str) -> int:
    """Return the bytes of a size such as "8GiB", "6000MB", "1.5 G" or "2147483648".

    k, M, G, T are powers of 1000; Ki, Mi, Gi, Ti of 1024; the B may be left out.

    Raises:
        ValueError: anything else, or nothing at all.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kKMGT]i?)?B?\s*", text)
    size = int(float(match[1]) * UNITS[(match[2] or "").replace("K", "k")]) if match else 0
    if size < 1:
        raise ValueError(f"parse_size: got {text!r}, expected a size such as '8GiB', '6000MB' or a number of bytes")
    return size


@final
@dataclass(frozen=True)
class MemoryPlan:
    """How a model is set up to stay inside a budget, and what it is estimated to hold at its peak.

    Attributes:
        budget: bytes.
        shape: spatial axes of the image.
        tile: pixels that the network is given at a time, without their halo; `shape` for the whole image.
        halo: pixels read on either side of a tile, along each axis; 0 along axes that are not cut.
        work: pixels that the network computes, halos included, relative to those of the image.
        window: Anderson differences kept.
        refine: hold image and data term in double precision.
        items: bytes of what is held at the peak.
    """

    budget: int
    shape: tuple[int, ...]
    tile: tuple[int, ...]
    halo: tuple[int, ...]
    work: float
    window: int
    refine: bool
    items: dict[str, int]

    @property
    def total(self) -> int:
        """The estimated peak in bytes."""
        return sum(self.items.values())

    def choices(self) -> str:
        """Return what was chosen, in words."""
        tiling = "the whole image at once"
        if any(self.halo):
            tiling = f"tiles {_sizes(self.tile)} with halo {_sizes(self.halo)} ({self.work:.2f} times the pixels)"
        precision = "double" if self.refine else "single"
        return f"{tiling}, window {self.window}, {precision} refinement"

    def describe(self) -> str:
        """Return the plan and its bill in one sentence."""
        return f"{self.choices()}; estimated {gib(self.total)} of {gib(self.budget)} GiB: {bill(self.items)}"


ModelT = TypeVar("ModelT", bound=LearnedReconstructor)


def plan_memory(
    budget: int | str,
    network: Denoiser,
    shape: Sequence[int],
    coils: int,
    *,
    first: Denoiser | None = None,
    window: int = WINDOW,
    decoupled: bool = True,
) -> MemoryPlan:
    """Return the fastest plan for a MOL with this network, one sample of complex64 data, inside the budget.

    Counted is all that the process holds, k-space and maps of full size included, when the solve is at its peak,
    without gradients, on the CPU: iterates, right side, and residuals in the precision of the refinement; phase,
    updates and the conjugate gradients' in that of the network; Anderson's history; the network on the largest tile.
    Tiles with halos cost computed pixels, smaller windows iterations (`STEPS`), and single precision, which is the
    last thing given up, the accuracy that can be attained (see `MOL`). What is held while the data are read is not
    counted. The C library is taken to keep half as much again of what is freed, which tiles can double by chance: a
    process that is to stay inside calls `allocator.return_freed_memory` first, as the commands do.

    Args:
        budget: bytes, or a size that `parse_size` reads.
        network: the denoiser, with a receptive field.
        shape: spatial axes of the image.
        coils: of k-space and maps.
        first: the network of the model that guides, if there is one.
        window: Anderson differences at most.
        decoupled: the data term can be worked through along the first axis (a fully sampled readout, time); otherwise
            it holds the coil images of the whole volume, a few coils at a time.

    Raises:
        TypeError, ValueError: the network cannot be tiled, see `Denoiser.receptive_field`.
        ValueError: sizes that fit neither network nor budget; the message says what the smallest plan needs.
    """
    budget = parse_size(budget) if isinstance(budget, str) else budget
    network = untiled(network)
    shape = tuple(shape)
    if len(shape) != network.ndim or min(shape) < 1 or coils < 1 or window < 0:
        raise ValueError(
            f"plan_memory: got shape {shape}, coils {coils}, window {window}; expected {network.ndim} positive sizes,"
            " at least one coil, and no negative window"
        )
    field = network.receptive_field()
    if first is not None:
        of_first = untiled(first).receptive_field()
        field = replace(field, live=max(field.live, of_first.live), kept=max(field.kept, of_first.kept))
    element = next((p.dtype for p in network.parameters()), torch.get_default_dtype()).itemsize
    data = _data_items(shape, coils, decoupled)
    cheapest: tuple[float, MemoryPlan] | None = None
    smallest: MemoryPlan | None = None
    for tile, patch, work in _tiles(shape, field):
        halo = tuple(h if t < n else 0 for h, t, n in zip(field.halo, tile, shape, strict=True))
        for refine, differences in product(
            (True, False), sorted({window, *(w for w in STEPS if w < window)}, reverse=True)
        ):
            items = data | solve_items(math.prod(shape), patch, field, element, differences, refine)
            plan = MemoryPlan(budget, shape, tile, halo, work, differences, refine, items)
            if smallest is None or plan.total < smallest.total:
                smallest = plan
            steps = STEPS[max(w for w in STEPS if w <= differences)]
            cost = steps * (1 - NETWORK_SHARE + NETWORK_SHARE * work) * (1 if refine else SINGLE_PRECISION_COST)
            if plan.total <= budget and (cheapest is None or cost < cheapest[0]):
                cheapest = cost, plan
    if cheapest is not None:
        return cheapest[1]
    if smallest is None:
        raise RuntimeError("plan_memory: no plan was tried")
    raise ValueError(
        f"plan_memory: the budget is {gib(budget)} GiB, expected {gib(smallest.total)} or more for {_sizes(shape)}"
        f" with {coils} coils; the smallest plan is {smallest.describe()}"
    )


def fit_to_memory(model: ModelT, plan: MemoryPlan) -> ModelT:
    """Return a model with the same parameters, the very tensors, set up as the plan says; `model` stays as it is.

    The network is the same function (see `Tiled`), so certificate and equilibrium are those of `model`.
    """
    network = untiled(model.network)
    settings = {**model.settings(), "network": Tiled(network, plan.tile) if any(plan.halo) else network}
    if isinstance(model, MOL):
        first = model.first  # one of planes needs no tiles where the volume fits
        settings["first"] = fit_to_memory(first, plan) if isinstance(first, LearnedReconstructor) else first
        settings["solver"] = replace(model.solver, window=plan.window, refine=plan.refine)
    fitted = type(model)(**settings)
    fitted.n_unrolls = model.n_unrolls
    for name, parameter in model.named_parameters(recurse=False):
        setattr(fitted, name, parameter)
    return fitted.train(model.training)


def untiled(network: Denoiser) -> Denoiser:
    """Return the network inside a `Tiled` one, or the network itself."""
    return network.network if isinstance(network, Tiled) else network


def _data_items(shape: tuple[int, ...], coils: int, decoupled: bool) -> dict[str, int]:
    pixels, single, double = math.prod(shape), 8, 16
    coil_images = coils * pixels * double
    chunk = max(CHUNK_BYTES, coil_images // shape[0]) if decoupled else max(DEVICE_CHUNK_BYTES, pixels * double)
    maps = coils * pixels * single
    # Trial steps have maps of the principal coils, and a guide has their k-space: as many as there are at most.
    principal = maps if coils > FEWEST and maps <= MOST_BYTES else 0
    return {
        "program": PROGRAM_BYTES,
        "k-space": coils * pixels * single + principal,
        "maps": maps + principal,
        "coil images": 3 * min(chunk, coil_images),  # weighted, transformed, and transformed back
    }


def solve_items(
    pixels: int, patch: int, field: ReceptiveField, element: int, window: int, refine: bool
) -> dict[str, int]:
    """Return the bytes that the solve of images of so many pixels holds, the network on `patch` of them at a time."""
    narrow = 2 * element * pixels
    wide = 16 * pixels if refine else narrow
    network = patch * field.live * element + (narrow if patch < pixels else 0)
    guide = patch * field.kept * element
    # Beside the network's: what stays (right side, first, last, new and best iterate, residual; two phases, update),
    # and either the network's image on its way in and out, or the sum of the residual's terms.
    images = 6 * wide + 3 * narrow + max(2 * narrow, 4 * wide - network)
    if refine:
        images += 3 * wide  # an earlier iterate with its data term, and the last source, see `RefinedResidual`
    history = 2 * window * narrow
    left_over = min(3 * (images + history + network + guide) // 2, LEFT_OVER_BYTES)
    return {"images": images, "history": history, "network": network, "guide": guide, "allocator": left_over}


def _tiles(shape: tuple[int, ...], field: ReceptiveField) -> Iterator[tuple[tuple[int, ...], int, float]]:
    """Yield tiles, the pixels of the largest with its halo, and the pixels of all relative to those of the image.

    Only tiles are given that no other one beats in both numbers.
    """
    options = []
    for size, halo, grid in zip(shape, field.halo, field.grid, strict=True):
        axis = {}
        for length in {math.ceil(size / n) for n in TILES_ALONG_AXIS}:
            cuts = cut_axis(size, length, halo, grid)
            widths = [cut.end - cut.begin for cut in cuts]
            axis[length if len(cuts) > 1 else size] = max(widths), sum(widths)
        options.append([(length, *costs) for length, costs in axis.items()])
    candidates = []
    for choice in product(*options):
        tile, largest, total = zip(*choice, strict=True)
        candidates.append((math.prod(total) / math.prod(shape), math.prod(largest), tile))
    least = math.inf
    for work, patch, tile in sorted(candidates):
        if patch < least and work <= MOST_WORK:
            least = patch
            yield tile, patch, work


def _sizes(sizes: Sequence[int]) -> str:
    return "x".join(map(str, sizes))


def gib(size: int) -> str:
    """Return a size in GiB as text, without the unit."""
    return f"{size / GIB:.1f}" if size >= 10 * GIB else f"{size / GIB:.2f}"


def bill(items: dict[str, int]) -> str:
    """Return sizes by name as text in GiB, the largest first."""
    ordered = sorted(items.items(), key=lambda item: -item[1])
    return ", ".join(f"{name} {gib(size)}" for name, size in ordered)

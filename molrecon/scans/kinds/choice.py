"""Which model reconstructs a series of images, how many planes it sees at a time, and why."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any, final

import numpy as np
from torch import Tensor

from molrecon.reconstructors.base import Reconstructor
from molrecon.reconstructors.certificate import Certificate
from molrecon.reconstructors.conditioning import Conditioning
from molrecon.reconstructors.defaults import DEFAULT_MODEL, SERIES_MODEL
from molrecon.scans.kinds.accelerated import acceleration_factor
from molrecon.scans.reconstruction import Unit
from molrecon.scans.scan import Series
from molrecon.scans.sidecar import ModelSource
from molrecon.solvers.solution import Solution
from molrecon.solvers.solver_settings import SolverSettings
from operators import LinearOperator

UNIT_PHRASES: Mapping[Unit, str] = {
    "slice": "slice by slice",
    "volume": "as one volume",
    "series": "all frames of a slice together",
}
SPLIT_ALONG_READOUT = "; taken apart along the fully sampled readout, which is exact"
TRAINING_CAUTIONS: Mapping[Unit, tuple[str, ...]] = {  # of the packaged models, against scans of another kind
    "series": (
        f"{SERIES_MODEL} was trained on frames of hearts, 5 to 10 times accelerated: compare with --model"
        f" {DEFAULT_MODEL}",
    ),
}
# Of simulated series whose patterns change: accelerated 2 times, the series is 0.7 dB closer to the truth than frames
# by themselves, 3 to 8 times 3.4 to 4.8 dB; of one pattern for all frames, 0.3 and 2.8 dB farther at 2 and 4 times.
FRAME_ACCELERATION = 2.0
SAMPLED_BY_ALL = 1.5  # times the samples of one frame are those of all together, at least, where patterns change
FEWEST_FRAMES = 4  # of a series that is seen as one: fewer have little information to share


@final
@dataclass(frozen=True, eq=False)
class Choice:
    """What reconstructs a series.

    Attributes:
        unit: what the method sees at a time: a slice, a 3D scan as a whole, or a slice at all times.
        model: the method.
        source: where it comes from; None: from where the caller took it.
        reason: why, a sentence.
        cautions: what the model was not trained for in this scan, a sentence each.
    """

    unit: Unit
    model: Reconstructor
    source: ModelSource | None
    reason: str
    cautions: tuple[str, ...] = ()

    @property
    def summary(self) -> str:
        """The unit, the model and the reason, as a log line ends."""
        name = "the model that was named" if self.source is None else self.source.name
        return f"{UNIT_PHRASES[self.unit]}, by {name}: {self.reason}"

    def describe(self, named: ModelSource) -> dict[str, Any]:
        """Return the entry of the sidecar about the choice; `named` is the model that the user named."""
        return {
            "asked_for": named.name,
            "weights_sha256": named.weights_sha256,
            "model": (self.source or named).name,
            "model_weights_sha256": (self.source or named).weights_sha256,
            "seen_at_a_time": self.unit,
            "reason": self.reason,
        }


@final
class Automatic(Reconstructor):
    """The models that `choose` takes the one from that fits a scan. Called as one, it is that of slices.

    3D scans go to the model of slices, plane by plane: it comes closer to the truth than the packaged model of volumes
    (docs/reconstruct.md).

    Args:
        slices, series: for single planes, and for one plane over time.
        sources: where they come from, in this order.
    """

    takes_sets = True

    def __init__(
        self,
        slices: Reconstructor,
        series: Reconstructor,
        sources: tuple[ModelSource, ModelSource],
    ) -> None:
        super().__init__()
        self.slices, self.series = slices, series
        self.solver = slices.solver
        self.sources: Mapping[Unit, ModelSource] = dict(zip(("slice", "series"), sources, strict=True))

    def settings(self) -> dict[str, Any]:
        """Return the models."""
        return {"slices": self.slices, "series": self.series}

    def condition(
        self, kspace: Tensor, operator: LinearOperator, noise_level: float | Tensor | None = None
    ) -> Conditioning | None:
        """Return what the model of slices reads off a scan."""
        return self.slices.condition(kspace, operator, noise_level)

    def certificate(self) -> Certificate:
        """Return that of the model of slices."""
        return self.slices.certificate()

    def response(
        self, operator: LinearOperator, conditioning: Conditioning | None, image: Tensor, kspace: Tensor
    ) -> Callable[[Tensor], Solution] | None:
        """Return that of the model of slices; noise maps of series are refused where they are solved."""
        return self.slices.response(operator, conditioning, image, kspace)

    def of(self, unit: Unit) -> Reconstructor:
        """Return the model that sees such a unit at a time."""
        return {"slice": self.slices, "series": self.series}[unit]

    def _solve(
        self,
        kspace: Tensor,
        operator: LinearOperator,
        conditioning: Conditioning | None,
        start: Tensor | None,
        solver: SolverSettings | None,
    ) -> Solution:
        return self.slices._solve(kspace, operator, conditioning, start, solver)


def choose(series: Series, model: Reconstructor) -> Choice:
    """Return what reconstructs a series.

    A model of planes, or a method for any number of axes, is given the planes one by one: those of a 3D scan are exact
    parts of it. A model with three axes sees 3D scans as volumes, and several frames of 2D slices as series.
    `Automatic` goes by the scan (`automatic_unit`).

    Args:
        series: of a scan.
        model: any reconstructor.

    Raises:
        ValueError: a model with three axes and a single frame of 2D slices.
    """
    if isinstance(model, Automatic):
        unit, reason = automatic_unit(series)
        return Choice(unit, model.of(unit), model.sources[unit], reason, TRAINING_CAUTIONS.get(unit, ()))
    name, volumetric = type(model).__name__, series.frames[0].volume.volumetric
    if model.ndim in (None, 2):
        split = SPLIT_ALONG_READOUT if volumetric else ""
        return Choice("slice", model, None, f"{name} was asked for, which sees planes{split}")
    on_grid = series.frames[0].volume.trajectory is None
    if model.ndim != 3 or not on_grid or not (volumetric or _one_shape(series)):
        raise ValueError(
            f"reconstruct: {name} has {model.ndim} spatial axes and the scan is of 2D slices, expected a 3D scan, or"
            " several frames of equal size, on the grid, for a model with three: take one of slices (mol-guided-2d)"
        )
    return Choice("volume" if volumetric else "series", model, None, f"{name} was asked for, which has three axes")


def automatic_unit(series: Series) -> tuple[Unit, str]:
    """Return what is best seen at a time, and why, a sentence.

    A slice at all times where frames of 2D slices are accelerated more than FRAME_ACCELERATION times each, in patterns
    that change; else slice by slice, 3D scans too.
    """
    first, frames = series.frames[0].volume, len(series.frames)
    if first.volumetric:
        return "slice", f"a 3D scan accelerated {acceleration_factor(first):.3g} times{SPLIT_ALONG_READOUT}"
    if frames == 1:
        return "slice", "a scan of 2D slices"
    factor = sum(acceleration_factor(frame.volume) for frame in series.frames) / frames
    measured = f"{frames} frames, each accelerated {factor:.3g} times"
    if factor <= FRAME_ACCELERATION:
        return "slice", f"{measured}, which is little enough for each to be reconstructed by itself"
    if frames < FEWEST_FRAMES or not _one_shape(series):
        return "slice", f"{measured}; fewer than {FEWEST_FRAMES} of one size are no series that a model could see"
    # Shares, not counts: a mask has size 1 along the slices where they are sampled alike, which frames may differ in.
    masks = [frame.volume.sampling_mask for frame in series.frames]
    if reduce(np.logical_or, masks).mean() < SAMPLED_BY_ALL * np.mean([mask.mean() for mask in masks]):
        return "slice", f"{measured}, all in one pattern: together they tell little more than each by itself"
    return "series", f"{measured}, in patterns that change: together they tell more than each by itself"


def _one_shape(series: Series) -> bool:
    return len(series.frames) > 1 and len({frame.volume.kspace.shape for frame in series.frames}) == 1

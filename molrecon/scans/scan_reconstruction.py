"""Every image of a scan: maps and noise level once, then frame by frame."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

import numpy as np
import torch

from molrecon.reconstructors.base import Reconstructor
from molrecon.reconstructors.defaults import DEFAULT_BATCH_SIZE
from molrecon.scans.preparation import PreparedVolume, prepare
from molrecon.scans.reconstruction import Reconstruction, reconstruct_prepared
from molrecon.scans.scan import Scan, Series
from molrecon.solvers.solver_settings import SolverSettings


@final
@dataclass(frozen=True, eq=False)
class SeriesReconstruction:
    """The images of one series.

    Attributes:
        series: what was reconstructed.
        prepared: of each frame; they share the maps.
        results: of each frame.
    """

    series: Series
    prepared: tuple[PreparedVolume, ...]
    results: tuple[Reconstruction, ...]

    @property
    def image(self) -> np.ndarray:
        """The magnitude, (slices, rows, cols) float32, of several frames (time, slices, rows, cols)."""
        images = [result.image for result in self.results]
        return images[0] if len(images) == 1 else np.stack(images)


def reconstruct_scan(
    scan: Scan,
    model: Reconstructor,
    *,
    solver: SolverSettings | None = None,
    maps: np.ndarray | None = None,
    noise_level: float | None = None,
    device: torch.device | str = "cpu",
    batch_size: int = DEFAULT_BATCH_SIZE,
    progress: bool = False,
) -> Iterator[SeriesReconstruction]:
    """Yield the reconstruction of each series of a scan.

    The sensitivity maps and the noise level are found once for each encoding space, from calibration data where there
    are some, else from the mean of its frames (`Scan.calibrated`), and serve all of its contrasts, sets, phases and
    repetitions.

    Args and errors: those of `reconstruct_volume`.
    """
    first: dict[int, PreparedVolume] = {}
    for series in scan.calibrated().series():
        prepared: list[PreparedVolume] = []
        for frame in series.frames:
            shared = first.get(frame.encoding_space)
            if shared is not None and shared.volume.kspace.shape != frame.volume.kspace.shape:
                shared = None
            prepared.append(prepare(frame.volume, maps, noise_level, device, progress, shared=shared))
            first.setdefault(frame.encoding_space, prepared[-1])
        results = [
            reconstruct_prepared(one, model, solver=solver, device=device, batch_size=batch_size, progress=progress)
            for one in prepared
        ]
        yield SeriesReconstruction(series, tuple(prepared), tuple(results))

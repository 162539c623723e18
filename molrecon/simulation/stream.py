"""A stream of problems for training: scans that are simulated when they are wanted, and never come back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import numpy as np
import torch

from molrecon.simulation.images import LARGEST, ImageSet
from molrecon.simulation.phase import residual_angle
from molrecon.simulation.problem import Problem
from molrecon.simulation.scan import ResidualPhase, SimulatedScan, simulate, strip

SCANS, PROBLEMS = 10**9, 2 * 10**9  # parts of the seeds, so that no two draws share one


@final
class ProblemStream:
    """Problems of scans of real images; scan number i depends on the seed and i alone.

    At step s the window of scans is s // steps_per_scan and those before it. A scan is simulated when a problem first
    wants it, serves a few problems with other masks and strips, and is forgotten when the window has passed. What is
    drawn depends on the step and the generator alone, so that a training can be resumed.

    Args:
        sets: the images; a set is drawn by its weight, an image of it uniformly.
        rows: of a strip.
        steps_per_scan: steps after which the window moves on by a scan.
        window: scans in the window.
        virtual_coils: coils of a scan at most.
        seed: of scans.
        device: where problems go.
        two_sets, largest: see `simulate`.

    Raises:
        ValueError: no images, a number below one, or a share that is none.
    """

    def __init__(
        self,
        sets: Sequence[ImageSet],
        *,
        rows: int = 112,
        steps_per_scan: int = 6,
        window: int = 4,
        virtual_coils: int = 8,
        seed: int = 0,
        device: torch.device | str = "cpu",
        two_sets: float = 0.0,
        largest: int = LARGEST,
    ) -> None:
        if not sets or not all(map(len, sets)):
            raise ValueError(f"ProblemStream: sets of {[len(s) for s in sets]} images, expected some in each")
        if min(rows, steps_per_scan, window, virtual_coils, largest) < 1:
            raise ValueError(
                f"ProblemStream: rows {rows}, steps_per_scan {steps_per_scan}, window {window}, virtual_coils"
                f" {virtual_coils}, largest {largest}, expected positive numbers"
            )
        if not 0 <= two_sets <= 1:
            raise ValueError(f"ProblemStream: two_sets is {two_sets}, expected a share from 0 to 1")
        self.sets = sets
        self.rows, self.steps_per_scan, self.window = rows, steps_per_scan, window
        self.virtual_coils, self.seed, self.device = virtual_coils, seed, device
        self.two_sets, self.largest = two_sets, largest
        self._weights = np.array([s.weight for s in sets]) / sum(s.weight for s in sets)
        self._complex = [s for s in sets if s.stored[0].ndim == 3]
        self._scans: dict[int, SimulatedScan] = {}

    def scan(self, number: int) -> SimulatedScan:
        """Return scan `number`; those of the window are kept."""
        if number not in self._scans:
            rng = np.random.default_rng([self.seed, SCANS, number])
            chosen = self.sets[int(rng.choice(len(self.sets), p=self._weights))]
            image = chosen.image(int(rng.integers(len(chosen))))
            residual = self._residual if self._complex else None
            self._scans[number] = self._simulated(image, rng, residual)
        return self._scans[number]

    def draw(self, rng: np.random.Generator, step: int) -> Problem:
        """Return a problem of a random scan of the step's window; steps come in rising order."""
        newest = step // self.steps_per_scan + self.window - 1
        number = newest - int(rng.integers(self.window))
        problem = strip(self.scan(number), self.rows, rng).to(self.device)
        for old in [n for n in self._scans if n <= newest - self.window]:
            del self._scans[old]
        return problem

    def problems(self, count: int, rows: int = 10**6) -> list[Problem]:
        """Return fixed problems of `count` scans that are not part of the stream; whole slices by default."""
        problems = []
        for number in range(count):
            rng = np.random.default_rng([self.seed, PROBLEMS, number])
            chosen = self.sets[number % len(self.sets)]
            image = chosen.image(int(rng.integers(len(chosen))))
            scan = self._simulated(image, rng, None)
            problems.append(strip(scan, rows, rng).to(self.device))
        return problems

    def describe(self) -> str:
        """Return what is drawn from, for a model card."""
        names = ", ".join(f"{s.name} ({len(s)})" for s in self.sets)
        larger = "" if self.largest == LARGEST else f" of up to {self.largest} pixels"
        wrapped = f", {self.two_sets:g} of the views wrapped, one or two sets of maps" if self.two_sets else ""
        return (
            f"images of {len(self.sets)} sets{larger}: {names}; their own or a simulated rough phase, 1 to 32 simulated"
            f" coils compressed to {self.virtual_coils}{wrapped}, strips of {self.rows} rows"
        )

    def _simulated(self, image: np.ndarray, rng: np.random.Generator, residual: ResidualPhase | None) -> SimulatedScan:
        return simulate(
            image,
            rng,
            residual=residual,
            virtual_coils=self.virtual_coils,
            two_sets=self.two_sets,
            largest=self.largest,
        )

    def _residual(self, rng: np.random.Generator) -> np.ndarray:
        chosen = self._complex[int(rng.integers(len(self._complex)))]
        return residual_angle(chosen.image(int(rng.integers(len(chosen)))))

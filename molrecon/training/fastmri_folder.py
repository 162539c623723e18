"""Training problems from folders of fastMRI files: slices are read as they are drawn, and undersampled anew."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from molrecon.io import UnreadableInput
from molrecon.scans.preparation import CROP, THRESHOLD
from molrecon.simulation.strips import NOISE_RANGE, Problem, complex_noise, draw_mask, draw_strip, stack_problems
from molrecon.training.fastmri_files import FastMRIFile, reason, scan_folder
from molrecon.training.fastmri_slices import Slice, SliceCache, load_slice
from molrecon.training.fingerprint import file_fingerprint
from operators import Sense, calibration_region, centred_fft, espirit_maps

logger = logging.getLogger(__name__)

HELD_OUT = 0.1  # of the files, where no validation folder is given
FEWEST_LOW = 8  # central lines: maps from fewer are not worth having
CENTRE_SHARE = 0.7  # of the lines at most, see `draw_mask`
MOST_FAILURES = 50  # unusable slices in a row


@final
class FastMRIFolder:
    """Fully sampled multi-coil files, undersampled at random for every problem.

    A problem is a slice, or a strip of it along the readout, which is a complete problem of its own: readout
    oversampling cropped away, divided by the 99.5 % quantile of the root sum of squares, a drawn random or equispaced
    mask, and complex noise added so that the total level is log-uniform between the slice's own (estimated) and the
    upper end of `noise_range`, and known. The maps are ESPIRiT's from the calibration region of the drawn mask, under
    noise (of the level rounded down to a power of two, so that the maps can be kept). The reference is the
    coil combination `sum_c conj(s_c) x_c` of all the data with these maps; it holds the noise of the measurement.

    Files that cannot be used are listed in `rejected`, each with a warning in the log. So are slices that turn out
    unusable when they are drawn; another one takes their place, and `replaced` counts how often. What is drawn depends
    on the generator and the files alone, not on earlier draws.

    Args:
        folder: .h5 files.
        validation: a folder for `problems`; None: the last tenth of the files, by name, is held out.
        rows: readout positions of a training problem, validation has twice as many; None: whole slices in both.
        batch: slices of a problem, all of the same coils and columns.
        accelerations: the range to draw from, narrowed where few columns leave too few central ones.
        noise_range: of the total noise level, relative to the image maximum.
        as_measured: take undersampled files as well, each with its own columns and noise, and references of NaN: for
            self-supervised training. Slices of which every column was measured leave none to be judged by: they are
            undersampled anew, and have references. A validation folder still has to be fully sampled.
        cache_bytes: memory for slices and maps that are kept; the least recently used are dropped.
        seed: of the noise in calibration data and of the validation problems.
        device: where maps are estimated and problems go.

    Attributes:
        rejected: (path, reason) of every unusable file or slice.
        replaced: draws that fell on an unusable slice.

    Raises:
        UnreadableInput: no usable files, or too few to hold one out.
        ValueError: a number out of range.
    """

    def __init__(
        self,
        folder: str | Path,
        validation: str | Path | None = None,
        *,
        rows: int | None = 48,
        batch: int = 1,
        accelerations: tuple[float, float] = (4, 8),
        noise_range: tuple[float, float] = NOISE_RANGE,
        as_measured: bool = False,
        cache_bytes: int = 2**30,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        _check(rows, batch, accelerations, noise_range, cache_bytes)
        self.rows, self.batch, self.accelerations, self.noise_range = rows, batch, accelerations, noise_range
        self.as_measured, self.seed, self.device = as_measured, seed, device
        self.rejected: list[tuple[Path, str]] = []
        self.replaced = 0
        self._cache = SliceCache(cache_bytes)
        folder = Path(folder)
        files = self._usable(folder, as_measured)
        if validation is None:
            n_held_out = max(1, round(HELD_OUT * len(files)))
            if len(files) < 2:
                expected = "two or more, or a folder of validation files"
                raise UnreadableInput(folder, f"{len(files)} usable file to train on", expected)
            files, held_out = files[:-n_held_out], files[-n_held_out:]
        else:
            held_out = self._usable(Path(validation), False)
        self.name = folder.name
        self.files, self.held_out = files, held_out
        self._slices = [(file, k) for file in (*files, *held_out) for k in range(file.slices)]
        self._training = range(sum(file.slices for file in files))
        self._alike: dict[tuple[int, int, int], list[int]] = {}
        for number in self._training:
            self._alike.setdefault(self._size(number), []).append(number)
        measured = 0 if not as_measured else len(self._training) if validation is not None else len(self._slices)
        self._retrospective = range(measured, len(self._slices))

    def draw(self, rng: np.random.Generator, step: int) -> Problem:
        """Return a batch of random slices of the training files; `step` plays no part."""
        del step
        number, first = self._drawn(self._training, rng)
        alike = self._alike[self._size(number)]
        return stack_problems([first, *(self._drawn(alike, rng)[1] for _ in range(self.batch - 1))]).to(self.device)

    def problems(self, count: int) -> list[Problem]:
        """Return fixed validation problems, spread over the held-out files."""
        numbers = range(len(self._training), len(self._slices))
        rows = None if self.rows is None else 2 * self.rows
        problems: list[Problem] = []
        for i in range(count):
            first = (2 * i + 1) * len(numbers) // (2 * count)
            rng = np.random.default_rng([self.seed, 2 * 10**9, i])
            for offset in range(len(numbers)):
                problem = self._attempt(numbers[(first + offset) % len(numbers)], rng, rows)
                if problem is not None:
                    problems.append(problem.to(self.device))
                    break
            else:
                raise self._nothing_left(len(numbers))
        return problems

    def describe(self) -> str:
        """Return what is trained on, for the model card."""
        counts = [f"{len(files)} files, {sum(f.slices for f in files)} slices" for files in (self.files, self.held_out)]
        text = f"fastMRI folder {self.name}: {counts[0]} (validation: {counts[1]})"
        low, high = self.accelerations
        text += (
            ", as measured (full slices undersampled anew)"
            if self.as_measured
            else f", retrospectively undersampled {low:g} to {high:g} times"
        )
        text += ", whole slices" if self.rows is None else f", strips of {self.rows} rows"
        return text + f", ESPIRiT maps; {len(self.rejected)} files or slices unusable, {self.replaced} draws replaced"

    def fingerprint(self) -> dict[str, Any]:
        """Return which usable files are drawn from, and how; see `train`."""
        names = ("rows", "batch", "accelerations", "noise_range", "as_measured", "seed")
        return {
            "training_data": file_fingerprint(file.path for file in self.files),
            "validation_data": file_fingerprint(file.path for file in self.held_out),
            "problems": {name: getattr(self, name) for name in names},
        }

    def _usable(self, folder: Path, as_measured: bool) -> list[FastMRIFile]:
        files, rejected = scan_folder(folder, as_measured=as_measured)
        for file in list(files):
            try:
                if not as_measured:
                    self._check_width(file)
            except UnreadableInput as error:
                files.remove(file)
                rejected.append((file.path, reason(error)))
                logger.warning("%s: %s, not used", *rejected[-1])
        self.rejected += rejected
        if not files:
            listed = "; ".join(f"{path.name}: {why}" for path, why in rejected[:3])
            raise UnreadableInput(folder, f"{len(rejected)} files, none of them usable ({listed})", "some usable files")
        return files

    def _highest(self, cols: int) -> float:
        return min(self.accelerations[1], CENTRE_SHARE * cols / FEWEST_LOW)

    def _check_width(self, file: FastMRIFile) -> None:
        if self._highest(file.cols) < self.accelerations[0]:
            enough = math.ceil(self.accelerations[0] * FEWEST_LOW / CENTRE_SHARE)
            raise UnreadableInput(file.path, f"{file.cols} columns", f"{enough} or more to undersample")

    def _size(self, number: int) -> tuple[int, int, int]:
        file = self._slices[number][0]
        return file.coils, file.rows if self.rows is None else min(self.rows, file.rows), file.cols

    def _drawn(self, numbers: Sequence[int], rng: np.random.Generator) -> tuple[int, Problem]:
        for _ in range(MOST_FAILURES):
            number = numbers[int(rng.integers(len(numbers)))]
            problem = self._attempt(number, rng, self.rows)
            if problem is not None:
                return number, problem
        raise self._nothing_left(MOST_FAILURES)

    def _nothing_left(self, failures: int) -> UnreadableInput:
        path, why = self.rejected[-1]
        return UnreadableInput(path, f"the last of {failures} unusable slices in a row ({why})", "usable slices")

    def _attempt(self, number: int, rng: np.random.Generator, rows: int | None) -> Problem | None:
        file, k = self._slices[number]
        try:
            return self._problem(number, rng, rows)
        except ValueError as error:  # UnreadableInput, or what calibration and noise estimation think of the data
            why = reason(error) if isinstance(error, UnreadableInput) else f"slice {k}: {error}"
        self.replaced += 1
        if (file.path, why) not in self.rejected:
            self.rejected.append((file.path, why))
            logger.warning("%s: %s, another slice takes its place", file.path, why)
        return None

    def _problem(self, number: int, rng: np.random.Generator, rows: int | None) -> Problem:
        one = self._slice(number)
        cols = one.coil_images.shape[-1]
        columns, level = one.columns, one.noise_level
        retrospective = number in self._retrospective or bool(columns.all())
        if retrospective:
            self._check_width(self._slices[number][0])
            columns = columns & draw_mask(cols, rng, (self.accelerations[0], self._highest(cols)), FEWEST_LOW)
            lowest = max(level, self.noise_range[0])
            level = float(np.exp(rng.uniform(np.log(lowest), np.log(max(lowest, self.noise_range[1])))))
        mask = torch.from_numpy(columns)[None, None]
        maps = self._maps(number, one, mask, level)
        reference = torch.linalg.vecdot(maps, one.coil_images, dim=0)
        strip = slice(None) if rows is None or rows >= len(reference) else draw_strip(reference, rows, rng)
        images, maps, reference = one.coil_images[:, strip], maps[:, strip], reference[strip]
        if retrospective:
            images = images + one.missing_noise(level) * complex_noise(images.shape, rng)
        else:
            reference = torch.full_like(reference, complex(math.nan, math.nan))
        operator = Sense(maps[None], mask)
        kspace = operator.sampling(centred_fft(images, (-2, -1))[None])
        return Problem(kspace, operator, reference[None], torch.tensor([level]))

    def _slice(self, number: int) -> Slice:
        cached = self._cache.get((number,))
        if isinstance(cached, Slice):
            return cached
        one = load_slice(*self._slices[number], fully_sampled=number in self._retrospective)
        self._cache.put((number,), one)
        return one

    def _maps(self, number: int, one: Slice, mask: Tensor, level: float) -> Tensor:
        """Return the maps (coil, rows, cols), those kept where a mask of the same calibration region has been drawn."""
        octave = max(0, math.floor(math.log2(max(level, self.noise_range[0]) / self.noise_range[0])))
        region = calibration_region(one.centre[None], mask)
        # A view of the centre: where it begins and how wide it is tell which samples it has.
        key = (number, int(region.storage_offset()), int(region.shape[-1]), octave)
        cached = self._cache.get(key)
        if isinstance(cached, Tensor):
            return cached
        level = max(one.noise_level, min(level, self.noise_range[0] * 2**octave))
        rng = np.random.default_rng([self.seed, 3 * 10**9, *key])
        region = region + one.missing_noise(level) * complex_noise(region.shape, rng)
        shape = one.coil_images.shape[-2:]
        maps = espirit_maps(region.to(self.device), shape, threshold=THRESHOLD, crop=CROP, noise_level=level)[0].cpu()
        if not maps.any():
            raise UnreadableInput(self._slices[number][0].path, "a slice without coil maps", "signal of coils")
        self._cache.put(key, maps)
        return maps


def _check(
    rows: int | None,
    batch: int,
    accelerations: tuple[float, float],
    noise_range: tuple[float, float],
    cache_bytes: int,
) -> None:
    if (rows is not None and rows < 1) or batch < 1 or cache_bytes < 0:
        raise ValueError(
            f"FastMRIFolder: rows {rows}, batch {batch}, cache_bytes {cache_bytes}, expected positive numbers"
        )
    if not 1 < accelerations[0] <= accelerations[1] or not 0 < noise_range[0] <= noise_range[1]:
        raise ValueError(
            f"FastMRIFolder: accelerations {accelerations} and noise_range {noise_range}, expected (low, high),"
            " above 1 and above 0"
        )

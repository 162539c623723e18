"""Image stacks to train on: reading them, holding some slices out, and simulated multi-coil scans of them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, final

import numpy as np
import torch

from molrecon.io import UnreadableInput
from molrecon.io.images import luma, read_image
from molrecon.io.volume import reading
from molrecon.simulation.strips import NOISE_RANGE, Problem, Scan, simulate_scan, stack_problems, strip_problem
from molrecon.training.fingerprint import array_fingerprint

logger = logging.getLogger(__name__)

FORMATS = "a .npy or .npz stack, a .nii or .nii.gz volume, or a folder of .png"
SMALLEST = 16  # rows and columns of a slice
EMPTY = 0.02  # energy of a slice below which it is left out, relative to the most energetic one
NEW_SCAN_EVERY = 8  # steps between new simulated scans
MOST_SCANS = 500


def read_stack(path: str | Path, axis: int = -1) -> list[np.ndarray]:
    """Return the slices (rows, cols) of an image stack in the dtype of the file.

    A .npy file (mapped, not read), or an .npz file with a single array: (slices, rows, cols) or one slice (rows, cols),
    integer, real or complex. A NIfTI volume: its slices along `axis`. A folder: its .png images by name, colours as
    luma. Slices that are nearly empty, as the ends of a volume are, are left out, and the log says how many.

    Raises:
        UnreadableInput: the message names the file, what was found and what was expected.
    """
    path = Path(path)
    if path.is_dir():
        paths = _pngs(path)
        slices = [luma(read_image(one)) for one in paths]
        energies = [_energy(one, "an image", image) for one, image in zip(paths, slices, strict=True)]
    else:
        slices = list(_volume(path, axis))
        energies = [_energy(path, f"slice {number}", image) for number, image in enumerate(slices)]
    if not max(energies) > 0:
        raise UnreadableInput(path, f"{len(slices)} slices that are zero everywhere", "images")
    shown = [one for one, energy in zip(slices, energies, strict=True) if energy > EMPTY * max(energies)]
    if len(shown) < len(slices):
        logger.info("%s: %d of %d slices are nearly empty and left out", path, len(slices) - len(shown), len(slices))
    return shown


def hold_out(slices: Sequence[np.ndarray], share: float = 0.1) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return training and validation slices: the last `share`, and those before it without a gap of half as many.

    Neighbouring slices of a volume are alike: the gap keeps the two apart.

    Raises:
        ValueError: too few slices for one of each.
    """
    n_held_out = max(1, round(share * len(slices)))
    first = len(slices) - n_held_out - max(1, n_held_out // 2)
    if not 0 < share < 1 or first < 1:
        raise ValueError(f"hold_out: {len(slices)} slices and share {share}, expected 3 or more and 0 to 1")
    return list(slices[:first]), list(slices[len(slices) - n_held_out :])


@final
class Scans:
    """A growing bank of simulated scans; scan number i depends on the seed and i alone.

    Args:
        training: stacks of slices (rows, cols), real or complex, of any sizes; the scans take the stacks in turn.
        validation: other stacks, for `problems`; slices that were trained on tell nothing.
        size: rows and columns of a scan.
        rows: readout positions of a training problem.
        batch: strips of a training problem.
        first: scans simulated before the first step; another one follows every 8 steps.
        coils: of a scan; up to half of them may be silent.
        seed: of scans and validation problems.
        device: where problems go.
        name: what the slices are, for `describe`.

    Raises:
        ValueError: an empty stack or none, or a number that is out of range.
    """

    def __init__(
        self,
        training: Sequence[Sequence[np.ndarray]],
        validation: Sequence[Sequence[np.ndarray]],
        *,
        size: int = 224,
        rows: int = 48,
        batch: int = 2,
        first: int = 48,
        coils: int = 8,
        seed: int = 0,
        device: torch.device | str = "cpu",
        name: str = "image stacks",
    ) -> None:
        if not training or not validation or not all(map(len, (*training, *validation))):
            counts = [[len(stack) for stack in stacks] for stacks in (training, validation)]
            raise ValueError(f"Scans: slices {counts[0]} and {counts[1]}, expected some to train on and to validate on")
        if min(rows, batch, first) < 1 or coils < 4 or size < max(32, 2 * rows):
            raise ValueError(
                f"Scans: size {size}, rows {rows}, batch {batch}, first {first}, coils {coils}, expected positive"
                " numbers, 4 coils or more, and a size of at least 32 and twice the rows"
            )
        self.training, self.validation = training, validation
        self.size, self.rows, self.batch, self.coils = size, rows, batch, coils
        self.first, self.seed, self.device, self.name = first, seed, device, name
        self.bank: list[Scan] = []
        self.simulated = 0

    def grow(self, count: int) -> None:
        """Simulate until `count` scans have been; the bank keeps the last MOST_SCANS of them."""
        self.simulated = max(self.simulated, count - MOST_SCANS)
        while self.simulated < count:
            rng = np.random.default_rng([self.seed, 10**9, self.simulated])
            self.bank.append(self._scan(self.training[self.simulated % len(self.training)], rng))
            self.simulated += 1
        self.bank = self.bank[-MOST_SCANS:]

    def draw(self, rng: np.random.Generator, step: int) -> Problem:
        """Return a batch of strips of random scans; steps come in rising order."""
        self.grow(self.first + step // NEW_SCAN_EVERY)
        chosen = [self.bank[int(i)] for i in rng.integers(len(self.bank), size=self.batch)]
        return stack_problems([strip_problem(scan, self.rows, rng) for scan in chosen]).to(self.device)

    def problems(self, count: int) -> list[Problem]:
        """Return fixed validation problems, strips twice as wide, the stacks in turn."""
        problems = []
        for i in range(count):
            rng = np.random.default_rng([self.seed, 2 * 10**9, i])
            scan = self._scan(self.validation[i % len(self.validation)], rng)
            problems.append(strip_problem(scan, 2 * self.rows, rng).to(self.device))
        return problems

    def describe(self) -> str:
        """Return what is trained on, for the model card."""
        slices = [sum(map(len, stacks)) for stacks in (self.training, self.validation)]
        return (
            f"{self.name}, {slices[0]} slices (validation: {slices[1]}), simulated {self.size} x {self.size} scans of"
            f" up to {self.coils} coils, ESPIRiT maps, strips of {self.rows} rows,"
            f" noise {NOISE_RANGE[0]}-{NOISE_RANGE[1]} of the maximum"
        )

    def fingerprint(self) -> dict[str, Any]:
        """Return what is drawn from, with the contents of all slices, and how; see `train`."""
        training, validation = (
            array_fingerprint(one for slices in stacks for one in slices) for stacks in (self.training, self.validation)
        )
        numbers = {name: getattr(self, name) for name in ("size", "rows", "batch", "coils", "first", "seed")}
        lengths = [[len(slices) for slices in stacks] for stacks in (self.training, self.validation)]
        return {
            "data": self.name,
            "training_data": training,
            "validation_data": validation,
            "slices": lengths,
            "scans": {**numbers, "noise": NOISE_RANGE},
        }

    def _scan(self, slices: Sequence[np.ndarray], rng: np.random.Generator) -> Scan:
        image = np.asarray(slices[int(rng.integers(len(slices)))], np.complex64)
        return simulate_scan(image, self.size, rng, self.coils)


def _pngs(folder: Path) -> list[Path]:
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() == ".png" and not path.name.startswith("."))
    if not paths:
        raise UnreadableInput(folder, "a folder without .png (sub-folders are not searched)", FORMATS)
    return paths


def _volume(path: Path, axis: int) -> np.ndarray:
    """Return (slices, rows, cols)."""
    if path.name.endswith((".nii", ".nii.gz")):
        return np.moveaxis(_nifti(path), axis, 0)
    if path.suffix in (".npy", ".npz"):
        array = _array(path)
        return array if array.ndim == 3 else array[None]
    raise UnreadableInput(path, "another kind of file" if path.exists() else "no such file", FORMATS)


def _nifti(path: Path) -> np.ndarray:
    import nibabel

    expected = "a volume (x, y, z) of numbers"
    with reading(path, expected):
        array = np.asanyarray(nibabel.load(path).dataobj)  # type: ignore[attr-defined]
    if array.ndim == 4 and array.shape[3] == 1:
        array = array[..., 0]
    return _checked(path, array, (3,), expected)


def _array(path: Path) -> np.ndarray:
    expected = "an array (slices, rows, cols) or (rows, cols) of numbers"
    with reading(path, expected):
        if path.suffix == ".npy":
            return _checked(path, np.load(path, mmap_mode="r", allow_pickle=False), (2, 3), expected)
        with np.load(path, allow_pickle=False) as archive:
            names = archive.files
            if len(names) != 1:
                raise UnreadableInput(path, f"{len(names)} arrays {sorted(names)[:5]}", "one array")
            return _checked(path, archive[names[0]], (2, 3), expected)


def _checked(path: Path, array: np.ndarray, ranks: tuple[int, ...], expected: str) -> np.ndarray:
    if array.ndim not in ranks or array.dtype.kind not in "uifc" or 0 in array.shape:
        raise UnreadableInput(path, f"an array of shape {array.shape}, dtype {array.dtype}", expected)
    return array


def _energy(path: Path, slice_name: str, image: np.ndarray) -> float:
    """Return the mean square of a slice. Raises UnreadableInput for one that cannot be trained on."""
    if min(image.shape) < SMALLEST:
        raise UnreadableInput(path, f"{slice_name} of shape {image.shape}", f"{SMALLEST} x {SMALLEST} or more")
    with np.errstate(over="ignore", invalid="ignore"):
        magnitude = np.abs(image.astype(np.complex64)).astype(np.float64)
    if not np.isfinite(magnitude).all():
        raise UnreadableInput(path, f"{slice_name} with NaN or infinity", "finite numbers in single precision")
    return float(np.square(magnitude).mean())

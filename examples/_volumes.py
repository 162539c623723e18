"""Volumes and image series to train on, split once and for all into training and validation, and their problems."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, final

import numpy as np
import torch

from examples._subjects import nifti_volume
from molrecon.simulation.strips import Problem, stack_problems
from molrecon.simulation.volumes import resampled, slab_problem, window_problem
from molrecon.training.fingerprint import array_fingerprint

T1_VALIDATION_SLAB = (120, 140)  # axial indices; training takes no voxel of this slab
TAPER = 8  # voxels over which the volume for training fades out before the validation slab
PERFUSION_TRAIN = slice(0, 60)
PERFUSION_VALIDATION = slice(64, 79)  # the gap keeps neighbouring frames apart
CARDIAC_HELD_OUT = 6  # the last subjects of the short-axis frames are for validation
NEW_GRID_EVERY = 12  # steps between new voxel sizes of the volume
# Of the view, by the longest axis of the volume: a head that the view cuts has no single set of maps.
FILLED = (0.7, 1.0)
SUBJECT = re.compile(r"SC(?:-[A-Z]+)+-\d+")


def t1_volume(folder: Path) -> np.ndarray:
    """Return the T1 magnitude volume (188, 256, 190), float32 in [0, 1]; the last axis is axial."""
    return nifti_volume(folder / "mri" / "brain_t1_3d_188x256x190.nii.gz").astype(np.float32) / 255


def t1_training_volume(folder: Path) -> np.ndarray:
    """Return the T1 magnitudes below the validation slab (188, 256, 120) float32, fading out towards it.

    Args:
        folder: the data folder (see data_scripts/prepare_brains.py).
    """
    volume = t1_volume(folder)[:, :, : T1_VALIDATION_SLAB[0]].copy()
    volume[:, :, -TAPER:] *= (np.arange(TAPER, 0, -1, dtype=np.float32) - 0.5) / TAPER
    return volume


def t1_validation_slab(folder: Path) -> np.ndarray:
    """Return the T1 magnitudes of the validation slab (188, 256, 20) float32, no voxel of which is trained on."""
    return t1_volume(folder)[:, :, slice(*T1_VALIDATION_SLAB)]


def colin27_volume(folder: Path) -> np.ndarray:
    """Return the T1 magnitudes of another head (181, 217, 181) float32 in [0, 1], the average of 27 scans."""
    volume = nifti_volume(folder / "mri" / "brain_t1_colin27_181x217x181.nii.gz").astype(np.float32)
    return volume / volume.max()


def perfusion_series(folder: Path, frames: slice) -> np.ndarray:
    """Return magnitudes (time, 256, 256) float32 of a first-pass perfusion scan of the heart, at most 1.

    Args:
        folder: the data folder, with mri/cardiac_perfusion_79x256x256_u16.npy.
        frames: PERFUSION_TRAIN or PERFUSION_VALIDATION.
    """
    series = np.load(folder / "mri" / "cardiac_perfusion_79x256x256_u16.npy")
    return series[frames].astype(np.float32) / np.float32(series.max())


def cardiac_frames(folder: Path, *, held_out: bool) -> np.ndarray:
    """Return short-axis magnitudes (n, 256, 256) float32 in [0, 1], of the subjects held out or of all the others.

    Each is one moment of a heart; the file has two a slice and no sequences.

    Args:
        folder: the data folder, with mri/cardiac_shortaxis_526x256x256_u8.npz.
        held_out: whether those for validation are asked for.

    Raises:
        ValueError: a frame whose name has no subject.
    """
    with np.load(folder / "mri" / "cardiac_shortaxis_526x256x256_u8.npz") as stored:
        frames, names = stored["x"], [str(name) for name in stored["name"]]
    found = [SUBJECT.search(name) for name in names]
    subjects = [match.group() for match in found if match]
    if len(subjects) < len(names):
        raise ValueError(f"cardiac_frames: a name without subject among {names[:3]}..., expected SC-...-NN")
    kept = sorted(set(subjects))[-CARDIAC_HELD_OUT:]
    chosen = np.array([(subject in kept) == held_out for subject in subjects])
    return frames[chosen].astype(np.float32) / 255


@final
class Slabs:
    """Problems of 3D imaging, 2D undersampled: slabs of volumes on grids of changing voxel size.

    The readout is the first axis of a slab: it is there that a model of planes can guide (`PlaneByPlane`).

    Args:
        training: volumes of magnitudes (any, any, any) to draw from.
        validation: another, whose last axis is the readout of the validation problems; training sees none of them.
        shape: (readout, other, other) of a slab. Of a pyramid of levels that starts on odd or on even pixels, sizes
            of one less than a multiple of 2^(levels - 1) waste the least on margins.
        batch: slabs of a problem.
        seed: of voxel sizes and validation problems.
        device: where problems go.
    """

    def __init__(
        self,
        training: Sequence[np.ndarray],
        validation: np.ndarray,
        *,
        shape: tuple[int, int, int] = (5, 79, 79),
        batch: int = 1,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        self.training, self.validation = list(training), validation
        self.shape, self.batch, self.seed, self.device = shape, batch, seed, device
        self._grid: tuple[int, np.ndarray] | None = None

    def fingerprint(self) -> dict[str, Any]:
        """Return what is drawn from, and how; see `train`."""
        return {
            "training_data": array_fingerprint(self.training),
            "validation_data": array_fingerprint([self.validation]),
            "slabs": {"shape": self.shape, "batch": self.batch, "seed": self.seed},
        }

    def draw(self, rng: np.random.Generator, step: int) -> Problem:
        """Return a batch of slabs of 4 to 8 coils, undersampled 4 to 8 times."""
        volume = self._coarser(step // NEW_GRID_EVERY)
        coils = int(rng.integers(4, 9))
        slabs = [slab_problem(volume, self.shape, 0, rng, coils=coils) for _ in range(self.batch)]
        return stack_problems(slabs).to(self.device)

    def problems(self, count: int) -> list[Problem]:
        """Return fixed validation problems, undersampled 6 times, 8 coils, at two voxel sizes in turn."""
        rows, cols, thickness = self.validation.shape
        problems = []
        for i in range(count):
            rng = np.random.default_rng([self.seed, 2 * 10**9, i])
            share = (0.5, 0.35)[i % 2]
            grid = (round(rows * share), round(cols * share), thickness // 2)
            volume = resampled(self.validation, grid).transpose(2, 0, 1)
            slab = slab_problem(volume, volume.shape, 0, rng, acceleration=(6, 6), turned=False)
            problems.append(slab.to(self.device))
        return problems

    def _coarser(self, number: int) -> np.ndarray:
        if self._grid is None or self._grid[0] != number:
            rng = np.random.default_rng([self.seed, 10**9, number])
            volume = self.training[int(rng.integers(len(self.training)))]
            share = rng.uniform(*FILLED) * min(self.shape[1:]) / max(volume.shape)
            rows, cols, slices = (round(n * share * rng.uniform(0.93, 1.0)) for n in volume.shape)
            self._grid = number, resampled(volume, (rows, cols, slices))
        return self._grid[1]


@final
class Windows:
    """Problems of 2D+time imaging, k-t undersampled: windows of a series, and of single frames that are set in motion.

    Args:
        series: magnitudes (time, rows, cols) to train on.
        frames: single magnitudes (n, rows, cols) to train on.
        validation: another series and other frames; training sees none of them.
        shape: (time, rows, cols) of a window.
        batch: windows of a problem.
        seed: of the validation problems.
        device: where problems go.
    """

    def __init__(
        self,
        series: np.ndarray,
        frames: np.ndarray,
        validation: tuple[np.ndarray, np.ndarray],
        *,
        shape: tuple[int, int, int] = (12, 24, 96),
        batch: int = 2,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        self.series, self.frames, self.validation = series, frames, validation
        self.shape, self.batch, self.seed, self.device = shape, batch, seed, device

    def fingerprint(self) -> dict[str, Any]:
        """Return what is drawn from, and how; see `train`."""
        return {
            "training_data": array_fingerprint([self.series, self.frames]),
            "validation_data": array_fingerprint(self.validation),
            "windows": {"shape": self.shape, "batch": self.batch, "seed": self.seed},
        }

    def draw(self, rng: np.random.Generator, step: int) -> Problem:
        """Return a batch of windows of 5 to 12 coils, undersampled 5 to 10 times, half of them of the series."""
        coils = int(rng.integers(5, 13))
        return stack_problems([self._window(rng, coils) for _ in range(self.batch)]).to(self.device)

    def _window(self, rng: np.random.Generator, coils: int) -> Problem:
        if rng.random() < 0.5:
            return window_problem(self.series, self.shape, rng, coils=coils, moving=rng.random() < 0.5)
        frame = self.frames[[int(rng.integers(len(self.frames)))]]
        return window_problem(frame, self.shape, rng, coils=coils)

    def problems(self, count: int) -> list[Problem]:
        """Return fixed validation problems, undersampled 8 times, 8 coils: moving frames and the series in turn."""
        series, frames = self.validation
        time, rows, cols = self.shape
        shape = (min(time + 2, len(series)), rows + 8, cols + 16)
        problems = []
        for i in range(count):
            rng = np.random.default_rng([self.seed, 2 * 10**9, i])
            source = series if i % 2 else frames[[int(rng.integers(len(frames)))]]
            window = window_problem(source, shape, rng, acceleration=(8, 8), moving=i % 2 == 0)
            problems.append(window.to(self.device))
        return problems

"""Whole slices to validate 2D reconstructors with, in families none of whose subjects is trained on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import final

import numpy as np
import torch

from examples import _subjects as sources
from molrecon.io import RawVolume, read_npy
from molrecon.simulation.fields import draw_fields
from molrecon.simulation.images import ImageSet
from molrecon.simulation.scan import with_phase
from operators import centred_fft, equispaced_fraction_mask, random_mask

BRAIN_FILE = "brain_mprage_8ch_230x180_ksp_c64.npy"
GE_FILE = "multicoil_brain_4ch_ge_coilimages_i16.npz"
SCALE = 100.0  # maximum of simulated scans: that of the images would be 1, and nothing should depend on that


@final
@dataclass(frozen=True, eq=False)
class Case:
    """A fully sampled slice, and how it is undersampled.

    Attributes:
        name: tells it apart from all others.
        full: k-space (1, coil, rows, cols), without noise where it is simulated.
        sampling_mask: (cols,) bool.
        added_noise: standard deviation of the complex noise to add to every sample, in the units of the k-space.
        seed: of that noise.
    """

    name: str
    full: RawVolume
    sampling_mask: np.ndarray
    added_noise: float
    seed: int


@final
@dataclass(frozen=True, eq=False)
class Family:
    """Cases of one kind.

    Attributes:
        name: of the family.
        chooses: False where it only measures: no choice is made on it.
        cases: returns them.
    """

    name: str
    chooses: bool
    cases: Callable[[], Iterator[Case]]


def families(folder: Path) -> list[Family]:
    """Return all families.

    Args:
        folder: the data folder, see `sources`.
    """
    mri = folder / "mri"

    def simulated(name: str, images: ImageSet, numbers: tuple[int, ...], noise: float) -> Family:
        return Family(name, True, lambda: _simulated(name, images, numbers, noise))

    waterfat = np.load(mri / "waterfat_complex_i16.npz")
    pdff, single = np.load(mri / "pdff_complex_i16.npz"), np.load(mri / "singles_complex_i16.npz")
    return [
        Family("8-coil brain", False, lambda: _brain(mri / BRAIN_FILE)),
        Family("half field of view", False, lambda: _half_field_of_view(mri / BRAIN_FILE)),
        Family("4-coil brain", False, lambda: _four_coils(mri / GE_FILE)),
        simulated("SIAT T2 brain", ImageSet("", sources.siat(folder, sources.SIAT_VALIDATION)), (2, 15, 27), 0.005),
        simulated("ukat kidney", ImageSet("", sources.ukat_slices(folder, sources.UKAT_VALIDATION)), (4, 13), 0.005),
        simulated(
            "water-fat liver",
            ImageSet("", waterfat[sources.WATERFAT_VALIDATION], kept=(5 / 8, 5 / 8)),
            (1, 6),
            0.005,
        ),
        simulated("thorax", ImageSet("", pdff[sources.PDFF_VALIDATION]), (2,), 0.005),
        simulated("liver diffusion", ImageSet("", single[sources.SINGLE_VALIDATION]), (0,), 0.005),
        simulated(
            "MS brain", ImageSet("", sources.ms_slices(folder, sources.MS_VALIDATION), kept=(1, 0.7)), (3,), 0.01
        ),
        simulated("JLF T1 brain", ImageSet("", sources.jlf_slices(folder, sources.JLF_VALIDATION)), (3, 14), 0.01),
        simulated("IXI T1 head", ImageSet("", sources.ixi_slices(folder, sources.IXI_VALIDATION)), (2, 22), 0.01),
    ]


def _brain(path: Path) -> Iterator[Case]:
    """Yield the real 8-coil T1 brain, with its own noise: random 4x with 24 lines is the setting of most tables."""
    full = read_npy(path)
    cols = full.kspace.shape[-1]
    for acceleration, lines, seeds in ((4, 24, (0, 1, 2)), (8, 12, (0,))):
        for seed in seeds:
            for mask in (random_mask, equispaced_fraction_mask):
                name = f"8-coil brain, {_kind(mask)} {acceleration}x, seed {seed}"
                yield Case(name, full, mask(cols, acceleration, lines / cols, seed), 0.0, seed)


def _half_field_of_view(path: Path) -> Iterator[Case]:
    """Yield the 8-coil brain with every second phase encode taken as all of them: the head wraps around."""
    full = read_npy(path)
    kspace = np.ascontiguousarray(full.kspace[..., ::2])
    rows, cols = kspace.shape[-2:]
    folded = replace(full, kspace=kspace, sampling_mask=np.ones((1, 1, cols), bool), recon_shape=(rows, cols))
    for acceleration, seeds in ((2, (0, 1, 2)), (3, (0,))):
        for seed in seeds:
            name = f"half field of view, random {acceleration}x, seed {seed}"
            yield Case(name, folded, random_mask(cols, acceleration, 24 / cols, seed), 0.0, seed)


def _four_coils(path: Path) -> Iterator[Case]:
    """Yield the 4-coil T1 brain: coil images as they were measured, with their noise."""
    parts = np.load(path)["x"].astype(np.float32) / 32767
    full = volume(parts[:, 0] + 1j * parts[:, 1])
    cols = full.kspace.shape[-1]
    for seed in (0, 1):
        for mask in (random_mask, equispaced_fraction_mask):
            yield Case(f"4-coil brain, {_kind(mask)} 4x, seed {seed}", full, mask(cols, 4, 24 / cols, seed), 0.0, seed)


def _simulated(name: str, images: ImageSet, numbers: tuple[int, ...], noise: float) -> Iterator[Case]:
    """Yield slices with 8 simulated coils: 4x with 24 lines, or 3x with 16 where the matrix is small."""
    for number in numbers:
        rng = np.random.default_rng(number)
        image = images.image(number)
        if not np.iscomplexobj(image):
            image = with_phase(image, rng)
        coil_images = draw_fields(image, 8, rng, count=8) * image
        coil_images *= SCALE / np.linalg.norm(coil_images, axis=0).max()
        full = volume(coil_images)
        cols = image.shape[1]
        acceleration, lines = (4, 24) if cols > 165 else (3, 16)
        for mask in (random_mask, equispaced_fraction_mask):
            case = f"{name} {number}, {_kind(mask)} {acceleration}x"
            yield Case(case, full, mask(cols, acceleration, lines / cols, number), noise * SCALE, number)


def volume(coil_images: np.ndarray) -> RawVolume:
    """Return coil images (coil, rows, cols) as a fully sampled scan of one slice."""
    kspace = centred_fft(torch.from_numpy(coil_images.astype(np.complex64)), (-2, -1)).numpy()[None]
    rows, cols = kspace.shape[-2:]
    return RawVolume(Path("simulated"), kspace, np.ones(cols, bool), (rows, cols), "")


def _kind(mask: object) -> str:
    return "random" if mask is random_mask else "equispaced"

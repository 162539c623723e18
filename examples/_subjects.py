"""The real images that the packaged models are trained on and validated with, split by subject.

FOLDER is laid out as data_scripts says. Where the scanner interpolated an image, the share of k-space that it measured
is kept only: a prior that is trained on filled-up images learns that images are smooth.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

from molrecon.io.images import luma, read_image
from molrecon.simulation.images import ImageSet

SIAT_TRAIN, SIAT_VALIDATION = range(160), range(170, 200)  # neighbouring slices are alike: the gap keeps the two apart
UKAT_TRAIN, UKAT_VALIDATION = (1, 2, 3, 5), (4,)  # sessions
WATERFAT_TRAIN = ("case13_heart_3T", "case15_breast_1.5T", "case17_joint_1.5T")
WATERFAT_VALIDATION = "case12_liver_1.5T"
PDFF_TRAIN, PDFF_VALIDATION = ("pelvis_0.35T", "liver_3T_12echo"), "thorax_3T_6echo"
SINGLE_TRAIN, SINGLE_VALIDATION = "fau_t2brain_512", "liver_dwi_120x140"
MS_TRAIN, MS_VALIDATION = (1, 3, 4, 12), (9,)
JLF_TRAIN, JLF_VALIDATION = tuple(range(1, 51)), tuple(range(51, 61))
IXI_TRAIN, IXI_VALIDATION = tuple(range(1, 19)), tuple(range(19, 24))
VOLUME_MARGIN = 15  # first and last slices of each orientation show little


def training_sets(folder: Path) -> list[ImageSet]:
    """Return the images of all subjects that training may see; complex sets first, then magnitudes.

    Args:
        folder: the data folder, with mri and cs in it.
    """
    return complex_training_sets(folder) + magnitude_training_sets(folder)


def complex_training_sets(folder: Path) -> list[ImageSet]:
    """Return the sets of images with their own phase."""
    mri = folder / "mri"
    ukat = _archive(mri / "ukat_kidney_complex_i16.npz")
    waterfat, pdff = _archive(mri / "waterfat_complex_i16.npz"), _archive(mri / "pdff_complex_i16.npz")
    heart, breast, joint = WATERFAT_TRAIN
    pelvis, liver = PDFF_TRAIN
    single = _archive(mri / "singles_complex_i16.npz")[SINGLE_TRAIN]
    field_map = _archive(mri / "brain_fieldmap_80_complex_i16.npz")["x"]
    return [
        ImageSet("SIAT T2 brain", siat(folder, SIAT_TRAIN), 10),
        ImageSet("ukat kidney", _subjects(ukat, UKAT_TRAIN), 16),
        ImageSet("ukat kidney GE", _archive(mri / "ukat_kidney_ge256_complex_i16.npz")["x"], 8, (176 / 256, 160 / 256)),
        ImageSet("water-fat heart", waterfat[heart], 8, (1.0, 5 / 8)),
        ImageSet("water-fat breast", waterfat[breast], 5),
        ImageSet("water-fat joint", waterfat[joint], 6),
        ImageSet("fat fraction pelvis", pdff[pelvis], 5),
        ImageSet("fat fraction liver", pdff[liver], 8, (1 / 2, 5 / 8)),
        ImageSet("T2 brain 512", single, 3),
        ImageSet("field map brain", field_map, 1),
    ]


def magnitude_training_sets(folder: Path) -> list[ImageSet]:
    """Return the sets of magnitudes, which get a simulated phase."""
    mri = folder / "mri"
    photographs = [luma(read_image(path)) for path in sorted((folder / "cs" / "train400").glob("*.png"))]
    return [
        ImageSet("Colin27", _slices(mri / "brain_t1_colin27_181x217x181.nii.gz"), 12),
        ImageSet("T1 volume", _slices(mri / "brain_t1_3d_188x256x190.nii.gz"), 8),
        ImageSet("MS brain", ms_slices(folder, MS_TRAIN), 10, (1.0, 0.7)),
        ImageSet("JLF T1 brain", _subjects(_archive(mri / "jlf_t1_60subj_u16.npz"), JLF_TRAIN), 5),
        ImageSet("PDDL T1 brain", _archive(mri / "t1_pddl_1subj_u16.npz")["x"], 3),
        ImageSet("IXI T1 head", ixi_slices(folder, IXI_TRAIN), 3),
        ImageSet("neck", _archive(mri / "neck_axial_mt1_1subj_u16.npz")["x"], 3),
        ImageSet("cardiac short axis", _archive(mri / "cardiac_shortaxis_526x256x256_u8.npz")["x"], 4),
        ImageSet("cardiac perfusion", np.load(mri / "cardiac_perfusion_79x256x256_u16.npy", mmap_mode="r"), 1),
        ImageSet("photographs", photographs, 4),
    ]


def validation_sets(folder: Path) -> list[ImageSet]:
    """Return the images of subjects that training does not see, to follow it by; no set that only measures is here."""
    mri = folder / "mri"
    waterfat = _archive(mri / "waterfat_complex_i16.npz")[WATERFAT_VALIDATION]
    return [
        ImageSet("SIAT T2 brain", siat(folder, SIAT_VALIDATION)),
        ImageSet("MS brain", ms_slices(folder, MS_VALIDATION), kept=(1.0, 0.7)),
        ImageSet("ukat kidney", ukat_slices(folder, UKAT_VALIDATION)),
        ImageSet("JLF T1 brain", jlf_slices(folder, JLF_VALIDATION)),
        ImageSet("water-fat liver", waterfat, kept=(5 / 8, 5 / 8)),
    ]


def siat(folder: Path, numbers: Collection[int]) -> np.ndarray:
    """Return SIAT T2 brain slices (n, 2, 256, 256) int16, real and imaginary part."""
    return np.asarray(_archive(folder / "mri" / "siat200_256_reim_i16.npz")["x"][list(numbers)])


def siat_slices(folder: Path, numbers: Collection[int]) -> list[np.ndarray]:
    """Return SIAT T2 brain slices (256, 256), complex64 with their measured phase."""
    stored = siat(folder, numbers).astype(np.float32) / 32767
    return list(stored[:, 0] + 1j * stored[:, 1])


def ms_slices(folder: Path, subjects: Collection[int]) -> list[np.ndarray]:
    """Return FLAIR, T1 and T2 slices (rows, cols) of patients of all sizes."""
    archive = _archive(folder / "mri" / "ms_brain_flair_t1_t2_u16.npz")
    sizes = [key.removeprefix("x_") for key in archive if key.startswith("x_")]
    return [one for size in sizes for one in _subjects(archive, subjects, f"_{size}")]


def ixi_slices(folder: Path, subjects: Collection[int]) -> list[np.ndarray]:
    """Return sagittal T1 slices (rows, cols) of both sizes."""
    archive = _archive(folder / "mri" / "ixi_2mm_t1_sag_23subj_u8.npz")
    return [one for size in ("_135x127", "_128x128") for one in _subjects(archive, subjects, size)]


def jlf_slices(folder: Path, subjects: Collection[int]) -> list[np.ndarray]:
    """Return axial T1 slices (rows, cols)."""
    return _subjects(_archive(folder / "mri" / "jlf_t1_60subj_u16.npz"), subjects)


def ukat_slices(folder: Path, sessions: Collection[int]) -> list[np.ndarray]:
    """Return coronal abdomens (2, 128, 128) int16, real and imaginary part."""
    return _subjects(_archive(folder / "mri" / "ukat_kidney_complex_i16.npz"), sessions)


def _subjects(archive: dict[str, np.ndarray], subjects: Collection[int], suffix: str = "") -> list[np.ndarray]:
    chosen = np.isin(archive[f"subject{suffix}"], list(subjects))
    return list(archive[f"x{suffix}"][chosen])


def nifti_volume(path: Path) -> np.ndarray:
    """Return the numbers of a NIfTI file, which are magnitudes."""
    image: Any = nibabel.load(path)
    return np.asarray(image.dataobj)


def _slices(path: Path) -> list[np.ndarray]:
    volume = nifti_volume(path)
    slices = []
    for axis in range(3):
        moved = np.moveaxis(volume, axis, 0)
        slices += list(moved[VOLUME_MARGIN:-VOLUME_MARGIN])
    return slices


def _archive(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as archive:
        return {key: archive[key] for key in archive.files}

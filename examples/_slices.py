"""Images to train on: SIAT slices and slices of the T1 volume, split once and for all into training and validation."""

from __future__ import annotations

from pathlib import Path

import numpy as np

SIAT_TRAIN = slice(0, 160)
SIAT_VALIDATION = slice(170, 200)  # neighbouring slices are alike: the gap keeps the two apart
T1_VALIDATION_SLAB = (120, 140)  # axial indices; training takes no voxel of this slab
T1_MARGIN = 15  # first and last slices of each orientation show little


def siat_slices(folder: Path, numbers: slice) -> list[np.ndarray]:
    """Return complex64 T2 brain slices (256, 256) with their measured phase.

    Args:
        folder: the data folder (see data_scripts/prepare_siat.py).
        numbers: SIAT_TRAIN or SIAT_VALIDATION.
    """
    stored = np.load(folder / "mri" / "siat200_256_reim_i16.npz")["x"][numbers].astype(np.float32) / 32767
    return list(stored[:, 0] + 1j * stored[:, 1])


def t1_volume(folder: Path) -> np.ndarray:
    """Return the T1 magnitude volume (188, 256, 190), float32 in [0, 1]; the last axis is axial."""
    import nibabel

    image = nibabel.load(folder / "mri" / "brain_t1_3d_188x256x190.nii.gz")
    return np.asarray(image.dataobj, dtype=np.float32) / 255  # type: ignore[attr-defined]


def t1_training_slices(folder: Path) -> list[np.ndarray]:
    """Return T1 slices of all three orientations, none of which touches the validation slab; complex64, no phase."""
    volume = t1_volume(folder)
    first, last = T1_VALIDATION_SLAB
    slices = [volume[:, :, z] for z in range(T1_MARGIN, first)]
    slices += [volume[:, :, z] for z in range(last, volume.shape[2] - T1_MARGIN)]
    below = volume[:, :, :first]
    slices += [below[x] for x in range(T1_MARGIN, volume.shape[0] - T1_MARGIN, 2)]
    slices += [below[:, y] for y in range(T1_MARGIN, volume.shape[1] - T1_MARGIN, 2)]
    return [s.astype(np.complex64) for s in slices]


def t1_validation_slices(folder: Path) -> list[np.ndarray]:
    """Return the axial slices of the validation slab, complex64, no phase."""
    volume = t1_volume(folder)
    return [volume[:, :, z].astype(np.complex64) for z in range(*T1_VALIDATION_SLAB)]

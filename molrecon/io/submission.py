"""Reconstructions in the format of the fastMRI challenge."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from molrecon.io.hdf5 import hdf5_file

__all__ = ["write_submission"]


def write_submission(path: str | Path, reconstruction: np.ndarray) -> None:
    """Write reconstruction (slices, h, w), real, as HDF5 with one float32 dataset `reconstruction`.

    A series is (time, slices, h, w), which the challenge does not know. One file a volume, under the same name as its
    input file (`path` ends in that name). Raises ValueError for another rank, an empty or non-finite array; TypeError
    for a complex one; OSError for a file that cannot be written.
    """
    reconstruction = np.asarray(reconstruction)
    if reconstruction.dtype.kind not in "biuf":
        raise TypeError(f"write_submission: reconstruction of dtype {reconstruction.dtype}, expected real")
    with np.errstate(over="ignore"):
        reconstruction = reconstruction.astype(np.float32)
    if reconstruction.ndim not in (3, 4) or reconstruction.size == 0 or not np.isfinite(reconstruction).all():
        expected = "(slices, h, w) or (time, slices, h, w), finite in float32, not empty"
        raise ValueError(f"write_submission: reconstruction {reconstruction.shape}, expected {expected}")
    with hdf5_file(path) as file:
        file.create_dataset("reconstruction", data=reconstruction)

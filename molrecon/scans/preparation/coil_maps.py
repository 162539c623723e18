"""Sensitivity maps that come from elsewhere: from a file, or from the caller; and maps as such files hold them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from molrecon.io import center_crop, read_bart, read_npy
from molrecon.io.volume import reading
from molrecon.scans.preparation.coil_mixing import whitening
from molrecon.scans.preparation.prepared_volume import MapsSource, PreparedVolume
from operators.compression import mix_coils


def read_maps(path: str | Path) -> np.ndarray:
    """Read maps: .npy (coil, rows, cols), (slices, coil, rows, cols) or (slices, set, coil, rows, cols), or BART's.

    Returns (slices, coil, rows, cols) complex64, or (slices, set, coil, rows, cols) with several sets. A BART pair has
    the axes of its k-space and one set (`bart ecalib -m 1` writes them so). Raises UnreadableInput.
    """
    path = Path(path)
    if path.suffix != ".npy":
        return read_bart(path).kspace
    with reading(path, "an array of coil maps"):
        shape = np.load(path, mmap_mode="r", allow_pickle=False).shape
        if len(shape) == 5:
            return np.load(path, allow_pickle=False).astype(np.complex64)
    return read_npy(path).kspace


def given_maps(
    maps: np.ndarray, images: tuple[int, ...], raw_rows: int, mixing: Tensor | None
) -> tuple[Tensor, MapsSource]:
    """Return maps (slices, set, coil, rows, cols) complex64 of those that were given, mixed as the coils are.

    Args:
        maps: see `prepare`.
        images: (slices, coil, rows, cols) of the coil images.
        raw_rows: before the readout was cropped.
        mixing: of the coils, or None.

    Raises:
        ValueError: maps that do not fit.
    """
    slices, coils, rows, cols = images
    shape = maps.shape
    if maps.ndim == 4:
        maps = maps[:, None]
    if maps.ndim == 5 and maps.shape[-2:] == (raw_rows, cols):
        maps = center_crop(maps, (rows, cols))
    if maps.ndim != 5 or maps.shape[0] not in (1, slices) or maps.shape[2:] != (coils, rows, cols) or maps.size == 0:
        raise ValueError(
            f"prepare: sensitivity maps {shape}, expected ({slices} or 1, {coils}, {rows} or {raw_rows}, {cols})"
            " (slices, coil, rows, cols), or (slices, set, coil, rows, cols)"
        )
    if maps.dtype.kind != "c" or not np.isfinite(maps).all():
        raise ValueError(f"prepare: sensitivity maps of dtype {maps.dtype}, expected complex and finite values")
    tensor = torch.from_numpy(np.array(maps, dtype=np.complex64, order="C"))  # a copy: strides may be negative
    digest = hashlib.sha256(tensor.numpy().tobytes()).hexdigest()
    tensor = tensor if mixing is None else mix_coils(mixing, tensor.flatten(0, 1)).unflatten(0, tensor.shape[:2])
    return tensor.expand(slices, -1, -1, -1, -1), MapsSource("given", {"shape": list(shape), "sha256": digest})


def unmixed_maps(prepared: PreparedVolume) -> np.ndarray:
    """Return the coil maps as `prepare` takes them: (slices, coil, rows, cols) complex64, or with the sets after the
    slices where there are several. Those of whitened coils are turned back into those of the coils themselves.
    """
    maps, mixing = prepared.sensitivity_maps, whitening(prepared.volume)[0]
    if mixing is not None:
        back = torch.linalg.inv(mixing.to(torch.complex128)).to(maps.dtype)
        maps = mix_coils(back, maps.flatten(0, 1)).unflatten(0, maps.shape[:2])
    return np.ascontiguousarray((maps[:, 0] if prepared.sets == 1 else maps).numpy())

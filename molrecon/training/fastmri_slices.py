"""Slices of fastMRI files as training wants them, and those of late kept in memory."""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from torch import Tensor

from molrecon.io import UnreadableInput
from molrecon.scans.preparation import OBJECT_SHARE
from molrecon.simulation.strips import robust_maximum
from molrecon.training.fastmri_files import FastMRIFile, check_fully_sampled, measured_columns, read_slice
from operators import centred_ifft, crop_readout, estimate_noise_level

CALIBRATION_ROWS = 24
NOISIEST = 0.1  # noise level of a slice relative to its maximum; above, it shows nothing


@final
@dataclass(frozen=True, eq=False)
class Slice:
    """A slice on the image's grid, divided by the 99.5 % quantile of its root sum of squares.

    Attributes:
        coil_images: (coil, rows, cols) complex64.
        centre: their k-space, the central 24 rows (coil, 24, cols), zero frequency at [12, cols // 2].
        columns: (cols,) bool, which were measured.
        noise_level: standard deviation of the complex noise of a coil, estimated.
    """

    coil_images: Tensor
    centre: Tensor
    columns: np.ndarray
    noise_level: float

    @property
    def nbytes(self) -> int:
        """Bytes of the tensors."""
        return int(self.coil_images.nbytes + self.centre.nbytes)

    def missing_noise(self, level: float) -> float:
        """Return the level of the noise that added to the slice's own makes `level`; 0 where that is no more."""
        return math.sqrt(max(level**2 - self.noise_level**2, 0.0))


def load_slice(file: FastMRIFile, number: int, *, fully_sampled: bool) -> Slice:
    """Return slice `number` of a file.

    Raises:
        UnreadableInput: it cannot be read, is undersampled where it should not be, or shows noise only.
    """
    stored = read_slice(file, number)
    columns = measured_columns(file, number, stored)
    if fully_sampled:
        check_fully_sampled(file.path, columns)
    kspace = torch.from_numpy(stored / np.abs(stored).max())[None]
    mask = torch.from_numpy(columns)[None, None]
    level = float(estimate_noise_level(kspace, mask, file.rows <= OBJECT_SHARE * file.full_rows))
    kspace = crop_readout(kspace, file.rows)[0]
    coil_images = centred_ifft(kspace, (-2, -1))
    scale = robust_maximum(torch.linalg.vector_norm(coil_images, dim=0))
    level /= float(scale)
    if not level < NOISIEST:
        raise UnreadableInput(file.path, f"slice {number} with noise of {level:.2g} of its maximum", "an object")
    half = min(CALIBRATION_ROWS, file.rows) // 2
    centre = kspace[:, file.rows // 2 - half : file.rows // 2 + half] / scale
    return Slice(coil_images / scale, centre, columns, level)


@final
class SliceCache:
    """Slices and maps in memory, up to a number of bytes, the least recently used dropped first; safe with threads.

    A copy for another process starts empty.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._values: OrderedDict[tuple[int, ...], Slice | Tensor] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type[SliceCache], tuple[int]]:
        """Leave the values behind."""
        return SliceCache, (self.limit,)

    def get(self, key: tuple[int, ...]) -> Slice | Tensor | None:
        """Return what is kept under a key, or None."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
            return self._values.get(key)

    def put(self, key: tuple[int, ...], value: Slice | Tensor) -> None:
        """Keep a value, and drop others where the limit asks for it."""
        with self._lock:
            if key in self._values:
                return
            self._values[key] = value
            self._bytes += value.nbytes
            while self._bytes > self.limit:
                self._bytes -= self._values.popitem(last=False)[1].nbytes

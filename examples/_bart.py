"""BART's l1-wavelet as the examples call it, with the maps that our methods have."""

from __future__ import annotations

import math
import subprocess
import tempfile
from pathlib import Path

import torch
from torch import Tensor

from molrecon.io import read_cfl, write_cfl
from operators import Sense, SoftSense


def bart_l1(kspace: Tensor, operator: Sense | SoftSense, weight: float) -> Tensor:
    """Return `bart pics -S -l1 -i100` with the given maps, (1, rows, cols) or (1, set, rows, cols)."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_cfl(folder / "k", _for_pics(kspace)[0].permute(1, 2, 0)[:, :, None].numpy())
        maps = operator.sensitivity_maps if operator.sets is not None else operator.sensitivity_maps[:, None]
        write_cfl(folder / "s", maps[0].permute(2, 3, 1, 0)[:, :, None].numpy())  # rows, cols, 1, coil, set
        command = ["bart", "pics", "-S", "-l1", f"-r{weight}", "-i100", "k", "s", "x"]
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
        image = torch.from_numpy(read_cfl(folder / "x").reshape(*kspace.shape[-2:], maps.shape[1])).movedim(-1, 0)
        return image[None] if operator.sets is not None else image


def _for_pics(kspace: Tensor) -> Tensor:
    """Return k-space (..., rows, cols) with the phase along axes of odd size that `bart pics` takes for a centred one.

    It centres by multiplying k-space and maps by `exp(2 pi i k c / n)`, c = n // 2, where k-space needs the conjugate:
    the same numbers for an even n, but not for an odd one. Without this its images lose up to 7 dB.
    """
    for axis in (-2, -1):
        n = kspace.shape[axis]
        if n % 2:
            phase = torch.exp(-4j * math.pi * (n // 2) / n * torch.arange(n)).to(kspace.dtype)
            kspace = kspace * phase.reshape(-1, *[1] * (-axis - 1))
    return kspace

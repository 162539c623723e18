"""The JSON beside every reconstruction: what went in, what was done, how sure it is, and with which versions."""

from __future__ import annotations

import json
import math
import platform
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, final

import numpy as np
import torch

from molrecon.io import RawVolume, write_atomically
from molrecon.scans.preparation import PreparedVolume
from molrecon.scans.reconstruction import Reconstruction

# Attributes of a file are free text, in which names have been found: only the words of fastMRI, and numbers, are kept.
ACQUISITIONS = ("AXT1", "AXT1POST", "AXT1PRE", "AXT2", "AXFLAIR", "CORPD_FBK", "CORPDFS_FBK")
ACQUISITION_NUMBERS = ("acceleration", "num_low_frequency", "conjugated")


@final
@dataclass(frozen=True)
class ModelSource:
    """Where a method comes from: the name or file that was given, and the sha256 of its weights, if it has any."""

    name: str
    weights_sha256: str | None


def make_sidecar(prepared: PreparedVolume, result: Reconstruction, source: ModelSource) -> dict[str, Any]:
    """Return the sidecar of one volume as plain JSON values; numbers that are not finite become None.

    Keys: input, model, sampling, sensitivity_maps, coil_compression, noise, solver, certificate, slices, warnings,
    summary, image, versions, finished, seconds.
    """
    volume = prepared.volume
    columns = (result.error_bound, result.n_steps, result.converged, result.empty, result.scale, result.checks)
    rows = zip(*columns, strict=True)
    return plain(
        {
            "input": {
                "path": str(volume.path),
                "sha256": volume.sha256,
                "kspace_shape": volume.kspace.shape,
                "fully_sampled": volume.fully_sampled,
                "left_out": dict(volume.left_out),
                **_acquisition(volume),
            },
            "model": {**asdict(source), "method": result.method},
            "sampling": describe_sampling(volume),
            "sensitivity_maps": {"method": prepared.maps_source.method, **prepared.maps_source.detail},
            "coil_compression": _compression(prepared),
            "noise": {
                "noise_level": prepared.noise_level,
                **({} if prepared.trajectory is None else {"noise_level_of_a_sample": prepared.sample_noise_level}),
                "estimated": prepared.noise_estimated,
                "estimates": dict(prepared.noise_estimates),
                "prewhitened": prepared.prewhitened,
                "relative_to_image_maximum": prepared.noise_level / peak
                if (peak := float(result.image.max()))
                else None,
                "adapted": None if result.adaptation is None else asdict(result.adaptation),
            },
            "solver": None
            if result.solver is None
            else {"tol": result.solver.tol, "max_steps": result.solver.max_steps},
            "certificate": asdict(result.certificate),
            "slices": [
                {
                    "index": k,
                    "error_bound": bound,
                    "n_steps": steps,
                    "converged": converged,
                    "empty": empty,
                    "scale": scale,
                    "checks": asdict(checks),
                }
                for k, (bound, steps, converged, empty, scale, checks) in enumerate(rows)
            ],
            "warnings": [asdict(warning) for warning in result.warnings],
            "summary": {
                "converged": result.converged.all(),
                "worst_error_bound": result.error_bound.max(),
                "kind": result.kind,
                "bound_of": result.unit,
                "n_empty": result.empty.sum(),
            },
            "image": {
                "shape": result.image.shape,
                "voxel_size_mm": result.voxel_size,
                "orientation": "unknown" if result.geometry is None else asdict(result.geometry),
                "maximum": result.image.max(),
                "content": "magnitude in the units of the input, comparable with the root sum of squares of the coils",
            },
            "versions": versions(),
            "finished": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "seconds": round(result.seconds, 3),
        }
    )


def _compression(prepared: PreparedVolume) -> dict[str, Any] | None:
    """Return what the virtual coils leave out; the certificate is of the equation with their data."""
    compression = prepared.compression
    if compression is None:
        return None
    return {
        "virtual_coils": len(compression.matrix),
        "of": compression.matrix.shape[-1],
        "energy_kept": compression.energy_kept,
        "signal_lost_over_noise": compression.signal_lost,
    }


def _acquisition(volume: RawVolume) -> dict[str, str | float | int]:
    """Return what the file's attributes say of the measurement, as far as it can tell of no person."""
    numbers = {key: volume.attributes[key] for key in ACQUISITION_NUMBERS if key in volume.attributes}
    described: dict[str, str | float | int] = {
        key: value for key, value in numbers.items() if not isinstance(value, str)
    }
    name = volume.attributes.get("acquisition")
    return {"acquisition": name, **described} if name in ACQUISITIONS else described


def describe_sampling(volume: RawVolume) -> dict[str, Any]:
    """Return what was measured: the columns of a one-dimensional mask, and the acceleration that was reached.

    `acceleration` is all samples of the acquired range (without zero padding) over the measured ones. Where the slices
    were sampled differently, `measured` and `of` count those of all slices, and `slices` describes each by itself.
    Of a trajectory `kind` is its name in the file, `measured` counts the samples of a slice and `of` the points of the
    grid; there is no one acceleration.
    """
    remarks = {"remarks": volume.remarks} if volume.remarks else {}
    if volume.trajectory is not None and volume.grid is not None:
        readouts, samples = volume.kspace.shape[-2:]
        return {
            "kind": volume.attributes.get("trajectory", "other"),
            "alike_in_all_slices": len(volume.trajectory) == 1,
            "readouts": readouts,
            "samples": samples,
            "measured": readouts * samples,
            "of": math.prod(volume.grid),
            "acceleration": None,
            **remarks,
        }
    mask = volume.sampling_mask
    cols: int = mask.shape[-1]
    left = int(volume.attributes.get("padding_left", 0))
    right = int(volume.attributes.get("padding_right", cols))
    described: dict[str, Any] = {
        "kind": "columns" if mask.shape[1] == 1 else "rows and columns",
        "alike_in_all_slices": len(mask) == 1,
        **_measured(mask, left, right),
    }
    if len(mask) > 1:
        described["slices"] = [{"index": k, **_measured(one[None], left, right)} for k, one in enumerate(mask)]
    return {**described, **remarks}


def _measured(mask: np.ndarray, left: int, right: int) -> dict[str, Any]:
    """Describe masks (slices, rows or 1, cols), the acquired columns being left to right - 1."""
    acquired = mask[..., left:right]
    count = int(acquired.sum())
    acceleration = round(acquired.size / count, 4) if count else None
    described: dict[str, Any] = {"measured": count, "of": acquired.size, "acceleration": acceleration}
    if mask.shape[:2] == (1, 1):
        described["columns"] = np.flatnonzero(mask)
    return described


def versions() -> dict[str, str]:
    """Return the versions a result depends on: packages, python, platform."""
    packages = {name: _version(name) for name in ("molrecon", "torch", "numpy")}
    cuda = {"cuda": torch.version.cuda} if torch.version.cuda else {}
    return {**packages, **cuda, "python": platform.python_version(), "platform": platform.platform()}


def plain(value: Any) -> Any:
    """Return a value as JSON has it: NumPy scalars and arrays as numbers and lists, non-finite numbers as None."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_json(path: str | Path, content: dict[str, Any], *, durable: bool = True) -> None:
    """Write JSON, atomically (`write_atomically`): the file is there as a whole or not at all. Raises OSError."""
    write_atomically(path, (json.dumps(plain(content), indent=2, allow_nan=False) + "\n").encode(), durable=durable)


@cache
def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:  # run from a source tree
        return "not installed"

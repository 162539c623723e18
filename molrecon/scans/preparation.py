"""From a raw volume to what every method needs: k-space on the image grid, coil maps, mask, noise level."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from molrecon.io import RawVolume, center_crop, read_bart, read_npy
from molrecon.scans.progress import progress_bar
from operators import Sense, espirit_maps
from operators.calibration import calibration_region
from operators.hybrid import crop_readout
from operators.noise import estimate_noise_level, noise_level_estimates

NOISE_SLICES = 16  # the noise is the same in all slices: so many, spread over the volume, tell it well enough
COMPARED_SLICES = 4  # so many tell whether it is about right
THRESHOLD, CROP = 0.02, 0.8  # of ESPIRiT, see `espirit_maps`
OBJECT_SHARE = 0.6  # of the rows at most, for the rest to be noise without object


@dataclass(frozen=True, eq=False)
class MapsSource:
    """Where the sensitivity maps come from: `method` is "espirit", "ones" (single coil) or "given"; `detail` says how.

    `detail` holds plain values only, and goes into the sidecar as it is.
    """

    method: str
    detail: dict[str, str | int | float | list[int] | list[list[int]]]


@dataclass(frozen=True, eq=False)
class PreparedVolume:
    """A scan ready to be reconstructed slice by slice.

    Attributes:
        volume: the scan as it was read.
        kspace: (slices, coil, rows, cols) complex64, the readout already cropped to the image where it can be.
        sampling_mask: (slices or 1, 1, cols) bool, or (slices or 1, rows, cols) when the rows are undersampled as well;
            size 1 along the slices when all were sampled alike.
        sensitivity_maps: (slices, coil, rows, cols) complex64; zeros in the slices without data.
        maps_source: how the maps were obtained.
        noise_level: sigma, complex standard deviation of the noise of a k-space sample, in the units of kspace.
        noise_estimated: False when the caller gave the noise level.
        empty: (slices,) bool, True for a slice whose k-space is zero everywhere.
        seconds: duration of the preparation.
        noise_estimates: sigma by independent estimates, medians over some slices: "null space" of the calibration
            region, "periphery" of k-space, and "outer readout" where the object leaves room for it. Without the last,
            the smaller one of the others is an estimated noise level.
    """

    volume: RawVolume
    kspace: Tensor
    sampling_mask: Tensor
    sensitivity_maps: Tensor
    maps_source: MapsSource
    noise_level: float
    noise_estimated: bool
    empty: np.ndarray
    seconds: float
    noise_estimates: Mapping[str, float] = field(default_factory=dict)

    def operator(self, slices: slice | list[int]) -> Sense:
        """Return the SENSE operator of some slices (batch, rows, cols) -> (batch, coil, rows, cols), each its mask."""
        mask = self.sampling_mask
        return Sense(self.sensitivity_maps[slices], mask if len(mask) == 1 else mask[slices])

    def magnitude(self, image: Tensor, slices: slice | list[int] = slice(None)) -> np.ndarray:
        """Return the magnitude to deliver: `|x| sqrt(sum_c |s_c|^2)`, cropped; (slices, *recon_shape) float32.

        `image` (slices, rows, cols) holds all slices, or those that `slices` says.

        The factor is one inside the support of normalised maps. With it the result is the root sum of squares of the
        coil images that x stands for, in the units of the input, whatever the maps' normalisation.
        """
        weight = torch.linalg.vector_norm(self.sensitivity_maps[slices], dim=1)
        full = (image.abs() * weight).numpy().astype(np.float32)
        return np.ascontiguousarray(center_crop(full, self.volume.recon_shape))


def prepare(
    volume: RawVolume,
    maps: np.ndarray | None = None,
    noise_level: float | None = None,
    device: torch.device | str = "cpu",
    progress: bool = False,
) -> PreparedVolume:
    """Estimate the noise level, cut the readout to the image, and estimate the sensitivity maps.

    The noise is estimated first, on the data as measured, where the oversampled readout shows noise without object.
    The readout is fully sampled, so cropping it in the image is exact: the rows of the image are independent of each
    other, and everything afterwards works on as few rows as are delivered.

    Args:
        volume: the scan, k-space (slices, coils, rows, cols), with data in one slice at least.
        maps: (slices or 1, coil, rows, cols) complex, on the grid of kspace or of the cropped readout. None: ESPIRiT
            from the calibration region, slice by slice; ones for a single coil.
        noise_level: sigma with E|n|^2 = sigma^2 in the units of kspace; None: estimated.
        device: where the maps are estimated.
        progress: show a bar when it takes longer than a few seconds.

    Raises:
        ValueError: maps that do not fit, a noise level below zero, a calibration region too small for ESPIRiT.
    """
    start = time.perf_counter()
    sampling_mask = torch.from_numpy(volume.sampling_mask)
    raw = torch.from_numpy(volume.kspace)
    rows = min(volume.recon_shape[0], raw.shape[-2])
    whole_columns = sampling_mask.shape[1] == 1
    readout_oversampled = whole_columns and rows < raw.shape[-2]
    estimated = noise_level is None
    if noise_level is not None and not noise_level >= 0:
        raise ValueError(f"prepare: noise_level is {noise_level}, expected a number that is not negative")
    outer_readout = whole_columns and rows <= OBJECT_SHARE * raw.shape[-2]
    noise_level, noise_estimates = _noise_level(raw, sampling_mask, outer_readout, noise_level)
    kspace = crop_readout(raw, rows) if readout_oversampled else raw
    empty = np.array([not one.any() for one in volume.kspace])
    if maps is not None:
        sensitivity_maps, source = _given_maps(maps, kspace, raw.shape[-2])
    elif volume.n_coils == 1:
        sensitivity_maps, source = torch.ones_like(kspace), MapsSource("ones", {})
    else:
        sensitivity_maps, source = _estimate_maps(kspace, sampling_mask, empty, noise_level, device, progress)
    return PreparedVolume(
        volume=volume,
        kspace=kspace,
        sampling_mask=sampling_mask,
        sensitivity_maps=sensitivity_maps,
        maps_source=source,
        noise_level=noise_level,
        noise_estimated=estimated,
        empty=empty,
        seconds=time.perf_counter() - start,
        noise_estimates=noise_estimates,
    )


def read_maps(path: str | Path) -> np.ndarray:
    """Read maps: .npy (coil, rows, cols) or (slices, coil, rows, cols), or a BART pair with one set of maps.

    Returns (slices, coil, rows, cols) complex64. The axes of a BART pair are those of its k-space (`bart ecalib -m 1`
    writes them so). Raises UnreadableInput.
    """
    path = Path(path)
    return (read_npy(path) if path.suffix == ".npy" else read_bart(path)).kspace


def _mask_of(sampling_mask: Tensor, k: int) -> Tensor:
    return sampling_mask if len(sampling_mask) == 1 else sampling_mask[[k]]


def _noise_level(
    kspace: Tensor, sampling_mask: Tensor, outer_readout: bool, given: float | None
) -> tuple[float, dict[str, float]]:
    """Return the noise level to use, that given where there is one, and the estimates, see `PreparedVolume`."""
    filled = [k for k, one in enumerate(kspace) if bool(one.any())]
    chosen, compared = _spread(filled, NOISE_SLICES), _spread(filled, COMPARED_SLICES)
    estimates = {}
    if outer_readout:
        levels = [estimate_noise_level(kspace[[k]], _mask_of(sampling_mask, k), True) for k in chosen]
        estimates["outer readout"] = float(torch.cat(levels).median())
    elif given is None:
        compared = chosen
    pairs = [noise_level_estimates(kspace[[k]], _mask_of(sampling_mask, k)) for k in compared]
    null_space = torch.cat([pair.null_space for pair in pairs])
    periphery = torch.cat([pair.periphery for pair in pairs])
    estimates |= {"null space": float(null_space.nanmedian()), "periphery": float(periphery.median())}
    if given is not None:
        return given, estimates
    level = estimates.get("outer readout", float(torch.fmin(null_space, periphery).median()))
    if not math.isfinite(level):
        raise ValueError(f"prepare: the noise level was estimated as {level}, expected a number: give noise_level")
    return level, estimates


def _spread(slices: list[int], count: int) -> list[int]:
    """Return at most `count` of the slices, evenly spread."""
    return slices[:: max(1, -(-len(slices) // count))]


def _given_maps(maps: np.ndarray, kspace: Tensor, raw_rows: int) -> tuple[Tensor, MapsSource]:
    slices, coils, rows, cols = kspace.shape
    if maps.ndim == 4 and maps.shape[-2] == raw_rows:
        maps = center_crop(maps, (rows, cols))
    if maps.shape not in ((slices, coils, rows, cols), (1, coils, rows, cols)):
        raise ValueError(
            f"prepare: sensitivity maps {maps.shape}, expected ({slices} or 1, {coils}, {rows} or {raw_rows}, {cols})"
            " (slices, coil, rows, cols)"
        )
    if maps.dtype.kind != "c" or not np.isfinite(maps).all():
        raise ValueError(f"prepare: sensitivity maps of dtype {maps.dtype}, expected complex and finite values")
    tensor = torch.from_numpy(np.ascontiguousarray(maps, dtype=np.complex64))
    digest = hashlib.sha256(tensor.numpy().tobytes()).hexdigest()
    return tensor.expand(slices, -1, -1, -1), MapsSource("given", {"shape": list(tensor.shape), "sha256": digest})


def _estimate_maps(
    kspace: Tensor,
    sampling_mask: Tensor,
    empty: np.ndarray,
    noise_level: float,
    device: torch.device | str,
    progress: bool,
) -> tuple[Tensor, MapsSource]:
    shape = kspace.shape[-2:]
    maps = torch.zeros_like(kspace)
    regions: list[list[int]] = [[0, 0]] * len(kspace)
    slices = [int(k) for k in np.flatnonzero(~empty)]
    for k in progress_bar(slices, "coil maps", progress):
        try:
            calibration = calibration_region(kspace[[k]], _mask_of(sampling_mask, k))
        except ValueError as error:
            raise ValueError(f"slice {k}: {error}") from error
        regions[k] = list(calibration.shape[-2:])
        calibration = calibration.to(device)
        maps[k] = espirit_maps(calibration, shape, threshold=THRESHOLD, crop=CROP, noise_level=noise_level)[0].cpu()
    used = [regions[k] for k in slices]
    detail: dict[str, str | int | float | list[int] | list[list[int]]] = {
        "calibration_region": [min(region[axis] for region in used) for axis in (0, 1)],
        "threshold": THRESHOLD,
        "crop": CROP,
        "noise_level": noise_level,
    }
    if any(region != used[0] for region in used):
        detail["calibration_region_by_slice"] = regions
    return maps, MapsSource("espirit", detail)

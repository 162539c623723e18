"""From a raw volume to what every method needs: k-space on the image grid, coil maps, mask, noise level."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from molrecon.io import RawVolume, center_crop, read_bart, read_npy
from molrecon.io.masks import infer_sampling_mask
from molrecon.scans.progress import progress_bar
from operators import Sense, espirit_maps
from operators.calibration import calibration_region
from operators.compression import mix_coils
from operators.hybrid import crop_readout
from operators.noise import estimate_noise_level, noise_level_estimates
from operators.prewhitening import whitening_matrix

NOISE_SLICES = 16  # the noise is the same in all slices: so many, spread over the volume, tell it well enough
COMPARED_SLICES = 4  # so many tell whether it is about right
THRESHOLD, CROP = 0.02, 0.8  # of ESPIRiT, see `espirit_maps`
NOISE_AGREEMENT = 1.2  # of the noise scan and the data, as a ratio
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
            the smaller one of the others is an estimated noise level. "noise scan" is what the noise readouts of the
            file say; it is the noise level where it agrees with that of the data (`NOISE_AGREEMENT`).
        prewhitened: k-space and maps are of virtual coils with independent noise of equal level, by the noise scan.
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
    prewhitened: bool = False

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
    shared: PreparedVolume | None = None,
) -> PreparedVolume:
    """Estimate the noise level, cut the readout to the image, and estimate the sensitivity maps.

    With a noise covariance the coils are mixed by `sigma L^-1`, `Psi = L L^H`, sigma^2 the mean of Psi's diagonal:
    their noise is then independent and of the level sigma, and the units stay those of the input. Maps come from the
    calibration data of the volume where it has some, and else from its own central lines.

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
        shared: another image of the same scan: its maps and noise level are taken, in place of `maps`, `noise_level`
            and estimates.

    Raises:
        ValueError: maps that do not fit, a noise level below zero, a calibration region too small for ESPIRiT.
    """
    start = time.perf_counter()
    if noise_level is not None and not noise_level >= 0:
        raise ValueError(f"prepare: noise_level is {noise_level}, expected a number that is not negative")
    sampling_mask = torch.from_numpy(volume.sampling_mask)
    mixing, scanned = _whitening(volume)
    raw = _mixed(volume.kspace, mixing)
    rows = min(volume.recon_shape[0], raw.shape[-2])
    whole_columns = sampling_mask.shape[1] == 1
    readout_oversampled = whole_columns and rows < raw.shape[-2]
    estimated = noise_level is None
    kspace = crop_readout(raw, rows) if readout_oversampled else raw
    empty = np.array([not one.any() for one in volume.kspace])
    if shared is not None:
        _check_shared(shared, kspace)
        return replace(
            shared,
            volume=volume,
            kspace=kspace,
            sampling_mask=sampling_mask,
            empty=empty,
            seconds=time.perf_counter() - start,
        )
    outer_readout = whole_columns and rows <= OBJECT_SHARE * raw.shape[-2]
    noise_level, noise_estimates = _noise_level(raw, sampling_mask, outer_readout, noise_level, scanned)
    if maps is not None:
        sensitivity_maps, source = _given_maps(maps, kspace, raw.shape[-2], mixing)
    elif volume.n_coils == 1:
        sensitivity_maps, source = torch.ones_like(kspace), MapsSource("ones", {})
    else:
        found = None
        if volume.calibration is not None:
            apart = _mixed(volume.calibration, mixing)
            apart = crop_readout(apart, rows) if readout_oversampled else apart
            found = _maps_measured_apart(apart, volume.calibration, noise_level, device, progress)
        sensitivity_maps, source = found or _estimate_maps(kspace, sampling_mask, empty, noise_level, device, progress)
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
        prewhitened=mixing is not None,
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


def _whitening(volume: RawVolume) -> tuple[Tensor | None, float | None]:
    """Return the matrix that mixes the coils (coil, coil) complex64, and sigma by the noise scan; None without one."""
    covariance = volume.noise_covariance
    if covariance is None:
        return None, None
    if covariance.shape != (volume.n_coils, volume.n_coils):
        raise ValueError(f"prepare: noise covariance {covariance.shape}, expected {(volume.n_coils,) * 2} (coil, coil)")
    sigma = math.sqrt(float(np.diagonal(covariance).real.mean()))
    matrix = whitening_matrix(torch.from_numpy(np.asarray(covariance, np.complex128)))
    return (sigma * matrix).to(torch.complex64), sigma


def _mixed(coil_data: np.ndarray, mixing: Tensor | None) -> Tensor:
    """Return (slices, coil, rows, cols) as virtual coils; as it is without a matrix."""
    data = torch.from_numpy(coil_data)
    return data if mixing is None else mix_coils(mixing, data)


def _check_shared(shared: PreparedVolume, kspace: Tensor) -> None:
    if shared.sensitivity_maps.shape != kspace.shape:
        raise ValueError(
            f"prepare: k-space {tuple(kspace.shape)} and maps {tuple(shared.sensitivity_maps.shape)} of the image that"
            " shares them, expected the same shape (slices, coil, rows, cols)"
        )


def _noise_level(
    kspace: Tensor, sampling_mask: Tensor, outer_readout: bool, given: float | None, scanned: float | None
) -> tuple[float, dict[str, float]]:
    """Return the noise level to use, that given where there is one, and the estimates, see `PreparedVolume`.

    `scanned` is that of the noise scan. Some converters write wrong bandwidths: where the data disagree they are
    believed.
    """
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
    if scanned is not None:
        estimates["noise scan"] = scanned
    if given is not None:
        return given, estimates
    level = estimates.get("outer readout", float(torch.fmin(null_space, periphery).median()))
    if not math.isfinite(level):
        raise ValueError(f"prepare: the noise level was estimated as {level}, expected a number: give noise_level")
    if scanned is not None and max(scanned / level, level / scanned) <= NOISE_AGREEMENT:
        level = scanned
    return level, estimates


def _spread(slices: list[int], count: int) -> list[int]:
    """Return at most `count` of the slices, evenly spread."""
    return slices[:: max(1, -(-len(slices) // count))]


def _given_maps(maps: np.ndarray, kspace: Tensor, raw_rows: int, mixing: Tensor | None) -> tuple[Tensor, MapsSource]:
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
    tensor = tensor if mixing is None else mix_coils(mixing, tensor)
    return tensor.expand(slices, -1, -1, -1), MapsSource("given", {"shape": list(tensor.shape), "sha256": digest})


def _maps_measured_apart(
    calibration: Tensor, measured: np.ndarray, noise_level: float, device: torch.device | str, progress: bool
) -> tuple[Tensor, MapsSource] | None:
    """Return maps from calibration data, `measured` before the readout was cropped; None where they do not suffice."""
    mask = torch.from_numpy(infer_sampling_mask(measured))
    empty = np.array([not one.any() for one in measured])
    try:
        maps, source = _estimate_maps(calibration, mask, empty, noise_level, device, progress)
    except ValueError:  # too few lines: the image's own may do better, and say what is missing if they do not
        return None
    return maps, MapsSource(source.method, {**source.detail, "measured_apart": True})


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

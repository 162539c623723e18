"""From a raw volume to what every method needs: k-space on the image grid, coil maps, mask, noise level."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from molrecon.io import RawVolume, center_crop, read_bart, read_npy
from molrecon.io.large_arrays import empty_array, planes, release
from molrecon.io.masks import infer_sampling_mask
from molrecon.io.volume import reading
from molrecon.scans.progress import progress_bar
from molrecon.scans.trajectories.samples import Trajectory
from operators import Sense, SoftSense, WeightedSense, espirit, espirit_maps, map_sets_needed
from operators.calibration import calibration_region
from operators.compression import VirtualCoils, mix_coils, virtual_coils
from operators.espirit import align_phase
from operators.hybrid import crop_readout
from operators.map_sets import ENERGY_SHARE
from operators.noise import NoiseEstimates, estimate_noise_level, noise_level_estimates, smaller_noise_level
from operators.prewhitening import whitening_matrix

NOISE_SLICES = 16  # the noise is the same in all slices: so many, spread over the volume, tell it well enough
COMPARED_SLICES = 4  # so many tell whether it is about right
THRESHOLD, CROP = 0.02, 0.8  # of ESPIRiT, see `espirit_maps`
# Two sets of maps gain 0.5 to 10 dB from this share of the calibration energy on, also where nothing folds but the
# phase is rough, and change no image by more than 0.05 dB below. Narrower regions reach it in sound scans.
SETS_ENERGY, SETS_ENERGY_WIDTH = 0.001, 12
MIN_SETS_WIDTH = 8  # with fewer lines the kernels of ESPIRiT are so short that a sound scan seems to need two sets
GRID_STEP = 8  # the maps that the data ask for are looked at in every eighth pixel along both axes: they are smooth
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
        sensitivity_maps: (slices, set, coil, rows, cols) complex64; zeros in the slices without data. There are two
            sets where the calibration data ask for them, see `map_sets_needed`.
        maps_source: how the maps were obtained.
        noise_level: sigma, complex standard deviation of the noise of a k-space sample, in the units of kspace.
        noise_estimated: False when the caller gave the noise level.
        empty: (slices,) bool, True for a slice whose k-space is zero everywhere.
        seconds: duration of the preparation.
        noise_estimates: sigma by independent estimates, medians over some slices: "null space" of the calibration
            region, "periphery" of k-space, and "outer readout" where the object leaves room for it. Without the last,
            an estimated noise level is chosen of the others, see `smaller_noise_level`. "noise scan" is what the noise
            readouts of the file say; it is the noise level where it agrees with that of the data (`NOISE_AGREEMENT`).
        prewhitened: k-space and maps are of virtual coils with independent noise of equal level, by the noise scan.
        compression: the virtual coils that k-space and maps are of, fewer than were measured; None: of all. The mixing
            is of coils that were prewhitened, where they were.
        trajectory: where the samples lie, and their weights W; None for samples on the grid. kspace is then
            `W^(1/2) b`, (slices, coil, readouts, samples), sampling_mask is all True, and the noise levels are those of
            white noise that leaves as much in the image, see `Trajectory.noise_gain`.
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
    compression: VirtualCoils | None = None
    trajectory: Trajectory | None = None

    @property
    def sets(self) -> int:
        """The number of sets of sensitivity maps."""
        return self.sensitivity_maps.shape[1]

    @property
    def sample_noise_level(self) -> float:
        """The noise level of a sample as it was measured; on a trajectory it is not that of the weighted ones."""
        return self.noise_level if self.trajectory is None else self.noise_level / self.trajectory.noise_gain

    def first_set(self) -> PreparedVolume:
        """Return the scan with the first set of maps alone, for methods that take no others."""
        if self.sets == 1:
            return self
        source = replace(self.maps_source, detail={**self.maps_source.detail, "sets": 1})
        return replace(self, sensitivity_maps=self.sensitivity_maps[:, :1], maps_source=source)

    def operator(self, slices: slice | list[int]) -> Sense | SoftSense | WeightedSense:
        """Return the operator of some slices, each with its mask or its trajectory.

        With one set of maps it is SENSE, images (batch, rows, cols) -> k-space (batch, coil, rows, cols); with several
        soft-SENSE, (batch, set, rows, cols) -> k-space. On a trajectory it is that of the weighted
        problem, of as many sets.
        """
        if self.trajectory is not None:
            maps = self.sensitivity_maps[slices]
            return self.trajectory.operator(maps[:, 0] if self.sets == 1 else maps, slices)
        return self.cartesian_operator(slices)

    def cartesian_operator(self, slices: slice | list[int]) -> Sense | SoftSense:
        """Return the operator of some slices, for what only samples on the grid can be asked.

        Raises:
            ValueError: the samples are on a trajectory.
        """
        if self.trajectory is not None:
            raise ValueError(f"PreparedVolume: {self.volume.path} is of a trajectory, expected samples on the grid")
        mask, maps = self.sampling_mask, self.sensitivity_maps[slices]
        mask = mask if len(mask) == 1 else mask[slices]
        return Sense(maps[:, 0], mask) if self.sets == 1 else SoftSense(maps, mask)

    def magnitude(self, image: Tensor, slices: slice | list[int] = slice(None)) -> np.ndarray:
        """Return the magnitude to deliver: `sqrt(sum_c |sum_k s_kc x_k|^2)`, cropped; (slices, *recon_shape) float32.

        It is the root sum of squares of the coil images that x stands for, in the units of the input, whatever the
        maps' normalisation: `|x|` inside the support of one set of normalised maps.

        Args:
            image: (slices, rows, cols) with one set of maps, (slices, set, rows, cols) with several; all slices, or
                those that `slices` says.
        """
        chosen = range(len(self.sensitivity_maps))[slices] if isinstance(slices, slice) else slices
        full = image.new_empty((len(image), *image.shape[-2:]), dtype=image.real.dtype)
        for k, x, out in zip(chosen, image, full, strict=True):  # one by one: the coil images of all need not fit
            maps = self.sensitivity_maps[k]
            if self.sets == 1:
                out.copy_(x.abs() * torch.linalg.vector_norm(maps[0], dim=0))
            else:
                out.copy_(torch.linalg.vector_norm((maps * x[:, None]).sum(0), dim=0))
            release()
        return np.ascontiguousarray(center_crop(full.numpy().astype(np.float32), self.volume.recon_shape))

    def complex_image(self, image: Tensor) -> np.ndarray:
        """Return the image with the magnitude that is delivered and its own phase; (slices, *recon_shape) complex64.

        Args:
            image: of all slices, as for `magnitude`; of several sets the phase is that of the first.
        """
        first = image if self.sets == 1 else image[:, 0]
        phase = center_crop(torch.angle(first).numpy(), self.volume.recon_shape)
        return np.asarray(self.magnitude(image) * np.exp(1j * phase), np.complex64)


def unmixed_maps(prepared: PreparedVolume) -> np.ndarray:
    """Return the coil maps as `prepare` takes them: (slices, coil, rows, cols) complex64, or with the sets after the
    slices where there are several. Those of whitened coils are turned back into those of the coils themselves.
    """
    maps, mixing = prepared.sensitivity_maps, whitening(prepared.volume)[0]
    if mixing is not None:
        back = torch.linalg.inv(mixing.to(torch.complex128)).to(maps.dtype)
        maps = mix_coils(back, maps.flatten(0, 1)).unflatten(0, maps.shape[:2])
    return np.ascontiguousarray((maps[:, 0] if prepared.sets == 1 else maps).numpy())


def prepare(
    volume: RawVolume,
    maps: np.ndarray | None = None,
    noise_level: float | None = None,
    device: torch.device | str = "cpu",
    progress: bool = False,
    *,
    map_sets: int | None = None,
    compress: int | Literal["auto"] | None = None,
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
        maps: (slices or 1, coil, rows, cols) complex, on the grid of kspace or of the cropped readout; several sets as
            (slices or 1, set, coil, rows, cols). None: ESPIRiT from the calibration region, slice by slice, with two
            sets where half of the slices ask for them; ones for a single coil.
        noise_level: sigma with E|n|^2 = sigma^2 in the units of kspace; None: estimated.
        device: where the maps are estimated.
        progress: show a bar when it takes longer than a few seconds.
        map_sets: estimate so many sets of maps, 1 or 2; None: as many as the data ask for.
        compress: mix the coils to so many virtual ones at most first, "auto" to as many as the noise asks for
            (`operators.compression.virtual_coils`); all that follows takes less time by as much. None: to none.
        shared: another image of the same scan: its maps and noise level are taken, in place of `maps`, `noise_level`
            and estimates; its virtual coils too.

    Raises:
        ValueError: maps that do not fit, a noise level below zero, a calibration region too small for ESPIRiT, a number
            of map sets other than 1 and 2; a trajectory.
    """
    start = time.perf_counter()
    if volume.trajectory is not None:
        raise ValueError(f"prepare: {volume.path.name} is of a trajectory, expected samples on the grid")
    if noise_level is not None and not noise_level >= 0:
        raise ValueError(f"prepare: noise_level is {noise_level}, expected a number that is not negative")
    sampling_mask = torch.from_numpy(volume.sampling_mask)
    mixing, scanned = whitening(volume)
    raw = mixed(volume.kspace, mixing)
    rows = min(volume.recon_shape[0], raw.shape[-2])
    whole_columns = sampling_mask.shape[1] == 1
    readout_oversampled = whole_columns and rows < raw.shape[-2]
    estimated = noise_level is None
    if map_sets not in (None, 1, 2):
        raise ValueError(f"prepare: map_sets is {map_sets}, expected 1, 2 or None")
    kspace = _cropped(raw, rows) if readout_oversampled else raw
    empty = np.array([not one.any() for one in planes(volume.kspace)])
    if shared is not None:
        kspace = _compressed(kspace, shared.compression)
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
    compression = None
    if compress is not None:
        compression = virtual_coils(kspace, noise_level, None if compress == "auto" else min(compress, volume.n_coils))
    all_coils, kspace = kspace, _compressed(kspace, compression)
    if maps is not None:
        sensitivity_maps, source = given_maps(maps, tuple(all_coils.shape), raw.shape[-2], mixing)
        if compression is not None:
            sensitivity_maps = torch.stack([_compressed(one, compression) for one in sensitivity_maps])
    elif volume.n_coils == 1:
        sensitivity_maps, source = torch.ones_like(kspace)[:, None], MapsSource("ones", {})
    else:
        found = None
        if volume.calibration is not None:
            apart = mixed(volume.calibration, mixing)
            apart = _cropped(apart, rows) if readout_oversampled else apart
            apart = _compressed(apart, compression)
            found = _maps_measured_apart(apart, volume.calibration, noise_level, device, progress, map_sets)
        sensitivity_maps, source = found or estimate_maps(
            kspace, sampling_mask, empty, noise_level, device, progress, map_sets
        )
        if volume.volumetric:
            _align(sensitivity_maps, kspace)
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
        compression=compression,
    )


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


def _mask_of(sampling_mask: Tensor, k: int) -> Tensor:
    return sampling_mask if len(sampling_mask) == 1 else sampling_mask[[k]]


def whitening(volume: RawVolume) -> tuple[Tensor | None, float | None]:
    """Return the matrix that mixes the coils (coil, coil) complex64, and sigma by the noise scan; None without one."""
    covariance = volume.noise_covariance
    if covariance is None:
        return None, None
    if covariance.shape != (volume.n_coils, volume.n_coils):
        raise ValueError(f"prepare: noise covariance {covariance.shape}, expected {(volume.n_coils,) * 2} (coil, coil)")
    sigma = math.sqrt(float(np.diagonal(covariance).real.mean()))
    matrix = whitening_matrix(torch.from_numpy(np.asarray(covariance, np.complex128)))
    return (sigma * matrix).to(torch.complex64), sigma


def mixed(coil_data: np.ndarray, mixing: Tensor | None) -> Tensor:
    """Return (slices, coil, rows, cols) as virtual coils; as it is without a matrix."""
    data = torch.from_numpy(coil_data)
    if mixing is None:
        return data
    virtual = torch.from_numpy(empty_array(data.shape, np.complex64))
    for one, out in zip(data, virtual, strict=True):
        out.copy_(mix_coils(mixing, one[None])[0])
        release()
    return virtual


def _cropped(kspace: Tensor, rows: int) -> Tensor:
    cropped = torch.from_numpy(empty_array((*kspace.shape[:-2], rows, kspace.shape[-1]), np.complex64))
    for one, out in zip(kspace, cropped, strict=True):
        out.copy_(crop_readout(one[None], rows)[0])
        release()
    return cropped


def _compressed(coil_data: Tensor, compression: VirtualCoils | None) -> Tensor:
    """Return (batch, coil, *spatial) of the virtual coils; as it is without compression."""
    return coil_data if compression is None else mix_coils(compression.matrix, coil_data)


def _check_shared(shared: PreparedVolume, kspace: Tensor) -> None:
    if shared.sensitivity_maps[:, 0].shape != kspace.shape:
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
    filled = [k for k, one in enumerate(planes(kspace.numpy())) if one.any()]
    chosen, compared = spread(filled, NOISE_SLICES), spread(filled, COMPARED_SLICES)
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
    level = estimates.get("outer readout", float(smaller_noise_level(NoiseEstimates(null_space, periphery)).median()))
    if not math.isfinite(level):
        raise ValueError(f"prepare: the noise level was estimated as {level}, expected a number: give noise_level")
    if scanned is not None and max(scanned / level, level / scanned) <= NOISE_AGREEMENT:
        level = scanned
    return level, estimates


def spread(slices: list[int], count: int) -> list[int]:
    """Return at most `count` of the slices, evenly spread."""
    return slices[:: max(1, -(-len(slices) // count))]


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
    if maps.ndim == 5 and maps.shape[-2] == raw_rows:
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


def _maps_measured_apart(
    calibration: Tensor,
    measured: np.ndarray,
    noise_level: float,
    device: torch.device | str,
    progress: bool,
    sets: int | None,
) -> tuple[Tensor, MapsSource] | None:
    """Return maps from calibration data, `measured` before the readout was cropped; None where they do not suffice."""
    mask = torch.from_numpy(infer_sampling_mask(measured))
    empty = np.array([not one.any() for one in measured])
    try:
        maps, source = estimate_maps(calibration, mask, empty, noise_level, device, progress, sets)
    except ValueError:  # too few lines: the image's own may do better, and say what is missing if they do not
        return None
    return maps, MapsSource(source.method, {**source.detail, "measured_apart": True})


def estimate_maps(
    kspace: Tensor,
    sampling_mask: Tensor,
    empty: np.ndarray,
    noise_level: float,
    device: torch.device | str,
    progress: bool,
    sets: int | None,
) -> tuple[Tensor, MapsSource]:
    """Return ESPIRiT's maps (slices, set, coil, rows, cols) complex64, zero in empty slices, of the central lines.

    Args:
        kspace: (slices, coil, rows, cols) complex64.
        sampling_mask: (slices or 1, rows or 1, cols) bool.
        empty: (slices,) bool.
        noise_level, device, progress: as for `prepare`.
        sets: how many; None: as many as the data ask for.

    Raises:
        ValueError: a calibration region that is too small.
    """
    shape = (kspace.shape[-2], kspace.shape[-1])
    calibration = {}
    for k in map(int, np.flatnonzero(~empty)):
        try:
            calibration[k] = calibration_region(kspace[[k]], _mask_of(sampling_mask, k))
        except ValueError as error:
            raise ValueError(f"slice {k}: {error}") from error
    if sets is None:
        looked_at = [calibration[k].to(device) for k in spread(list(calibration), NOISE_SLICES)]
        sets = _sets_needed(looked_at, shape, noise_level)
    maps = torch.from_numpy(empty_array((len(kspace), sets, *kspace.shape[1:]), np.complex64))
    estimate = partial(espirit_maps, threshold=THRESHOLD, crop=CROP, noise_level=noise_level, n_maps=sets)
    for k in progress_bar(list(calibration), "coil maps", progress):
        maps[k] = estimate(calibration[k].to(device), shape)[0].cpu().reshape(maps[k].shape)
        release()
    regions = [list(calibration[k].shape[-2:]) if k in calibration else [0, 0] for k in range(len(kspace))]
    used = [regions[k] for k in calibration]
    detail: dict[str, str | int | float | list[int] | list[list[int]]] = {
        "sets": sets,
        "calibration_region": [min(region[axis] for region in used) for axis in (0, 1)],
        "threshold": THRESHOLD,
        "crop": CROP,
        "noise_level": noise_level,
    }
    if any(region != used[0] for region in used):
        detail["calibration_region_by_slice"] = regions
    return maps, MapsSource("espirit", detail)


def _align(maps: Tensor, kspace: Tensor) -> None:
    """Give maps (slices, set, coil, rows, cols), in place, phases that are continuous from slice to slice.

    The phase of each slice's maps is relative to its own main virtual coil, which may turn between neighbours.
    """
    covariance = sum(one.flatten(1) @ one.flatten(1).mH for one in kspace)
    virtual = torch.linalg.eigh(covariance).eigenvectors.flip(-1)[:, : maps.shape[1]].T  # (set, coil)
    for one in maps:
        for k, coil in enumerate(virtual):
            one[k] = align_phase(one[k].movedim(0, -1), coil).movedim(-1, 0)


def _sets_needed(calibration: Sequence[Tensor], shape: tuple[int, int], noise_level: float) -> int:
    """Return 2 where half of the slices ask for two sets of maps, on a coarse grid, which tells as much; else 1."""
    asked = 0
    for region in calibration:
        widths = (region.shape[-2], region.shape[-1])
        if min(widths) < MIN_SETS_WIDTH:
            continue
        grid = [max(-(-size // GRID_STEP), width) for size, width in zip(shape, widths, strict=True)]
        both = espirit(region, grid, threshold=THRESHOLD, crop=CROP, noise_level=noise_level, n_maps=2)
        share = SETS_ENERGY if min(widths) >= SETS_ENERGY_WIDTH else ENERGY_SHARE
        asked += int(map_sets_needed(region, both, energy_share=share).needed) > 1
    return 2 if 2 * asked >= len(calibration) else 1

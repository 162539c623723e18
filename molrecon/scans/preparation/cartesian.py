"""Preparation of samples on the grid: readout, noise level, virtual coils and coil maps, in this order."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from molrecon.io import RawVolume
from molrecon.io.large_arrays import planes
from molrecon.scans.preparation.coil_maps import given_maps
from molrecon.scans.preparation.coil_mixing import compressed, cropped, mixed, whitening
from molrecon.scans.preparation.estimated_maps import align_phases, estimate_maps, maps_measured_apart
from molrecon.scans.preparation.noise_level import choose_noise_level
from molrecon.scans.preparation.prepared_volume import MapsSource, PreparedVolume
from operators.compression import virtual_coils

OBJECT_SHARE = 0.6  # of the rows at most, for the rest to be noise without object


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
            sets where half of the slices need them; ones for a single coil.
        noise_level: sigma with E|n|^2 = sigma^2 in the units of kspace; None: estimated.
        device: where the maps are estimated.
        progress: show a bar when it takes longer than a few seconds.
        map_sets: estimate so many sets of maps, 1 or 2; None: as many as the data need.
        compress: mix the coils to so many virtual ones at most first, "auto" to as many as the noise allows
            (`operators.compression.virtual_coils`); all that follows takes less time by as much. None: to none.
        shared: another image of the same scan: its maps and noise level are taken, in place of `maps`, `noise_level`
            and estimates; its virtual coils too.

    Raises:
        ValueError: maps that do not fit, a noise level below zero, a calibration region too small for ESPIRiT, a number
            of map sets other than 1 and 2; a trajectory.
    """
    start = time.perf_counter()
    _check_arguments(volume, noise_level, map_sets)
    sampling_mask = torch.from_numpy(volume.sampling_mask)
    mixing, scanned = whitening(volume)
    raw = mixed(volume.kspace, mixing)
    rows = min(volume.recon_shape[0], raw.shape[-2])
    whole_columns = sampling_mask.shape[1] == 1
    crop = whole_columns and rows < raw.shape[-2]
    all_coils = cropped(raw, rows) if crop else raw
    empty = np.array([not one.any() for one in planes(volume.kspace)])
    if shared is not None:
        kspace = compressed(all_coils, shared.compression)
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
    level, noise_estimates = choose_noise_level(raw, sampling_mask, outer_readout, noise_level, scanned)
    compression = None
    if compress is not None:
        compression = virtual_coils(all_coils, level, None if compress == "auto" else min(compress, volume.n_coils))
    kspace = compressed(all_coils, compression)
    if maps is not None:
        sensitivity_maps, source = given_maps(maps, tuple(all_coils.shape), raw.shape[-2], mixing)
        if compression is not None:
            sensitivity_maps = torch.stack([compressed(one, compression) for one in sensitivity_maps])
    elif volume.n_coils == 1:
        sensitivity_maps, source = torch.ones_like(kspace)[:, None], MapsSource("ones", {})
    else:
        measured_apart = None
        if volume.calibration is not None:
            calibration = mixed(volume.calibration, mixing)
            calibration = cropped(calibration, rows) if crop else calibration
            calibration = compressed(calibration, compression)
            measured_apart = maps_measured_apart(calibration, volume.calibration, level, device, progress, map_sets)
        sensitivity_maps, source = measured_apart or estimate_maps(
            kspace, sampling_mask, empty, level, device, progress, map_sets
        )
        if volume.volumetric:
            align_phases(sensitivity_maps, kspace)
    return PreparedVolume(
        volume=volume,
        kspace=kspace,
        sampling_mask=sampling_mask,
        sensitivity_maps=sensitivity_maps,
        maps_source=source,
        noise_level=level,
        noise_estimated=noise_level is None,
        empty=empty,
        seconds=time.perf_counter() - start,
        noise_estimates=noise_estimates,
        prewhitened=mixing is not None,
        compression=compression,
    )


def _check_arguments(volume: RawVolume, noise_level: float | None, map_sets: int | None) -> None:
    if volume.trajectory is not None:
        raise ValueError(f"prepare: {volume.path.name} is of a trajectory, expected samples on the grid")
    if noise_level is not None and not noise_level >= 0:
        raise ValueError(f"prepare: noise_level is {noise_level}, expected a number that is not negative")
    if map_sets not in (None, 1, 2):
        raise ValueError(f"prepare: map_sets is {map_sets}, expected 1, 2 or None")


def _check_shared(shared: PreparedVolume, kspace: Tensor) -> None:
    if shared.sensitivity_maps[:, 0].shape != kspace.shape:
        raise ValueError(
            f"prepare: k-space {tuple(kspace.shape)} and maps {tuple(shared.sensitivity_maps.shape)} of the image that"
            " shares them, expected the same shape (slices, coil, rows, cols)"
        )

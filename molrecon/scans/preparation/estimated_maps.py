"""ESPIRiT's sensitivity maps of the calibration region, one set or two, as the data need."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from molrecon.io.large_arrays import empty_array, release
from molrecon.io.masks import infer_sampling_mask
from molrecon.scans.preparation.noise_level import NOISE_SLICES
from molrecon.scans.preparation.prepared_volume import MapsSource
from molrecon.scans.preparation.slices import mask_of, spread
from molrecon.scans.progress import progress_bar
from operators import MapSets, espirit, espirit_maps, map_sets_needed
from operators.calibration import calibration_region
from operators.espirit import align_phase
from operators.map_sets import ENERGY_SHARE

THRESHOLD, CROP = 0.02, 0.8  # of ESPIRiT, see `espirit_maps`
# Two sets of maps gain 0.5 to 10 dB from this share of the calibration energy on, also where nothing folds but the
# phase is rough, and change no image by more than 0.05 dB below. Narrower regions reach it in sound scans.
SETS_ENERGY, SETS_ENERGY_WIDTH = 0.001, 12
MIN_SETS_WIDTH = 8  # with fewer lines the kernels of ESPIRiT are so short that a sound scan seems to need two sets
GRID_STEP = 8  # maps are smooth: whether one set suffices is seen in every eighth pixel along both axes


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
        sets: how many; None: as many as the data need.

    Raises:
        ValueError: a calibration region that is too small.
    """
    shape = (kspace.shape[-2], kspace.shape[-1])
    regions = {}
    for k in map(int, np.flatnonzero(~empty)):
        try:
            regions[k] = calibration_region(kspace[[k]], mask_of(sampling_mask, k))
        except ValueError as error:
            raise ValueError(f"slice {k}: {error}") from error
    if sets is None:
        examined = [regions[k].to(device) for k in spread(list(regions), NOISE_SLICES)]
        sets = sets_needed(examined, shape, noise_level)
    maps = torch.from_numpy(empty_array((len(kspace), sets, *kspace.shape[1:]), np.complex64))
    estimate = partial(espirit_maps, threshold=THRESHOLD, crop=CROP, noise_level=noise_level, n_maps=sets)
    for k in progress_bar(list(regions), "coil maps", progress):
        maps[k] = estimate(regions[k].to(device), shape)[0].cpu().reshape(maps[k].shape)
        release()
    sizes = [list(regions[k].shape[-2:]) if k in regions else [0, 0] for k in range(len(kspace))]
    used = [sizes[k] for k in regions]
    detail: dict[str, str | int | float | list[int] | list[list[int]]] = {
        "sets": sets,
        "calibration_region": [min(size[axis] for size in used) for axis in (0, 1)],
        "threshold": THRESHOLD,
        "crop": CROP,
        "noise_level": noise_level,
    }
    if any(size != used[0] for size in used):
        detail["calibration_region_by_slice"] = sizes
    return maps, MapsSource("espirit", detail)


def maps_measured_apart(
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


def align_phases(maps: Tensor, kspace: Tensor) -> None:
    """Give maps (slices, set, coil, rows, cols), in place, phases that are continuous from slice to slice.

    The phase of each slice's maps is relative to its own main virtual coil, which may turn between neighbours.
    """
    covariance = sum(one.flatten(1) @ one.flatten(1).mH for one in kspace)
    virtual = torch.linalg.eigh(covariance).eigenvectors.flip(-1)[:, : maps.shape[1]].T  # (set, coil)
    for one in maps:
        for k, coil in enumerate(virtual):
            one[k] = align_phase(one[k].movedim(0, -1), coil).movedim(-1, 0)


def sets_needed(regions: Sequence[Tensor], shape: tuple[int, int], noise_level: float) -> int:
    """Return 2 where half of the slices need two sets of maps, else 1; a coarse grid suffices to tell.

    Args:
        regions: calibration regions (1, coil, rows, cols) complex, one a slice, of at least two coils.
        shape: (rows, cols) of the maps.
        noise_level: sigma, see `espirit`.
    """
    in_need = 0
    for region in regions:
        width = min(region.shape[-2:])
        if width >= MIN_SETS_WIDTH:
            share = SETS_ENERGY if width >= SETS_ENERGY_WIDTH else ENERGY_SHARE
            in_need += int(explained_by_two_sets(region, shape, noise_level, share).needed) > 1
    return 2 if 2 * in_need >= len(regions) else 1


def explained_by_two_sets(
    region: Tensor, shape: tuple[int, int], noise_level: float, energy_share: float = ENERGY_SHARE
) -> MapSets:
    """Return what two sets of maps explain of a calibration region; region, shape and level as for `sets_needed`."""
    widths = (region.shape[-2], region.shape[-1])
    grid = [max(-(-size // GRID_STEP), width) for size, width in zip(shape, widths, strict=True)]
    both = espirit(region, grid, threshold=THRESHOLD, crop=CROP, noise_level=noise_level, n_maps=2)
    return map_sets_needed(region, both, energy_share=energy_share)

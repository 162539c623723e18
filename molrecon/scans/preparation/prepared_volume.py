"""A scan that is ready to be reconstructed, and where its sensitivity maps come from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from molrecon.io import RawVolume, center_crop
from molrecon.io.large_arrays import release
from molrecon.scans.trajectories.samples import Trajectory
from operators import Sense, SoftSense, WeightedSense
from operators.compression import VirtualCoils
from operators.sensitivity import coil_norm


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
            sets where the calibration data need them, see `map_sets_needed`.
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
                out.copy_(x.abs() * coil_norm(maps[0], 0))
            else:
                out.copy_(coil_norm((maps * x[:, None]).sum(0), 0))
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

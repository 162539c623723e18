"""Everything that one scan measured: its images by contrast, set, phase and repetition, and what they share.

scan = read_scan("scan.mrd")
scan = Scan.from_arrays(kspace, mask)
for series in scan.series():
    series.entities, len(series.frames), series.time_step
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

import numpy as np

from molrecon.io import Frame, Geometry, PlacedImage, RawVolume, borrow_geometry, read_frames
from molrecon.io.masks import by_slice, infer_sampling_mask, mask_kspace, masked_samples
from molrecon.io.placed.borrow import Axes
from molrecon.io.volume import check_kspace
from molrecon.scans.trajectories.calibration import calibration_on_grid
from molrecon.scans.trajectories.samples import check_arrays

EVEN_STEPS = 0.1  # how much time steps may differ from their median for one number to stand for them


@final
@dataclass(frozen=True, eq=False)
class Series:
    """The frames that make one image file: a volume, or a series of volumes over time or the cardiac cycle.

    Attributes:
        entities: what tells it from the other series of the scan, as in the file names of BIDS: "echo-1", "acq-set2",
            "run-1", joined by "_"; empty when it is the only one.
        frames: in order; of one contrast, set and encoding space.
        time_step: seconds from frame to frame; None for a single one, and where it is unknown or uneven.
    """

    entities: str
    frames: tuple[Frame, ...]
    time_step: float | None


@final
@dataclass(frozen=True, eq=False)
class Scan:
    """The images of a scan, each a multi-slice k-space with its masks; averages are combined.

    Attributes:
        frames: at least one.

    Raises:
        ValueError: no frames, or two with the same counters.
    """

    frames: tuple[Frame, ...]

    def __post_init__(self) -> None:
        keys = [(one.encoding_space, one.contrast, one.set, one.phase, one.repetition, one.slab) for one in self.frames]
        if not keys or len(set(keys)) < len(keys):
            raise ValueError(f"Scan: frames {keys}, expected one or more, each with counters of its own")

    @classmethod
    def from_arrays(
        cls,
        kspace: np.ndarray,
        sampling_mask: np.ndarray | None = None,
        *,
        recon_shape: tuple[int, int] | None = None,
        voxel_size: tuple[float, float, float] | None = None,
        geometry: Geometry | None = None,
        noise_covariance: np.ndarray | None = None,
        calibration: np.ndarray | None = None,
        time_step: float | None = None,
        volumetric: bool = False,
        trajectory: np.ndarray | None = None,
        grid: tuple[int, int] | None = None,
    ) -> Scan:
        """Return the scan of arrays in memory, which stay as they are.

        Args:
            kspace: (slices, coil, rows, cols) complex, or (repetitions, slices, coil, rows, cols); centred; rows are
                the readout. Of samples on a trajectory (slices, coil, readouts, samples), or with the repetitions.
            sampling_mask: bool, (cols,), (rows, cols), (slices or 1, rows or 1, cols), or with the repetitions in front
                of that; None: what is not zero in all coils.
            recon_shape: (rows, cols) of the images; None: as k-space, or as the grid.
            voxel_size: mm (row, column, slice). geometry: of the images.
            noise_covariance: (coil, coil) complex, of a sample.
            calibration: (slices, coil, rows, cols) complex, for the maps alone, zero where it was not measured.
            time_step: seconds from repetition to repetition.
            volumetric: the slices are the readout positions of a 3D scan, k-space transformed along the readout.
            trajectory: (slices or 1, readouts, samples, 2) real, in cycles per field of view, rows first, or with the
                repetitions in front of that; None: samples on the grid.
            grid: (rows, cols) of the image whose k-space the trajectory lies in, which it leaves nowhere.

        Raises:
            ValueError: shapes that do not fit, k-space that is zero or not finite, a trajectory without a grid or
                outside it, or with a mask.
        """
        check_arrays(trajectory, grid, sampling_mask)
        if kspace.ndim not in (4, 5):
            raise ValueError(
                f"Scan.from_arrays: kspace {kspace.shape}, expected (slices, coil, rows, cols) or (repetitions, slices,"
                " coil, rows, cols)"
            )
        series = kspace if kspace.ndim == 5 else kspace[None]
        each = sampling_mask is not None and sampling_mask.ndim == 4
        if each and len(sampling_mask) != len(series):  # type: ignore[arg-type]
            raise ValueError(f"Scan.from_arrays: masks of {len(sampling_mask)} frames, expected {len(series)}")  # type: ignore[arg-type]
        frames = []
        for number, one in enumerate(series):
            data = check_kspace(Path("kspace"), one.astype(np.complex64))
            points = trajectory[number] if trajectory is not None and trajectory.ndim == 5 else trajectory
            mask = sampling_mask
            if mask is None:
                mask = infer_sampling_mask(data) if points is None else np.ones(data.shape[-1], bool)
            volume = RawVolume(
                path=Path("kspace"),
                kspace=data,
                sampling_mask=mask[number] if each else mask,
                recon_shape=recon_shape or grid or data.shape[-2:],
                sha256="",
                voxel_size=voxel_size,
                geometry=geometry,
                noise_covariance=noise_covariance,
                calibration=calibration,
                volumetric=volumetric,
                trajectory=None if points is None else np.asarray(points, np.float64),
                grid=grid,
                attributes={} if points is None else {"trajectory": "other"},
            )
            if masked := masked_samples(volume.kspace, volume.sampling_mask):
                volume = replace(volume, left_out={"masked samples": masked})
            mask_kspace(volume.kspace, volume.sampling_mask)
            seconds = None if time_step is None else number * time_step
            frames.append(Frame(volume, repetition=number, seconds=seconds))
        return cls(tuple(frames))

    @property
    def left_out(self) -> Mapping[str, int]:
        """What the file holds and no frame does, with its number, in plain words."""
        counts: dict[str, int] = {}
        for frame in self.frames:
            for words, count in frame.volume.left_out.items():
                counts[words] = max(counts.get(words, 0), count)
        return counts

    def renamed(self, path: Path) -> Scan:
        """Return the scan under another name of its file, which outputs show."""
        return Scan(tuple(replace(one, volume=replace(one.volume, path=path)) for one in self.frames))

    def placed(self, image: PlacedImage, axes: Axes = "found") -> Scan:
        """Return the scan with the place of an image of the same exam where its file does not say one.

        Raises ValueError for an image that does not fit, see `borrow_geometry`.
        """
        frames = []
        for one in self.frames:
            if one.volume.geometry is None:
                geometry = borrow_geometry(one.volume, image, axes=axes)
                through, row, column = geometry.voxel_size
                voxel_size = one.volume.voxel_size or (row, column, through)
                one = replace(one, volume=replace(one.volume, geometry=geometry, voxel_size=voxel_size))
            frames.append(one)
        return Scan(tuple(frames))

    def series(self) -> list[Series]:
        """Return the frames grouped into image files.

        Each encoding space, slab, contrast and set is a series over its repetitions, or over its cardiac phases; where
        both vary, each repetition is a series over the phases.
        """
        spaces = sorted({one.encoding_space for one in self.frames})
        contrasts = sorted({one.contrast for one in self.frames})
        sets = sorted({one.set for one in self.frames})
        slabs = sorted({one.slab for one in self.frames})
        phases, repetitions = {one.phase for one in self.frames}, sorted({one.repetition for one in self.frames})
        by_repetition = len(phases) > 1 and len(repetitions) > 1
        groups: dict[str, list[Frame]] = {}
        for one in self.frames:
            acquisition = f"space{1 + spaces.index(one.encoding_space)}" if len(spaces) > 1 else ""
            acquisition += f"set{1 + sets.index(one.set)}" if len(sets) > 1 else ""
            acquisition += f"slab{1 + slabs.index(one.slab)}" if len(slabs) > 1 else ""
            entities = [
                f"acq-{acquisition}" if acquisition else "",
                f"run-{1 + repetitions.index(one.repetition)}" if by_repetition else "",
                f"echo-{1 + contrasts.index(one.contrast)}" if len(contrasts) > 1 else "",
            ]
            groups.setdefault("_".join(filter(None, entities)), []).append(one)
        return [Series(entities, tuple(frames), _time_step(frames)) for entities, frames in groups.items()]

    def calibrated(self) -> Scan:
        """Return the scan with the calibration data that its frames share, for maps that are estimated once.

        Data measured for the maps stay what they are. Without such, frames of one space and slab share the mean of the
        repetitions and phases of the first contrast and set, of each sample over those frames that measured it: with
        patterns that change from frame to frame it covers more lines than each of them. Of trajectories it is the
        centre of k-space, fitted to the samples of all those frames together.
        """
        frames: list[Frame] = []
        means: dict[tuple[int, int], np.ndarray | None] = {}
        for one in self.frames:
            space = one.encoding_space, one.slab
            if space not in means:
                alike = [
                    other.volume
                    for other in self.frames
                    if (other.encoding_space, other.slab, other.contrast, other.set) == (*space, one.contrast, one.set)
                ]
                means[space] = _mean(alike)
            if one.volume.calibration is None and means[space] is not None:
                one = replace(one, volume=replace(one.volume, calibration=means[space]))
            frames.append(one)
        return Scan(tuple(frames))


@final
@dataclass(frozen=True, eq=False)
class Reading:
    """How files are read.

    Attributes:
        conjugate: whether to conjugate MRD data; None: as their header asks for, see `read_mrd`.
        geometry: an image of the same exam, whose place scans without one take, see `Scan.placed`.
        axes: how the image's axes lie to those of the scans, see `borrow_geometry`.
    """

    conjugate: bool | None = None
    geometry: PlacedImage | None = None
    axes: Axes = "found"

    def output_settings(self) -> dict[str, Any]:
        """Return the settings that change the outputs, as plain JSON values; empty where all are the defaults."""
        conjugate = {} if self.conjugate is None else {"conjugate": self.conjugate}
        geometry = {} if self.geometry is None else {"geometry": self.geometry.sha256, "axes": self.axes}
        return {**conjugate, **geometry}


def read_scan(path: str | Path, reading: Reading | None = None) -> Scan:
    """Read everything that a file holds, whatever its kind (`molrecon.io.READERS`).

    Raises:
        UnreadableInput: a file that cannot be used. ValueError: an image for the geometry that does not fit.
    """
    reading = reading or Reading()
    scan = Scan(tuple(read_frames(path, conjugate=reading.conjugate)))
    return scan if reading.geometry is None else scan.placed(reading.geometry, reading.axes)


def _time_step(frames: list[Frame]) -> float | None:
    times = [one.seconds for one in frames if one.seconds is not None]
    if len(frames) < 2 or len(times) < len(frames):
        return None
    steps = np.diff(times)
    middle = float(np.median(steps))
    return middle if middle > 0 and np.abs(steps - middle).max() <= EVEN_STEPS * middle else None


def _mean(volumes: list[RawVolume]) -> np.ndarray | None:
    """Return the mean k-space of volumes of one shape, of each sample over those that measured it; None for one."""
    if len(volumes) < 2 or len({one.kspace.shape for one in volumes}) > 1:
        return None
    if any(one.trajectory is not None for one in volumes):
        try:
            return calibration_on_grid(volumes)
        except ValueError:  # not dense enough: the preparation of the first frame says so
            return None
    total, count = np.zeros(volumes[0].kspace.shape, np.complex128), np.zeros(volumes[0].kspace[:, 0].shape)
    for one in volumes:
        total += one.kspace
        for k, mask in enumerate(by_slice(one.sampling_mask, len(count))):
            if one.kspace[k].any():  # else the frame lacks the slice
                count[k] += mask
    mean: np.ndarray = (total / np.maximum(count, 1)[:, None]).astype(np.complex64)
    return mean

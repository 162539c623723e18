"""Raw scanner data in ISMRMRD (MRD) HDF5: Cartesian, radial and spiral scans, one image volume or all of them.

Format: Inati et al., "ISMRM Raw data format: A proposed standard for MRI raw datasets", Magn Reson Med 77:411 (2017);
every readout is a record of its own with a header that says where in kspace it belongs.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import final

import numpy as np

from molrecon.io.frame import Frame
from molrecon.io.header import Header, parse_header
from molrecon.io.mrd.measurement import TICK, parse_measurement
from molrecon.io.mrd.noise import noise_covariance
from molrecon.io.mrd.placing import refuse_echo_planar
from molrecon.io.mrd.purposes import COUNTERS, SLABS, Purposes, first_frame, purposes
from molrecon.io.mrd.records import EXPECTED, Records, read_records
from molrecon.io.mrd.trajectory import TRAJECTORIES, make_trajectory_volume
from molrecon.io.mrd.volume import Shared, make_volume
from molrecon.io.volume import RawVolume, UnreadableInput, file_sha256, left_out_text, reading

__all__ = ["read_mrd", "read_mrd_frames"]

log = logging.getLogger(__name__)

KEY = ("contrast", "set", "phase", "repetition")


def read_mrd(path: str | Path, *, conjugate: bool | None = None) -> RawVolume:
    """Read the first image volume of an ISMRMRD file into kspace (slices, coils, rows, cols).

    A readout is placed with its center_sample at rows // 2, in column encoded_y // 2 - center + kspace_encode_step_1;
    where several averages hit the same place, their mean is taken. Each slice has a sampling mask of its own, the
    columns in which it has a readout. Of several contrasts, phases, repetitions, sets, encoding spaces or data sets the
    first is read: `left_out` counts the others (`read_mrd_frames` reads them all), and the readouts that are flagged as
    something else than image data (noise, navigators, separate calibration, ...); the log says so too. Readouts that
    ran backwards are turned round, except those of EPI.

    A 3D scan has a fully sampled readout, which is transformed: its volume has the readout positions of the image as
    slices, the first phase encode as rows, the second as columns. What a partial echo lacks is zero, and a remark says
    so. Of several slabs this is the first.

    Radial, spiral and other trajectories are read with the coordinates of their samples, see `make_trajectory_volume`,
    and so are stacks of them, which a transform along the partitions takes apart into slices.

    Of noise readouts attributes["noise_readouts"] is the number, attributes["noise_scan_level"] sqrt(E|n|^2) of their
    samples, not corrected for a dwell time that differs from that of the image, and `noise_covariance` what they say of
    the image's noise. Readouts for calibration alone are in `calibration`.

    Args:
        path: of the file.
        conjugate: whether to conjugate the data, which Siemens raw data need to agree with the scanner's own images
            (fastMRI data are not conjugated); None: where the vendor's data need it. attributes["conjugated"] is
            there and True when it was done.

    Raises UnreadableInput, also for trajectories without coordinates, 3D ones that are no stack, and EPI.
    """
    path = Path(path)
    with reading(path, EXPECTED):  # damaged records may lack any field, or hold any number
        scan = _open(path, conjugate)
        slabs = tuple(SLABS) if scan.header.encoded_matrix[2] > 1 else ()
        keep, others = first_frame(scan.records, scan.purposes.imaging, (*COUNTERS, *slabs))
        make = make_trajectory_volume if scan.header.trajectory.lower() in TRAJECTORIES else make_volume
        volume = make(scan.records, keep, scan.header, scan.shared, scan.left_out(others))
    _log_left_out(volume.path, volume.left_out, volume.incomplete)
    return volume


def read_mrd_frames(path: str | Path, *, conjugate: bool | None = None) -> list[Frame]:
    """Read every image volume of an ISMRMRD file, as `read_mrd` does the first.

    There is a volume for every encoding space, contrast, set, phase, repetition and 3D slab that has readouts, in this
    order. Further encoding spaces that hold nothing that could be read (another trajectory, readouts that do not fit)
    are counted in `left_out` of all volumes, as are data sets and readouts for other purposes.

    Raises UnreadableInput, as `read_mrd`.
    """
    path = Path(path)
    with reading(path, EXPECTED):
        return _all_frames(_open(path, conjugate))


def _all_frames(scan: _Scan) -> list[Frame]:
    heads, imaging = scan.records.heads, scan.purposes.imaging
    spaces = [int(space) for space in np.unique(heads["encoding_space_ref"][imaging])]
    frames: list[Frame] = []
    unread = 0
    for space in spaces:
        inside = imaging & (heads["encoding_space_ref"] == space)
        try:
            header = parse_header(scan.records.path, scan.records.xml, space)
            _check_encoding(scan.records.path, header)
            refuse_echo_planar(scan.records, inside, header)
            volumes = [_frame(scan, keep, header, key, space) for key, keep in _keys(heads, inside, header)]
        except UnreadableInput:
            if space == spaces[0]:
                raise
            unread += 1
        else:
            frames += volumes
    left_out = scan.left_out({"encoding spaces": unread} if unread else {})
    _log_left_out(scan.records.path, left_out, bool(unread))
    return [_with_left_out(frame, left_out) for frame in frames]


@final
@dataclass(frozen=True, eq=False)
class _Scan:
    """What is read once for all volumes of a file; the header is that of the first encoding."""

    records: Records
    header: Header
    purposes: Purposes
    shared: Shared

    def left_out(self, others: Mapping[str, int]) -> dict[str, int]:
        """Return all that a volume leaves out, the data sets of the file last."""
        sets = self.records.other_data_sets
        return {**self.purposes.left_out, **others, **({"data sets": sets} if sets else {})}


def _open(path: Path, conjugate: bool | None) -> _Scan:
    records = read_records(path)
    header = parse_header(path, records.xml)
    _check_encoding(path, header)
    measurement, readouts = parse_measurement(path, records.xml), purposes(records, header)
    spaces = records.heads["encoding_space_ref"]
    if readouts.imaging.any():
        refuse_echo_planar(records, readouts.imaging & (spaces == spaces[readouts.imaging].min()), header)
    attributes = _noise_attributes(records.samples[readouts.noise])
    conjugated = measurement.conjugated if conjugate is None else conjugate
    if conjugated:
        attributes["conjugated"] = True
    covariance = noise_covariance(records, readouts.noise, readouts.imaging, measurement)
    if covariance is not None and conjugated:
        covariance = covariance.conj()
    shared = Shared(file_sha256(path), conjugated, attributes, covariance, readouts.calibration, readouts.imaging)
    return _Scan(records, header, readouts, shared)


def _check_encoding(path: Path, header: Header) -> None:
    if header.trajectory.lower() not in ("cartesian", "epi", *TRAJECTORIES):
        raise UnreadableInput(path, f"a {header.trajectory} trajectory", EXPECTED)


def _noise_attributes(samples: np.ndarray) -> dict[str, str | float | int]:
    values = np.concatenate([np.zeros(0), *samples]).astype(np.float64)
    if not values.size:
        return {}
    return {"noise_readouts": len(samples), "noise_scan_level": float(np.sqrt(2 * np.mean(values**2)))}


def _keys(heads: np.ndarray, inside: np.ndarray, header: Header) -> Iterator[tuple[tuple[int, ...], np.ndarray]]:
    """Yield the counters of each image among the readouts inside, and its readouts (readouts,) bool."""
    counters = np.stack([heads["idx"][name].astype(int) for name in (*KEY, "slice")], 1)
    if header.encoded_matrix[2] == 1:
        counters[:, -1] = 0  # slices of one volume
    for key in np.unique(counters[inside], axis=0):
        yield tuple(int(value) for value in key), inside & (counters == key).all(axis=1)


def _frame(scan: _Scan, keep: np.ndarray, header: Header, key: tuple[int, ...], space: int) -> Frame:
    make = make_trajectory_volume if header.trajectory.lower() in TRAJECTORIES else make_volume
    volume = make(scan.records, keep, header, scan.shared, {})
    contrast, set_, phase, repetition, slab = key
    heads = scan.records.heads[keep]
    stamps = heads["acquisition_time_stamp"].astype(float)
    if (scan.records.heads["idx"]["phase"][scan.purposes.imaging] != phase).any():
        stamps = heads["physiology_time_stamp"][:, 0].astype(float)
    seconds = float(stamps.min()) * TICK if stamps.any() else None
    return Frame(volume, contrast, phase, repetition, set_, space, seconds, slab)


def _with_left_out(frame: Frame, left_out: dict[str, int]) -> Frame:
    merged = {**left_out, **frame.volume.left_out}
    return replace(frame, volume=replace(frame.volume, left_out=merged))


def _log_left_out(path: Path, left_out: Mapping[str, int], incomplete: bool) -> None:
    if left_out:
        level = logging.WARNING if incomplete else logging.INFO
        log.log(level, "%s: left out: %s", path, left_out_text(left_out))

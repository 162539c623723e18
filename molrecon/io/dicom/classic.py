"""Classic DICOM MR images: a file for every slice, and of a series in time for every slice and frame."""

from __future__ import annotations

import copy
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from molrecon.io.dicom import modules
from molrecon.io.dicom.clock import clock
from molrecon.io.dicom.layout import check_image, decimal, quantise, turned
from molrecon.io.dicom.origin import DicomSeries, Origin, comments, derivation, uid
from molrecon.io.dicom.template import BODY, Template
from molrecon.io.geometry import Geometry

if TYPE_CHECKING:
    from pydicom import Dataset

__all__ = ["write_dicom"]


def write_dicom(
    folder: str | Path,
    image: np.ndarray,
    geometry: Geometry | None,
    origin: Origin,
    *,
    series: DicomSeries | None = None,
    template: Template | None = None,
) -> list[Path]:
    """Write an image as classic DICOM MR images, 0001.dcm and on, into a folder of their own.

    Values are stored as uint16 with one RescaleSlope for all slices and frames, so that they come back to half a slope,
    1/131070 of the range. Slices lie as they are read (`turned`); every voxel keeps its place in the patient.
    Identifiers follow from the hashes in `origin`: writing the same again gives the same objects.

    Args:
        folder: replaced when it exists, as a whole; its parent is there.
        image: (slices, rows, cols) or (time, slices, rows, cols); real, any unit.
        geometry: where the voxels are; None is refused.
        origin: what the image was made from, and how.
        series: number, description, contrast, time step; None: all as in `DicomSeries()`.
        template: patient and study of the exam; None: patient ANON, a study of its own.

    Returns:
        the paths, frame by frame.

    Raises:
        ValueError: no geometry, axes that are not at right angles, another rank, values that are not finite.
        TypeError: a complex image.
        OSError: a file cannot be written; the older folder is as it was.
        ModuleNotFoundError: pydicom is not installed.
    """
    series, folder = series or DicomSeries(), Path(folder)
    values, place = check_image("write_dicom", image, geometry)
    in_time = np.ndim(image) == 4
    values, place = turned(values, place)
    stored, window = quantise(values), modules.window_of(values)
    shared = _shared(origin, series, template, place)
    modules.add_rescale(shared, stored)
    modules.add_window(shared, window)
    names = [f"{number:04d}.dcm" for number in range(1, values.shape[0] * values.shape[1] + 1)]
    with tempfile.TemporaryDirectory(prefix=".", dir=folder.parent) as temporary:
        new = Path(temporary) / folder.name
        new.mkdir()
        frames = np.ndindex(values.shape[:2])
        for number, (name, (t, k)) in enumerate(zip(names, frames, strict=True), start=1):
            data = _frame(shared, stored.pixels[t, k], place, k, number)
            data.DerivationDescription = derivation(origin, (t, k) if in_time else (k,))
            if in_time:
                _add_time(data, t, len(values), series.frame_seconds, template)
            modules.save_dicom(data, new / name, "1.2.840.10008.5.1.4.1.1.4", uid(data.SeriesInstanceUID, t, k))
        if folder.exists():
            os.replace(folder, Path(temporary) / "older")
        os.replace(new, folder)
    return [folder / name for name in names]


def _shared(origin: Origin, series: DicomSeries, template: Template | None, geometry: Geometry) -> Dataset:
    """Return the elements that are the same in every file."""
    data, sequence = modules.common(origin, series, template, "classic"), series.sequence
    if template is not None:
        template.copy(data, BODY)
    if not data.get("BodyPartExamined") and "Laterality" not in data:
        data.Laterality = ""  # has to be there where the body part is not said
    data.ImageType = ["DERIVED", "PRIMARY", "OTHER", "M"]
    data.ScanningSequence, data.SequenceVariant, data.ScanOptions, data.MRAcquisitionType = "RM", "NONE", "", "2D"
    parameters = {
        "RepetitionTime": sequence.repetition_time,
        "EchoTime": sequence.echo_time,
        "InversionTime": sequence.inversion_time,
        "FlipAngle": sequence.flip_angle,
        "MagneticFieldStrength": sequence.field_strength,
        "ImagingFrequency": sequence.imaging_frequency,
    }
    for keyword, value in parameters.items():
        if value is not None:
            setattr(data, keyword, decimal(value))
        elif keyword in ("RepetitionTime", "EchoTime") or (keyword == "MagneticFieldStrength" and keyword not in data):
            setattr(data, keyword, None)
    data.EchoTrainLength = None
    data.EchoNumbers = series.contrast + 1
    data.AcquisitionNumber = 1
    data.ContentQualification = "RESEARCH"
    data.ImageComments = comments(origin)
    data.ImageOrientationPatient = modules.orientation(geometry)
    modules.add_measures(data, geometry)
    return data


def _frame(shared: Dataset, pixels: np.ndarray, geometry: Geometry, k: int, number: int) -> Dataset:
    data = copy.copy(shared)
    data.InstanceNumber = number
    data.ImagePositionPatient = modules.position(geometry, k)
    normal = np.cross(geometry.column_step, geometry.row_step)
    place = np.array(geometry.origin) + k * np.array(geometry.slice_step)
    data.SliceLocation = decimal(float(place @ normal / np.linalg.norm(normal)))
    modules.add_pixels(data, pixels)
    return data


def _add_time(data: Dataset, t: int, frames: int, seconds: float | None, template: Template | None) -> None:
    data.AcquisitionNumber = data.TemporalPositionIdentifier = t + 1
    data.NumberOfTemporalPositions = frames
    if seconds is None:
        return
    data.TemporalResolution = decimal(1000 * seconds)
    date, time = clock(template, t * seconds)
    data.AcquisitionTime = time
    if date:
        data.AcquisitionDate = date

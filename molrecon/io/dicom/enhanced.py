"""Enhanced DICOM MR images: all slices and frames in one file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from molrecon.io.dicom import modules
from molrecon.io.dicom.layout import Stored, check_image, quantise, turned
from molrecon.io.dicom.origin import DicomSeries, Origin, comments, derivation, uid
from molrecon.io.dicom.template import Template
from molrecon.io.geometry import Geometry

if TYPE_CHECKING:
    from pydicom import Dataset

__all__ = ["write_enhanced_dicom"]

FRAME_CONTENT, STACK, IN_STACK, TEMPORAL = 0x00209111, 0x00209056, 0x00209057, 0x00209128


def write_enhanced_dicom(
    path: str | Path,
    image: np.ndarray,
    geometry: Geometry | None,
    origin: Origin,
    *,
    series: DicomSeries | None = None,
    template: Template | None = None,
) -> Path:
    """Write an image as one Enhanced MR Image; arguments, values, positions and errors are those of `write_dicom`.

    Args:
        path: of the file, replaced when it exists.
        image, geometry, origin, series, template: see `write_dicom`.

    Returns:
        the path.

    Raises:
        ValueError, TypeError, OSError, ModuleNotFoundError: as `write_dicom`.
    """
    series, path = series or DicomSeries(), Path(path)
    values, place = check_image("write_enhanced_dicom", image, geometry)
    in_time = np.ndim(image) == 4
    values, place = turned(values, place)
    stored = quantise(values)
    data = modules.common(origin, series, template, "enhanced")
    instance = uid(data.SeriesInstanceUID, "enhanced")
    _add_image(data, origin)
    _add_dimensions(data, uid(data.SeriesInstanceUID, "dimensions"), in_time)
    data.SharedFunctionalGroupsSequence = [_shared_groups(place, stored, modules.window_of(values), series)]
    data.PerFrameFunctionalGroupsSequence = [
        _frame_groups(place, (t, k) if in_time else (k,), origin, series.frame_seconds)
        for t, k in np.ndindex(values.shape[:2])
    ]
    data.NumberOfFrames = values.shape[0] * values.shape[1]
    data.InstanceNumber = 1
    modules.add_pixels(data, stored.pixels.reshape(-1, *values.shape[-2:]))
    modules.save_dicom(data, path, "1.2.840.10008.5.1.4.1.1.4.1", instance)
    return path


def _add_image(data: Dataset, origin: Origin) -> None:
    data.ImageType = ["DERIVED", "PRIMARY", "OTHER", "NONE"]
    _add_description(data)
    data.ContentQualification, data.PresentationLUTShape = "RESEARCH", "IDENTITY"
    data.ApplicableSafetyStandardAgency = "UNKNOWN"  # the standard requires a value, and raw data have none
    data.ContentDate = origin.created.strftime("%Y%m%d")
    data.ContentTime = origin.created.strftime("%H%M%S.%f")
    data.ImageComments, data.DerivationDescription = comments(origin), derivation(origin, None)
    data.AcquisitionContextSequence = []


def _add_description(data: Dataset) -> None:
    """Add what an image and each frame say about their pixels."""
    data.PixelPresentation, data.VolumetricProperties = "MONOCHROME", "VOLUME"
    data.VolumeBasedCalculationTechnique = "NONE"
    data.ComplexImageComponent, data.AcquisitionContrast = "MAGNITUDE", "UNKNOWN"


def _add_dimensions(data: Dataset, organisation: str, series: bool) -> None:
    from pydicom import Dataset

    item = Dataset()
    item.DimensionOrganizationUID = organisation
    data.DimensionOrganizationSequence = [item]
    pointers = {STACK: "Stack", **({TEMPORAL: "Time"} if series else {}), IN_STACK: "Slice"}
    data.DimensionIndexSequence = []
    for pointer, label in pointers.items():
        index = Dataset()
        index.DimensionOrganizationUID = organisation
        index.DimensionIndexPointer, index.FunctionalGroupPointer = pointer, FRAME_CONTENT
        index.DimensionDescriptionLabel = label
        data.DimensionIndexSequence.append(index)


def _shared_groups(place: Geometry, stored: Stored, window: tuple[float, float], series: DicomSeries) -> Dataset:
    from pydicom import Dataset

    groups, measures, plane, values, frame_type = (Dataset() for _ in range(5))
    modules.add_measures(measures, place)
    plane.ImageOrientationPatient = modules.orientation(place)
    modules.add_rescale(values, stored)
    frame_type.FrameType = ["DERIVED", "PRIMARY", "OTHER", "NONE"]
    _add_description(frame_type)
    groups.PixelMeasuresSequence, groups.PlaneOrientationSequence = [measures], [plane]
    groups.PixelValueTransformationSequence, groups.MRImageFrameTypeSequence = [values], [frame_type]
    look = Dataset()
    modules.add_window(look, window)
    groups.FrameVOILUTSequence = [look]
    groups.FrameAnatomySequence = [_anatomy()]
    if series.sequence.echo_time is not None:
        echo = Dataset()
        echo.EffectiveEchoTime = series.sequence.echo_time
        groups.MREchoSequence = [echo]
    return groups


def _anatomy() -> Dataset:
    """Return the one region that is true of every scan: raw data do not say which part of the body they show."""
    from pydicom import Dataset

    region, anatomy = Dataset(), Dataset()
    region.CodeValue, region.CodingSchemeDesignator, region.CodeMeaning = "38266002", "SCT", "Entire body"
    anatomy.AnatomicRegionSequence, anatomy.FrameLaterality = [region], "U"
    return anatomy


def _frame_groups(place: Geometry, index: tuple[int, ...], origin: Origin, frame_seconds: float | None) -> Dataset:
    """Return what is said of frame (time, slice), or of a slice of a single volume."""
    from pydicom import Dataset

    groups, content, position = Dataset(), Dataset(), Dataset()
    k = index[-1]
    content.StackID, content.InStackPositionNumber = "1", k + 1
    content.DimensionIndexValues = [1, k + 1]
    if len(index) == 2:
        t = index[0]
        content.TemporalPositionIndex = t + 1
        content.DimensionIndexValues = [1, t + 1, k + 1]
        if frame_seconds is not None:
            offset = Dataset()
            offset.TemporalPositionTimeOffset = t * frame_seconds
            groups.TemporalPositionSequence = [offset]
    content.FrameComments = derivation(origin, index)
    position.ImagePositionPatient = modules.position(place, k)
    groups.FrameContentSequence, groups.PlanePositionSequence = [content], [position]
    return groups

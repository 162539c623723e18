"""The modules that both forms of MR image share: patient, study, series, equipment, pixels, window."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from molrecon.io.atomic import write_atomically
from molrecon.io.dicom.layout import Stored, decimal, decimals
from molrecon.io.dicom.origin import DicomSeries, Origin, series_uid, uid
from molrecon.io.dicom.template import FIELD, FRAME, PATIENT, SCANNER, STUDY, Template
from molrecon.io.geometry import Geometry

if TYPE_CHECKING:
    from pydicom import Dataset

PURPOSES = {"109101": "Acquisition Equipment", "109102": "Processing Equipment"}  # codes of DCM, context group 7005


def common(origin: Origin, series: DicomSeries, template: Template | None, form: str) -> Dataset:
    """Return what all objects of a series share: patient, study, series, frame of reference, equipment.

    Without a template the patient is called ANON and the study is a new one, the same for every image of one input.
    """
    from pydicom import Dataset

    data = Dataset()
    data.SpecificCharacterSet = "ISO_IR 192"
    for keyword in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", *STUDY[1:6]):
        setattr(data, keyword, "")
    if template is None:
        data.PatientName, data.PatientID = "ANON^", "ANON"
        data.PatientIdentityRemoved, data.DeidentificationMethod = "YES", "identity never read from the raw data"
        data.StudyInstanceUID = uid(origin.input_sha256, "study")
        data.StudyDescription = "molrecon, no exam given"
    else:
        template.copy(data, (*PATIENT, *STUDY, *FRAME, *FIELD))
    data.Modality = "MR"
    data.SeriesInstanceUID = series_uid(origin, series, data.StudyInstanceUID, form)
    data.SeriesNumber = series.number
    described = f"{series.description} {series.entities}".rstrip()
    data.SeriesDescription = f"{described[:48].rstrip()} RESEARCH ONLY"
    if "PatientPosition" not in data:
        data.PatientPosition = ""
    if not data.get("FrameOfReferenceUID"):
        data.FrameOfReferenceUID = uid(data.StudyInstanceUID, origin.input_sha256, "frame of reference")
    if "PositionReferenceIndicator" not in data:
        data.PositionReferenceIndicator = ""
    data.Manufacturer = data.ManufacturerModelName = "molrecon"
    data.SoftwareVersions = origin.version
    data.DeviceSerialNumber = origin.weights_sha256 or "none"
    data.ContributingEquipmentSequence = _contributions(origin, template)
    return data


def _contributions(origin: Origin, template: Template | None) -> list[Dataset]:
    from pydicom import Dataset

    processing = Dataset()
    processing.Manufacturer = processing.ManufacturerModelName = "molrecon"
    processing.SoftwareVersions = origin.version
    weights = "no weights" if origin.weights_sha256 is None else f"weights sha256 {origin.weights_sha256}"
    processing.ContributionDescription = f"image reconstruction, model {origin.model[:64]}, {weights}"
    items = {"109102": processing}
    if template is not None and template.elements.get("Manufacturer"):
        scanner = Dataset()
        template.copy(scanner, SCANNER)
        items = {"109101": scanner, **items}
    for code, item in items.items():
        purpose = Dataset()
        purpose.CodeValue, purpose.CodingSchemeDesignator, purpose.CodeMeaning = code, "DCM", PURPOSES[code]
        item.PurposeOfReferenceCodeSequence = [purpose]
    return list(items.values())


def add_pixels(data: Dataset, pixels: np.ndarray) -> None:
    """Add the image pixel module; pixels (rows, cols) or (frames, rows, cols) uint16."""
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.Rows, data.Columns = pixels.shape[-2:]
    data.BitsAllocated = data.BitsStored = 16
    data.HighBit, data.PixelRepresentation = 15, 0
    data.BurnedInAnnotation, data.LossyImageCompression = "NO", "00"
    content = np.ascontiguousarray(pixels, "<u2").tobytes()
    data.add_new("PixelData", "OW", content)


def add_rescale(data: Dataset, stored: Stored) -> None:
    """Add how stored numbers become values, whose unit the raw data do not say."""
    data.RescaleIntercept, data.RescaleSlope, data.RescaleType = stored.intercept, stored.slope, "US"


def add_window(data: Dataset, window: tuple[float, float]) -> None:
    """Add center and width; LINEAR_EXACT, since widths below 1 are allowed with it alone."""
    data.WindowCenter, data.WindowWidth = map(decimal, window)
    data.VOILUTFunction = "LINEAR_EXACT"


def window_of(image: np.ndarray) -> tuple[float, float]:
    """Return center and width from 0 to the value that 0.5 % of the voxels exceed: vessels do not darken the rest."""
    high = float(np.quantile(image, 0.995)) or float(image.max())
    low = min(float(image.min()), 0.0)
    return ((low + high) / 2, high - low) if high > low else (low + 0.5, 1.0)


def position(geometry: Geometry, k: int) -> list[str]:
    """Return ImagePositionPatient of slice k: the centre of its first pixel."""
    return decimals(np.array(geometry.origin) + k * np.array(geometry.slice_step))


def orientation(geometry: Geometry) -> list[str]:
    """Return ImageOrientationPatient: where columns grow to, then rows."""
    steps = np.array([geometry.column_step, geometry.row_step])
    return decimals((steps / np.linalg.norm(steps, axis=1)[:, None]).ravel())


def add_measures(data: Dataset, geometry: Geometry) -> None:
    """Add the sizes of a voxel; the distance of slices is that of their centres."""
    between, rows, columns = geometry.voxel_size
    data.PixelSpacing = decimals(np.array([rows, columns]))
    data.SliceThickness, data.SpacingBetweenSlices = decimal(geometry.slice_thickness), decimal(between)


def save_dicom(data: Dataset, path: Path, sop_class: str, sop_instance: str) -> None:
    """Write a DICOM file, explicit little endian, atomically. Raises OSError."""
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian

    data.SOPClassUID, data.SOPInstanceUID = sop_class, sop_instance
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    buffer = io.BytesIO()
    data.save_as(buffer, enforce_file_format=True)
    write_atomically(path, buffer.getbuffer())

"""The identity of a series: from a DICOM file of the same exam, and from nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, final

from molrecon.io.volume import UnreadableInput, reading

if TYPE_CHECKING:
    from pydicom import Dataset

__all__ = ["Template", "read_template"]

EXPECTED = "a DICOM file of the same exam"
PATIENT = (
    "PatientName",
    "PatientID",
    "IssuerOfPatientID",
    "PatientBirthDate",
    "PatientSex",
    "PatientAge",
    "PatientSize",
    "PatientWeight",
    "PatientIdentityRemoved",
    "DeidentificationMethod",
)
STUDY = (
    "StudyInstanceUID",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "AccessionNumber",
    "ReferringPhysicianName",
    "StudyDescription",
)
FRAME = ("FrameOfReferenceUID", "PositionReferenceIndicator", "PatientPosition")
BODY = ("BodyPartExamined", "Laterality")
SCANNER = ("Manufacturer", "ManufacturerModelName", "DeviceSerialNumber", "SoftwareVersions", "StationName")
FIELD = ("MagneticFieldStrength", "ImagingFrequency")
TAKEN = (*PATIENT, *STUDY, *FRAME, *BODY, *SCANNER, *FIELD)


@final
@dataclass(frozen=True, eq=False)
class Template:
    """What is taken from a DICOM file of the same exam.

    Attributes:
        elements: patient, study, frame of reference, scanner and field strength. Nothing else of the file is kept: no
            private element, and no parameter of its series, which is another one.
    """

    elements: Dataset

    def copy(self, target: Dataset, keywords: tuple[str, ...]) -> None:
        """Put the elements of these keywords that the template has into another data set."""
        for keyword in keywords:
            if keyword in self.elements:
                setattr(target, keyword, self.elements[keyword].value)


def read_template(path: str | Path) -> Template:
    """Read patient, study and frame of reference from a DICOM file, without its pixels.

    Text is decoded by the file's own character set; what is written is UTF-8.

    Args:
        path: the file, or a folder of files of one study, of which the first is read.

    Raises:
        UnreadableInput: no such file, no DICOM, one without a study, or a folder of several studies or patients.
        ModuleNotFoundError: pydicom is not installed.
    """
    import pydicom

    path = Path(path)
    if path.is_dir():
        path = _file_of_one_study(path)
    with reading(path, EXPECTED):
        data = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=[*TAKEN, "SpecificCharacterSet"])
        if not data.get("StudyInstanceUID"):
            raise UnreadableInput(path, "no StudyInstanceUID", EXPECTED)
        elements = pydicom.Dataset()
        for keyword in TAKEN:
            if keyword in data:
                setattr(elements, keyword, _text(data[keyword].value))
    return Template(elements)


def _file_of_one_study(folder: Path) -> Path:
    """Return the first DICOM file of a folder. Raises UnreadableInput for none, and for several studies or patients."""
    import pydicom
    from pydicom.errors import InvalidDicomError

    files: list[Path] = []
    identities = set()
    with reading(folder, EXPECTED, quote=False):
        for file in sorted(item for item in folder.iterdir() if item.is_file() and not item.name.startswith(".")):
            try:
                data = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=["StudyInstanceUID", "PatientID"])
            except InvalidDicomError:
                continue
            files.append(file)
            identities.add((data.get("StudyInstanceUID"), data.get("PatientID")))
        if len(identities) != 1:
            count = f"{len(identities)} studies or patients" if files else "no DICOM file"
            raise UnreadableInput(folder, f"a folder of {count}", "DICOM files of one exam")
    return files[0]


def _text(value: object) -> str | list[str]:
    """Return a value as text, decoded: elements remember the character set that they were read with."""
    from pydicom.multival import MultiValue

    if isinstance(value, MultiValue):
        return [str(item) for item in value]
    return "" if value is None else str(value)

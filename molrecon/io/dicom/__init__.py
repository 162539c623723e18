"""DICOM output: MR images in the patient's coordinates, with their derivation, and an identity only from a template.

write_dicom           classic MR Image Storage, a file a slice and time
write_enhanced_dicom  Enhanced MR Image Storage, one file
Origin                what was reconstructed, by what, and how far from the exact solution at most
DicomSeries           which series of a study it is: number, description, contrast, time step, sequence parameters
read_template         the patient and study of another DICOM file of the same exam -> Template

Needs pydicom (`pip install molrecon[dicom]`), which is imported by the functions that use it.
"""

from __future__ import annotations

from molrecon.io.dicom.classic import write_dicom
from molrecon.io.dicom.enhanced import write_enhanced_dicom
from molrecon.io.dicom.origin import DicomSeries, Origin
from molrecon.io.dicom.template import Template, read_template

__all__ = ["DicomSeries", "Origin", "Template", "read_template", "write_dicom", "write_enhanced_dicom"]

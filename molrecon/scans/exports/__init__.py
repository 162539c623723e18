"""Outputs beside the four that every reconstruction has: DICOM for archives, BIDS for analyses."""

from __future__ import annotations

from molrecon.scans.exports.bids_export import BidsExport
from molrecon.scans.exports.dicom_export import DicomExport
from molrecon.scans.exports.exports import NO_EXPORTS, Exports

__all__ = ["NO_EXPORTS", "BidsExport", "DicomExport", "Exports"]

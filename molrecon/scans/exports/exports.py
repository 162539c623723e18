"""Which outputs a run writes beside the ordinary ones."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import final

import numpy as np

from molrecon.io import RawVolume
from molrecon.io.bids import DESCRIPTION_FILE
from molrecon.scans.exports.bids_export import PHASE, BidsExport
from molrecon.scans.exports.dicom_export import DicomExport
from molrecon.scans.reconstruction import Reconstruction
from molrecon.scans.sidecar import ModelSource


@final
@dataclass(frozen=True, eq=False)
class Exports:
    """DICOM, BIDS, both or none; the same for every input of a run. Can be pickled."""

    dicom: DicomExport | None = None
    bids: BidsExport | None = None

    @property
    def none(self) -> bool:
        """Whether there is nothing to write."""
        return self.dicom is None and self.bids is None

    def settings_sha256(self, name: str, settings_sha256: str) -> str:
        """Return the hash by which a later run knows that the outputs of an input would come out the same.

        Without exports it is the hash given; with them it depends on the exports too.
        """
        fingerprints = [] if self.dicom is None else [self.dicom.fingerprint()]
        fingerprints += [] if self.bids is None else [self.bids.fingerprint(name)]
        return (
            hashlib.sha256("\n".join([settings_sha256, *fingerprints]).encode()).hexdigest()
            if fingerprints
            else settings_sha256
        )

    def paths(self, folder: Path, name: str, entities: str = "", *, phase: bool = False) -> list[Path]:
        """Return what `write` writes for an image of an input: files, and folders of files."""
        paths = [] if self.dicom is None else [self.dicom.path(folder, _joined(name, entities))]
        if self.bids is not None:
            paths += self.bids.paths(name, entities)
            paths += self.bids.paths(name, _joined(entities, PHASE)) if phase else []
        return paths

    def outside(self) -> list[Path]:
        """Return a file in each folder, besides that of the outputs, into which something is written."""
        return [] if self.bids is None else [self.bids.dataset / DESCRIPTION_FILE]

    def check(self, name: str, volume: RawVolume) -> None:
        """Raise ValueError, before anything is computed, for an input that cannot be exported."""
        if self.dicom is not None:
            self.dicom.check(volume)
        if self.bids is not None:
            self.bids.check(name, volume)

    def write(
        self,
        folder: Path,
        name: str,
        volume: RawVolume,
        result: Reconstruction,
        source: ModelSource,
        settings_sha256: str,
        *,
        entities: str = "",
        contrast: int = 0,
        position: int = 0,
        phase: bool = False,
    ) -> list[Path]:
        """Write an image of an input, and return the paths.

        Args:
            folder, name: of the outputs of the input.
            volume: the scan, of a series in time its first frame.
            result: its image and the report on it; with the complex image if the phase is written.
            source, settings_sha256: of the model and of what shapes the image.
            entities: what tells the image from others of the input, as in names of BIDS: "echo-1", "echo-2_part-mag".
            contrast: from 0.
            position: of the image among those of the input, from 0.
            phase: write the phase into the BIDS data set too; DICOM has the magnitudes alone.

        Raises:
            ValueError, OSError: as `write_dicom` and `write_bids`.
            ValueError: a phase of a result without its complex image.
        """
        written: list[Path] = []
        if self.dicom is not None:
            series = _joined(name, entities)
            about = volume, result, source, settings_sha256
            written += self.dicom.write(folder, series, *about, contrast=contrast, entities=entities, position=position)
        if self.bids is not None:
            images = {entities: result}
            if phase:
                images[_joined(entities, PHASE)] = _phase(result)
            for label, image in images.items():
                written += self.bids.write(
                    name, volume, image, source, settings_sha256, entities=label, contrast=contrast
                )
        return written


def _joined(*labels: str) -> str:
    return "_".join(filter(None, labels))


def _phase(result: Reconstruction) -> Reconstruction:
    """Return the result with the phase in rad as its image."""
    if result.complex_image is None:
        raise ValueError("Exports: a result without its complex image, expected one with it")
    return replace(result, image=np.angle(result.complex_image))


NO_EXPORTS = Exports()

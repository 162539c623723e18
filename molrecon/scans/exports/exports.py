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

        It is the given one without exports, and takes in what they are with them.
        """
        said = [] if self.dicom is None else [self.dicom.fingerprint()]
        said += [] if self.bids is None else [self.bids.fingerprint(name)]
        return hashlib.sha256("\n".join([settings_sha256, *said]).encode()).hexdigest() if said else settings_sha256

    def paths(self, folder: Path, name: str, entities: str = "") -> list[Path]:
        """Return what `write` writes for an image of an input: files, and folders of files."""
        found = [] if self.dicom is None else [self.dicom.path(folder, f"{name}_{entities}" if entities else name)]
        return found if self.bids is None else [*found, *self.bids.paths(name, entities)]

    def phase_paths(self, name: str, entities: str = "") -> list[Path]:
        """Return what `write_phase` writes."""
        return [] if self.bids is None else self.bids.paths(name, _with_phase(entities))

    def write_phase(
        self,
        name: str,
        volume: RawVolume,
        result: Reconstruction,
        source: ModelSource,
        settings_sha256: str,
        *,
        entities: str = "",
        contrast: int = 0,
    ) -> list[Path]:
        """Write the phase of an image beside it into the BIDS data set; DICOM has the magnitudes alone.

        Arguments as of `write`; the result has its complex image. Raises ValueError without, and OSError.
        """
        if self.bids is None:
            return []
        if result.complex_image is None:
            raise ValueError("Exports: a result without its complex image, expected one with it")
        phase = replace(result, image=np.angle(result.complex_image))
        return self.bids.write(
            name,
            volume,
            phase,
            source,
            settings_sha256,
            entities=_with_phase(entities),
            contrast=contrast,
        )

    def outside(self) -> list[Path]:
        """Return a file in each folder, besides that of the outputs, that is written to."""
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
    ) -> list[Path]:
        """Write an image of an input, and return the paths.

        Args:
            folder, name: of the outputs of the input.
            volume: the scan, of a series in time its first frame.
            result: its image and the report on it.
            source, settings_sha256: of the model and of what shapes the image.
            entities: what tells the image from others of the input, as in names of BIDS: "echo-1", "echo-2_part-mag".
            contrast: from 0.

        Raises:
            ValueError, OSError: as `write_dicom` and `write_bids`.
        """
        written: list[Path] = []
        if self.dicom is not None:
            full = f"{name}_{entities}" if entities else name
            written += self.dicom.write(
                folder,
                full,
                volume,
                result,
                source,
                settings_sha256,
                contrast=contrast,
            )
        if self.bids is not None:
            written += self.bids.write(
                name,
                volume,
                result,
                source,
                settings_sha256,
                entities=entities,
                contrast=contrast,
            )
        return written


def _with_phase(entities: str) -> str:
    return f"{entities}_{PHASE}" if entities else PHASE


NO_EXPORTS = Exports()

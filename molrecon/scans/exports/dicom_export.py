"""Reconstructions as DICOM series."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, final, get_args

from molrecon.io import RawVolume
from molrecon.io.dicom import DicomSeries, Origin, Template, write_dicom, write_enhanced_dicom
from molrecon.io.sequence import read_sequence
from molrecon.scans.reconstruction import Reconstruction
from molrecon.scans.sidecar import ModelSource, versions

Form = Literal["classic", "enhanced"]
FORMS: tuple[Form, ...] = get_args(Form)


@final
@dataclass(frozen=True, eq=False)
class DicomExport:
    """Write every image as a DICOM series as well.

    Attributes:
        form: "classic", a folder NAME.dicom with a file a slice; "enhanced", one file NAME.dcm.
        template: the exam that the series belong to; None: each input is a study of its own, of patient ANON.

    Raises ValueError for another form.
    """

    form: Form = "classic"
    template: Template | None = None

    def __post_init__(self) -> None:
        """Check the form."""
        if self.form not in FORMS:
            raise ValueError(f"DicomExport: form {self.form!r}, expected one of {', '.join(FORMS)}")

    def path(self, folder: str | Path, name: str) -> Path:
        """Return where the series of an input lies."""
        return Path(folder) / f"{name}{'.dicom' if self.form == 'classic' else '.dcm'}"

    def fingerprint(self) -> str:
        """Return a text that is different for every other export; it names nobody."""
        elements = "" if self.template is None else self.template.elements.to_json()
        return f"{self.form} {hashlib.sha256(elements.encode()).hexdigest()}"

    def check(self, volume: RawVolume) -> None:
        """Raise ValueError, before anything is computed, for a scan that cannot become DICOM."""
        if volume.geometry is None:
            raise ValueError(
                f"--dicom: {volume.path.name} does not say where its voxels are in the patient (fastMRI, NumPy and BART"
                " files never do), expected a scan with a geometry, or an image of the same exam to borrow it from"
                " (--geometry): DICOM positions are not made up"
            )

    def write(
        self,
        folder: str | Path,
        name: str,
        volume: RawVolume,
        result: Reconstruction,
        source: ModelSource,
        settings_sha256: str,
        *,
        contrast: int = 0,
        entities: str = "",
        position: int = 0,
    ) -> list[Path]:
        """Write the series NAME, and return its folder or file.

        Args:
            folder: is there.
            name: of the output.
            volume: the scan, of a series in time its first frame.
            result: image (slices, rows, cols) or (time, slices, rows, cols).
            source, settings_sha256: as in the sidecar.
            contrast: from 0, for echo number and echo time.
            entities: what tells the series from others of the scan. position: among them, from 0.

        Raises:
            ValueError: as `write_dicom`. OSError: a file cannot be written.
        """
        series = DicomSeries(
            description=f"molrecon {_label(source)}",
            number=9001 + position,
            contrast=contrast,
            entities=entities,
            frame_seconds=result.time_step,
            sequence=read_sequence(volume.path, volume.header, contrast),
        )
        write = write_dicom if self.form == "classic" else write_enhanced_dicom
        path = self.path(folder, name)
        origin = describe_origin(volume, result, source, settings_sha256)
        write(path, result.image, volume.geometry, origin, series=series, template=self.template)
        return [path]


def describe_origin(volume: RawVolume, result: Reconstruction, source: ModelSource, settings_sha256: str) -> Origin:
    """Return what DICOM says about how an image came to be; no path and no name of a folder."""
    frames = result.image.shape[:-2]
    return Origin(
        input_sha256=volume.sha256,
        model=_label(source),
        weights_sha256=source.weights_sha256,
        settings_sha256=settings_sha256,
        version=versions()["molrecon"],
        kind=result.kind,
        error_bound=result.error_bound.reshape(frames),
        n_steps=result.n_steps.reshape(frames),
        converged=result.converged.reshape(frames),
        warnings=tuple(str(warning) for warning in result.warnings),
    )


def _label(source: ModelSource) -> str:
    return Path(source.name).name

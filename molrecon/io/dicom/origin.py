"""What a DICOM series says about itself: where it comes from, and the identifiers that follow from that."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field
from datetime import datetime
from typing import final

import numpy as np

from molrecon.io.sequence import Sequence

RESEARCH_ONLY = "RESEARCH ONLY - NOT FOR DIAGNOSIS"


@final
@dataclass(frozen=True, eq=False)
class Origin:
    """How an image came to be.

    Attributes:
        input_sha256: of the raw data, hexadecimal.
        model: name of the method, without a folder.
        weights_sha256: of its weights; None for a method without weights.
        settings_sha256: of everything else that shapes the image.
        version: of molrecon.
        kind: what the bounds rest on, as in `Solution`: "certified", "estimated" or "none".
        error_bound: (slices,) or (time, slices), as in `Reconstruction`; NaN where there is none.
        n_steps: of the same shape, or None.
        converged: of the same shape, or None.
        warnings: sentences about the data that whoever looks at the image should read.
        created: when the image was computed.
    """

    input_sha256: str
    model: str
    weights_sha256: str | None
    settings_sha256: str
    version: str
    kind: str = "none"
    error_bound: np.ndarray | None = None
    n_steps: np.ndarray | None = None
    converged: np.ndarray | None = None
    warnings: tuple[str, ...] = ()
    created: datetime = field(default_factory=lambda: datetime.now().astimezone())


@final
@dataclass(frozen=True)
class DicomSeries:
    """Which series of the study an image is.

    Attributes:
        description: a few words, to which RESEARCH ONLY is added.
        number: of the series; those of the scanner are far below the default.
        contrast: counted from 0; becomes the echo number. Each contrast is a series of its own.
        frame_seconds: time from frame to frame of an image (time, slices, rows, cols); None for a single volume, and
            where it is unknown.
        sequence: parameters of the pulse sequence, as far as they are known.
        entities: what else tells it from other series of the same scan, "acq-set2"; goes into its UID and description.
    """

    description: str = "molrecon"
    number: int = 9001
    contrast: int = 0
    frame_seconds: float | None = None
    sequence: Sequence = field(default_factory=Sequence)
    entities: str = ""

    def identity(self) -> tuple[str | int, ...]:
        """Return what tells it from the other series of a scan."""
        return (self.description, self.number, self.contrast, *((self.entities,) if self.entities else ()))

    def __post_init__(self) -> None:
        """Check the numbers."""
        if self.frame_seconds is not None and not 0 < self.frame_seconds < math.inf:
            raise ValueError(f"DicomSeries: frame_seconds is {self.frame_seconds}, expected a positive number or None")
        if self.contrast < 0 or not 0 <= self.number < 2**31:
            raise ValueError(f"DicomSeries: number {self.number}, contrast {self.contrast}, expected none below zero")


def uid(*sources: object) -> str:
    """Return the UID that belongs to these values: `2.25.` and 127 bits of their sha256, the same in every run."""
    digest = hashlib.sha256("\0".join(map(str, sources)).encode()).digest()
    return f"2.25.{int.from_bytes(digest[:16], 'big') >> 1}"


def series_uid(origin: Origin, series: DicomSeries, study: str, form: str) -> str:
    """Return the UID of a series, the same when the same scan is reconstructed again in the same way.

    `study` is the study's UID: an object belongs to one study. `form` is "classic" or "enhanced": the two are different
    objects, and an archive may be given both.
    """
    provenance = (origin.input_sha256, origin.model, origin.weights_sha256, origin.settings_sha256, origin.version)
    return uid(*provenance, study, form, *series.identity())


def derivation(origin: Origin, index: tuple[int, ...] | None) -> str:
    """Return the text of DerivationDescription, at most 1,024 characters.

    `index` is (slice,) or (time, slice) of one frame; None: of all, the worst.
    """
    hashes = [f"input sha256 {origin.input_sha256}", f"settings sha256 {origin.settings_sha256}"]
    if origin.weights_sha256 is not None:
        hashes.insert(0, f"weights sha256 {origin.weights_sha256}")
    head = f"Reconstructed from raw data by molrecon {origin.version}, model {origin.model[:64]}"
    return "; ".join([head, *hashes, *_quality(origin, index)])[:1024]


def comments(origin: Origin) -> str:
    """Return the text of ImageComments: RESEARCH ONLY, then the warnings, at most 10,240 characters."""
    return ". ".join([RESEARCH_ONLY, *origin.warnings])[:10240]


def _quality(origin: Origin, index: tuple[int, ...] | None) -> list[str]:
    phrases = []
    frame = slice(None) if index is None else index
    if origin.error_bound is not None and origin.kind != "none":
        bound = float(np.max(origin.error_bound[frame]))
        phrases.append(f"relative distance to the exact solution at most {bound:.2e} ({origin.kind})")
    else:
        phrases.append("no error bound")
    if origin.n_steps is not None:
        phrases.append(f"{int(np.max(origin.n_steps[frame]))} steps")
    if origin.converged is not None and not np.all(origin.converged[frame]):
        phrases.append("NOT CONVERGED")
    return phrases

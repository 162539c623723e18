"""Reconstructions as BIDS derivatives."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, final

from molrecon.io import RawVolume
from molrecon.io.bids import BY_ECHO, BidsName, check_dataset, read_bids_sidecar, write_bids
from molrecon.io.dicom.origin import RESEARCH_ONLY
from molrecon.io.geometry import origin_of
from molrecon.io.sequence import read_sequence
from molrecon.scans.reconstruction import Reconstruction
from molrecon.scans.sidecar import ModelSource, plain, versions

PHASE = "part-phase"


@final
@dataclass(frozen=True, eq=False)
class BidsExport:
    """Write every image into a BIDS data set as well.

    Attributes:
        dataset: its folder, made when missing.
        names: by the name of the output (`output_names`) that an input has.

    Raises:
        ValueError: two inputs with one name in the data set.
        UnreadableInput: a folder that holds a data set of another type.
    """

    dataset: Path
    names: Mapping[str, BidsName] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check that no two inputs meet."""
        outputs: dict[str, str] = {}
        for output, name in self.names.items():
            if (other := outputs.setdefault(name.stem.casefold(), output)) != output:
                raise ValueError(f"BidsExport: {other} and {output} are both {name.stem}, expected a run of each")
        check_dataset(self.dataset)

    def fingerprint(self, name: str) -> str:
        """Return a text that is different for every place of an image."""
        return f"{self.dataset.resolve()} {self.names[name].stem}"

    def paths(self, name: str, entities: str = "") -> list[Path]:
        """Return the paths that `write` returns."""
        return self._name(name, entities).paths(self.dataset)

    def _name(self, name: str, entities: str) -> BidsName:
        bids = self.names[name]
        labels = [label.partition("-")[::2] for label in entities.split("_") if label]
        if bids.suffix in BY_ECHO and not any(key == "echo" for key, _ in labels):
            labels.append(("echo", "1"))  # which BIDS demands, also of a single one
        if bids.run is not None:  # a run is another scan; within a scan "run" counts the encoding spaces
            labels = [("desc", f"space{label}") if key == "run" else (key, label) for key, label in labels]
        return replace(bids, entities=(*bids.entities, *labels))

    def check(self, name: str, volume: RawVolume) -> None:
        """Raise ValueError when the name holds the image of another input: one does not replace the other."""
        bids = self.names[name]
        earlier = read_bids_sidecar(self.dataset, bids).get("molrecon", {}).get("input_sha256")
        if earlier not in (None, volume.sha256):
            raise ValueError(
                f"--bids: {bids.stem} in the data set is the image of another input (sha256 {earlier[:12]}...),"
                " expected another session, suffix or run"
            )

    def write(
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
        """Write the image of an input, and return the paths of image and sidecar.

        Args:
            name: of the output.
            volume: the scan, of a series in time its first frame.
            result: what is written.
            source, settings_sha256: as in the sidecar of the output.
            entities: what tells the image from others of the same input; "part-phase": it is a phase in rad.
            contrast: from 0, for the echo time.

        Raises:
            OSError: a file cannot be written.
        """
        bids = self._name(name, entities)
        unknown = math.nan if result.image.ndim == 4 else None
        content = plain(_sidecar(volume, result, source, settings_sha256, bids, contrast))
        if PHASE in entities.split("_"):
            content["Units"] = "rad"
        return write_bids(
            self.dataset,
            bids,
            result.image,
            result.voxel_size,
            volume.geometry,
            content,
            version=versions()["molrecon"],
            frame_seconds=unknown if result.time_step is None else result.time_step,
        )


def _sidecar(
    volume: RawVolume,
    result: Reconstruction,
    source: ModelSource,
    settings_sha256: str,
    name: BidsName,
    contrast: int,
) -> dict[str, Any]:
    sequence = read_sequence(volume.path, volume.header, contrast)
    seconds = {
        key: None if value is None else value / 1000
        for key, value in (
            ("RepetitionTime", sequence.repetition_time),
            ("EchoTime", sequence.echo_time),
            ("InversionTime", sequence.inversion_time),
        )
    }
    parameters = {
        **seconds,
        "FlipAngle": sequence.flip_angle,
        "MagneticFieldStrength": sequence.field_strength,
        "ImagingFrequency": sequence.imaging_frequency,
    }
    model = Path(source.name).name
    return {
        "Description": f"Image reconstructed from k-space by molrecon, model {model}. {RESEARCH_ONLY}.",
        "Sources": [f"bids::sourcedata/sub-{name.subject}/{volume.path.name}"],
        "SkullStripped": False,
        **{key: value for key, value in parameters.items() if value is not None},
        "molrecon": {
            "version": versions()["molrecon"],
            "model": model,
            "weights_sha256": source.weights_sha256,
            "settings_sha256": settings_sha256,
            "input_sha256": volume.sha256,
            "kind": result.kind,
            "error_bound": result.error_bound,
            "n_steps": result.n_steps,
            "converged": result.converged,
            "warnings": [str(warning) for warning in result.warnings],
            "orientation": origin_of(volume.geometry),
        },
        "prov": _provenance(volume, source, settings_sha256, name),
    }


def _provenance(volume: RawVolume, source: ModelSource, settings_sha256: str, name: BidsName) -> dict[str, Any]:
    """Return entities, activity and agent in the form of PROV-JSON."""
    image, raw, model = f"mr:{name.stem}.nii.gz", f"mr:sha256/{volume.sha256}", f"mr:{Path(source.name).name}"
    activity, agent = "mr:reconstruction", "mr:molrecon"
    return {
        "prefix": {"mr": "urn:molrecon:", "prov": "http://www.w3.org/ns/prov#"},
        "entity": {
            raw: {"prov:label": volume.path.name, "mr:sha256": volume.sha256},
            model: {"mr:weights_sha256": source.weights_sha256 or "none"},
            image: {"prov:type": "image"},
        },
        "activity": {activity: {"mr:settings_sha256": settings_sha256}},
        "agent": {agent: {"prov:type": "prov:SoftwareAgent", "mr:version": versions()["molrecon"]}},
        "used": {
            "_:u1": {"prov:activity": activity, "prov:entity": raw},
            "_:u2": {"prov:activity": activity, "prov:entity": model},
        },
        "wasGeneratedBy": {"_:g1": {"prov:entity": image, "prov:activity": activity}},
        "wasAssociatedWith": {"_:a1": {"prov:activity": activity, "prov:agent": agent}},
    }

"""BIDS derivatives: names, the description of the data set, images with their sidecars.

name = BidsName("01", suffix="T1w")
write_bids("derivatives/molrecon", name, image, voxel_size, geometry, sidecar)
# derivatives/molrecon/sub-01/anat/sub-01_rec-molrecon_T1w.nii.gz and .json, and dataset_description.json
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np

from molrecon.io.atomic import atomic_path, write_atomically
from molrecon.io.geometry import Geometry
from molrecon.io.nifti import write_nifti
from molrecon.io.volume import UnreadableInput

__all__ = ["BY_ECHO", "DESCRIPTION_FILE", "SUFFIXES", "BidsName", "check_dataset", "read_bids_sidecar", "write_bids"]

BIDS_VERSION = "1.10.0"
DESCRIPTION_FILE = "dataset_description.json"
# Of magnitude images without a unit, in the folder anat. Others describe maps, or belong to tasks.
SUFFIXES = ("T1w", "T2w", "PDw", "FLAIR", "T2starw", "inplaneT1", "inplaneT2", "angio", "MEGRE", "MESE")
BY_ECHO = ("MEGRE", "MESE")  # of which each image is of an echo, and its name says of which
SINGLE = ("T1w",)  # of which BIDS takes no series in time
# What a name may hold, in the order in which BIDS wants it.
ORDER = ("sub", "ses", "acq", "rec", "run", "echo", "part", "desc")
README = """Images reconstructed from raw k-space by molrecon. RESEARCH ONLY - NOT FOR DIAGNOSIS.

Each sidecar says from which input (by its sha256), with which model and settings, and how far the image is at most from
the exact solution. Raw data have no place of their own in BIDS: `Sources` names them in sourcedata/.
"""


@final
@dataclass(frozen=True)
class BidsName:
    """The name of one image.

    Attributes:
        subject, session: labels of letters and digits; session may be empty.
        suffix: of SUFFIXES.
        run: 1 and on; None: the only one.
        entities: others of ORDER, such as {"echo": "1"}.

    Raises:
        ValueError: a label with other characters, an unknown suffix or entity.
    """

    subject: str
    session: str = ""
    suffix: str = "T1w"
    run: int | None = None
    entities: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        """Check the labels."""
        labels = self._labels()
        for entity, label in labels.items():
            if entity not in ORDER:
                raise ValueError(f"BidsName: entity {entity!r}, expected one of {', '.join(ORDER)}")
            if not re.fullmatch("[A-Za-z0-9]+", label):
                raise ValueError(f"BidsName: {entity} {label!r}, expected letters and digits alone")
        if self.suffix not in SUFFIXES:
            raise ValueError(f"BidsName: suffix {self.suffix!r}, expected one of {', '.join(SUFFIXES)}")

    def _labels(self) -> dict[str, str]:
        session = {"ses": self.session} if self.session else {}
        run = {} if self.run is None else {"run": str(self.run)}
        return {"sub": self.subject, **session, "rec": "molrecon", **run, **dict(self.entities)}

    @property
    def stem(self) -> str:
        """The path in the data set without suffix: sub-01/anat/sub-01_rec-molrecon_T1w."""
        labels = self._labels()
        name = "_".join([*(f"{entity}-{labels[entity]}" for entity in ORDER if entity in labels), self.suffix])
        folder = f"sub-{self.subject}/" + (f"ses-{self.session}/" if self.session else "")
        return f"{folder}anat/{name}"

    def paths(self, dataset: str | Path) -> list[Path]:
        """Return the paths of image and sidecar."""
        return [Path(dataset) / f"{self.stem}{ending}" for ending in (".nii.gz", ".json")]


def check_dataset(dataset: str | Path) -> dict[str, Any]:
    """Return the description of a data set that is there, empty where there is none.

    Raises:
        UnreadableInput: a description that is no JSON, or that of something else than derivatives: raw data of others
            are not mixed with images.
    """
    path = Path(dataset) / DESCRIPTION_FILE
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise UnreadableInput(path, f"no JSON ({error})", "the description of a BIDS derivative") from error
    if not isinstance(description, dict) or description.get("DatasetType") != "derivative":
        kind = description.get("DatasetType", "raw") if isinstance(description, dict) else "none"
        raise UnreadableInput(path, f"a data set of type {kind}", 'the description of a BIDS derivative ("derivative")')
    return description


def write_bids(
    dataset: str | Path,
    name: BidsName,
    image: np.ndarray,
    voxel_size: tuple[float, float, float] | None,
    geometry: Geometry | None,
    sidecar: Mapping[str, Any],
    *,
    version: str,
    frame_seconds: float | None = None,
) -> list[Path]:
    """Write an image, its sidecar and, where they are missing, description and README of the data set.

    Args:
        dataset: the folder, made when missing. Other processes may write other names into it.
        name: of the image. Older files of the name are replaced, the sidecar removed first and written last.
        image, voxel_size, geometry, frame_seconds: as in `write_nifti`.
        sidecar: plain JSON values.
        version: of molrecon, for GeneratedBy.

    Returns:
        the paths of image and sidecar.

    Raises:
        UnreadableInput: see `check_dataset`. OSError: a file cannot be written.
        ValueError, TypeError: as `write_nifti`.
    """
    if name.suffix in SINGLE and np.ndim(image) == 4:
        raise ValueError(
            f"write_bids: {name.stem} with {len(image)} frames, expected a single volume, or another suffix than"
            f" {name.suffix}, which BIDS takes for single volumes alone"
        )
    image_path, sidecar_path = name.paths(dataset)
    image_path.parent.mkdir(parents=True, exist_ok=True)
    _describe(Path(dataset), version)
    with atomic_path(image_path) as temporary:
        write_nifti(temporary, image, voxel_size, frame_seconds, geometry)
        sidecar_path.unlink(missing_ok=True)
    write_atomically(sidecar_path, _json(sidecar))
    return [image_path, sidecar_path]


def read_bids_sidecar(dataset: str | Path, name: BidsName) -> dict[str, Any]:
    """Return the sidecar of an image that is there as a whole, empty where there is none."""
    image, sidecar = name.paths(dataset)
    try:
        content = json.loads(sidecar.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) and image.is_file() else {}


def _describe(dataset: Path, version: str) -> None:
    description = check_dataset(dataset)
    program = {"Name": "molrecon", "Version": version, "Description": "reconstruction of raw k-space"}
    programs = [one for one in description.get("GeneratedBy", []) if isinstance(one, dict)]
    if not any((one.get("Name"), one.get("Version")) == ("molrecon", version) for one in programs):
        updated = {
            "Name": "molrecon derivatives",
            "BIDSVersion": BIDS_VERSION,
            "DatasetType": "derivative",
            **description,
            "GeneratedBy": [*programs, program],
        }
        write_atomically(dataset / DESCRIPTION_FILE, _json(updated))
    if not any(dataset.glob("README*")):
        write_atomically(dataset / "README.md", README.encode())


def _json(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(dict(content), indent=2, allow_nan=False) + "\n").encode()

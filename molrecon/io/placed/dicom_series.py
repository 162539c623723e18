"""A DICOM series as one volume: classic files, a slice each, or one enhanced file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import numpy as np

from molrecon.io.geometry import Geometry, vector
from molrecon.io.placed.placed_image import PlacedImage
from molrecon.io.volume import UnreadableInput, file_sha256, reading

if TYPE_CHECKING:
    from pydicom import Dataset

EXPECTED = "DICOM images of one series, in equal steps, with their places in the patient"
STEP_TOLERANCE = 0.01  # of the distance of two slices: what positions may depart from equal steps by
ANGLE_TOLERANCE = 1e-3


@final
@dataclass(frozen=True, eq=False)
class _Plane:
    """A slice as its header describes it; `file` and `frame` say where its pixels are."""

    file: Path
    frame: int | None
    position: np.ndarray  # (3,) of the centre of the first pixel, LPS in mm
    along: np.ndarray  # (2, 3) unit vectors: where columns grow to, and rows
    spacing: tuple[float, float]  # of rows and of columns, mm
    thickness: float | None
    shape: tuple[int, int]


def read_series(path: Path) -> PlacedImage:
    """Read the series that a DICOM file belongs to, or that fills a folder. Slices go along the normal of their plane.

    Raises:
        UnreadableInput: see `read_placed_image`. ModuleNotFoundError: pydicom is not installed.
    """
    with reading(path, EXPECTED, quote=False):
        planes = _first_of_each_place(_planes(path))
        first = planes[0]
        if any(one.shape != first.shape or one.spacing != first.spacing for one in planes):
            raise UnreadableInput(path, "slices of different sizes", EXPECTED)
        if any(np.abs(one.along - first.along).max() > ANGLE_TOLERANCE for one in planes):
            raise UnreadableInput(path, "slices of different directions", EXPECTED)
        step, thickness = _step(path, planes)
        files = list(dict.fromkeys(plane.file for plane in planes))
        values = _values(planes)
        row_step, column_step = first.spacing[0] * first.along[1], first.spacing[1] * first.along[0]
        steps = vector(step), vector(row_step), vector(column_step)
        geometry = Geometry(vector(first.position), *steps, thickness)
        return PlacedImage(values, geometry, "DICOM", file_sha256(*files))


def _planes(path: Path) -> list[_Plane]:
    """Return all slices of the series, in the order of their numbers."""
    import pydicom
    from pydicom.errors import InvalidDicomError

    chosen = None if path.is_dir() else pydicom.dcmread(path, stop_before_pixels=True).get("SeriesInstanceUID")
    folder = path if path.is_dir() else path.parent
    candidates = sorted(item for item in folder.iterdir() if item.is_file() and not item.name.startswith("."))
    numbered: list[tuple[int, list[_Plane]]] = []
    series = set()
    for file in candidates:
        try:
            data = pydicom.dcmread(file, stop_before_pixels=True)
        except (InvalidDicomError, OSError, EOFError):
            continue
        uid = data.get("SeriesInstanceUID")
        if "Rows" not in data or (chosen is not None and uid != chosen):
            continue
        series.add(uid)
        numbered.append((int(data.get("InstanceNumber") or 0), _planes_of(file, data)))
    if not numbered:
        raise UnreadableInput(path, "no DICOM image", EXPECTED)
    if len(series) > 1:
        raise UnreadableInput(path, f"a folder of {len(series)} series", "one series, or a file of the one meant")
    return [plane for _, planes in sorted(numbered, key=lambda pair: pair[0]) for plane in planes]


def _planes_of(file: Path, data: Dataset) -> list[_Plane]:
    if "PerFrameFunctionalGroupsSequence" not in data:
        return [_plane(file, None, data, data, data, data)]
    shared = data.SharedFunctionalGroupsSequence[0]
    planes = []
    for number, frame in enumerate(data.PerFrameFunctionalGroupsSequence):
        position, orientation, measures = (
            (frame if name in frame else shared)[name].value[0]
            for name in ("PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence")
        )
        planes.append(_plane(file, number, data, position, orientation, measures))
    return planes


def _plane(file: Path, frame: int | None, data: Dataset, position: Any, orientation: Any, measures: Any) -> _Plane:
    along = np.array([float(value) for value in orientation.ImageOrientationPatient]).reshape(2, 3)
    spacing = [float(value) for value in measures.PixelSpacing]
    thickness = measures.get("SliceThickness")
    return _Plane(
        file,
        frame,
        np.array([float(value) for value in position.ImagePositionPatient]),
        along,
        (spacing[0], spacing[1]),
        float(thickness) if thickness else None,
        (int(data.Rows), int(data.Columns)),
    )


def _first_of_each_place(planes: list[_Plane]) -> list[_Plane]:
    """Return one slice of every position, along the normal of the first: others repeat it in time or in contrast."""
    normal = np.cross(planes[0].along[0], planes[0].along[1])
    chosen: dict[float, _Plane] = {}
    for plane in planes:
        chosen.setdefault(round(float(plane.position @ normal), 3), plane)
    return [chosen[place] for place in sorted(chosen)]


def _step(path: Path, planes: list[_Plane]) -> tuple[np.ndarray, float]:
    """Return the step from slice to slice (3,), and the thickness."""
    first, last = planes[0], planes[-1]
    thickness = first.thickness
    if len(planes) == 1:
        if not thickness:
            raise UnreadableInput(path, "a single slice without a thickness", EXPECTED)
        return thickness * np.cross(first.along[0], first.along[1]), thickness
    step = (last.position - first.position) / (len(planes) - 1)
    length = float(np.linalg.norm(step))
    expected = first.position + np.arange(len(planes))[:, None] * step
    if np.abs(np.stack([plane.position for plane in planes]) - expected).max() > STEP_TOLERANCE * length:
        raise UnreadableInput(path, "slices in unequal steps", EXPECTED)
    return step, thickness or length


def _values(planes: list[_Plane]) -> np.ndarray:
    import pydicom
    from pydicom.pixels.processing import apply_rescale

    pixels: dict[Path, np.ndarray] = {}
    values = np.empty((len(planes), *planes[0].shape), np.float32)
    for number, plane in enumerate(planes):
        if plane.file not in pixels:
            data = pydicom.dcmread(plane.file)
            # Enhanced images keep their slope frame by frame; the comparison with a scan does not need it.
            pixels = {plane.file: apply_rescale(data.pixel_array, data)}
        stored = pixels[plane.file]
        values[number] = stored[plane.frame] if plane.frame is not None and stored.ndim == 3 else stored
    return values

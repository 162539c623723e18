"""Independent judges read what is written: dciodvfy, dcm2niix, pydicom's pixels."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest

from molrecon.io.dicom import DicomSeries, Origin, write_dicom, write_enhanced_dicom
from molrecon.io.geometry import Geometry
from molrecon.io.sequence import Sequence

from .conftest import GEOMETRIES

pydicom = pytest.importorskip("pydicom")
# The one of PyPI: Debian's, of 2022, mixes frames and slices of enhanced files whose maker it does not know.
dcm2niix = pytest.importorskip("dcm2niix")
Errors = Callable[[Path], list[str]]
SEQUENCE = Sequence(
    repetition_time=500.0, echo_time=11.0, flip_angle=70.0, field_strength=2.89, imaging_frequency=123.2
)


def write(
    form: str, folder: Path, image: np.ndarray, geometry: Geometry, origin: Origin, series: DicomSeries
) -> list[Path]:
    if form == "classic":
        return write_dicom(folder, image, geometry, origin, series=series)
    folder.mkdir()
    return [write_enhanced_dicom(folder / "all.dcm", image, geometry, origin, series=series)]


def converted(folder: Path, to: Path) -> nibabel.Nifti1Image:
    """Return what dcm2niix makes of a folder, one NIfTI file."""
    to.mkdir()
    subprocess.run([dcm2niix.bin, "-b", "n", "-z", "n", "-f", "x", "-o", to, folder], check=True, capture_output=True)
    (path,) = to.iterdir()
    return nibabel.Nifti1Image.from_filename(path)


def assert_same_voxels(found: nibabel.Nifti1Image, image: np.ndarray, geometry: Geometry) -> None:
    """Every voxel of `image` (..., slices, rows, cols) is where the geometry says, with its value."""
    indices = np.indices(image.shape[-3:]).reshape(3, -1)
    lps = (geometry.affine_lps() @ np.concatenate([indices, np.ones((1, indices.shape[1]))]))[:3]
    ras = np.diag([-1.0, -1.0, 1.0]) @ lps
    where = np.linalg.inv(np.asarray(found.affine)) @ np.concatenate([ras, np.ones((1, ras.shape[1]))])
    voxels = np.rint(where[:3]).astype(int)
    np.testing.assert_allclose(where[:3], voxels, atol=1e-4)
    values = np.asarray(found.dataobj)[tuple(voxels)]  # (voxels,) or (voxels, time)
    expected = image.reshape(*image.shape[:-3], -1)
    np.testing.assert_allclose(values.T, expected, rtol=0, atol=image.max() / 65535)


@pytest.mark.parametrize("form", ["classic", "enhanced"])
def test_every_voxel_comes_back_to_its_place(
    form: str, tmp_path: Path, image: np.ndarray, geometry: Geometry, origin: Origin
) -> None:
    write(form, tmp_path / "out", image, geometry, origin, DicomSeries())
    assert_same_voxels(converted(tmp_path / "out", tmp_path / "nifti"), image, geometry)


@pytest.mark.parametrize("form", ["classic", "enhanced"])
def test_no_error(form: str, tmp_path: Path, image: np.ndarray, geometry: Geometry, origin: Origin, errors: Errors):
    paths = write(form, tmp_path / "out", image, geometry, origin, DicomSeries(sequence=SEQUENCE))
    assert len(paths) == (3 if form == "classic" else 1)
    assert [errors(path) for path in paths] == [[]] * len(paths)


@pytest.mark.parametrize("form", ["classic", "enhanced"])
def test_a_single_slice(form: str, tmp_path: Path, image: np.ndarray, geometry: Geometry, errors: Errors) -> None:
    origin = Origin("ab" * 32, "zero-filled", None, "ef" * 32, "0.2.0")
    paths = write(form, tmp_path / "out", image[:1], geometry, origin, DicomSeries())
    assert errors(paths[0]) == []
    assert_same_voxels(converted(tmp_path / "out", tmp_path / "nifti"), image[:1], geometry)


@pytest.mark.parametrize("form", ["classic", "enhanced"])
@pytest.mark.parametrize("seconds", [2.5, None])
def test_a_series_in_time(
    seconds: float | None,
    form: str,
    tmp_path: Path,
    image: np.ndarray,
    geometry: Geometry,
    origin: Origin,
    errors: Errors,
) -> None:
    frames = np.stack([image, image[:, ::-1], 0.5 * image, image[..., ::-1]])
    bound = np.full((4, 3), 1e-4)
    origin = Origin("ab" * 32, "mol-2d", None, "ef" * 32, "0.2.0", "certified", bound)
    paths = write(form, tmp_path / "out", frames, geometry, origin, DicomSeries(frame_seconds=seconds))
    assert errors(paths[-1]) == []
    found = converted(tmp_path / "out", tmp_path / "nifti")
    assert found.shape[3] == 4
    assert_same_voxels(found, frames, geometry)
    data = pydicom.dcmread(paths[-1])
    if form == "classic":
        assert (data.TemporalPositionIdentifier, data.NumberOfTemporalPositions) == (4, 4)
        if seconds is not None:
            assert found.header.get_zooms()[3] == 2.5
            assert len({pydicom.dcmread(path).AcquisitionTime for path in paths}) == 4
            assert data.TemporalResolution == 2500
    elif seconds is not None:
        last = data.PerFrameFunctionalGroupsSequence[-1]
        assert last.TemporalPositionSequence[0].TemporalPositionTimeOffset == 7.5


@pytest.mark.parametrize("form", ["classic", "enhanced"])
@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e-4, 1.0, 1e6])
def test_values_of_any_size(
    form: str, scale: float, tmp_path: Path, image: np.ndarray, origin: Origin, errors: Errors
) -> None:
    image = (image / image.max() * scale).astype(np.float32)
    paths = write(form, tmp_path / "out", image, GEOMETRIES["axial"], origin, DicomSeries())
    assert errors(paths[0]) == []
    data = pydicom.dcmread(paths[0])
    rescale = data if form == "classic" else data.SharedFunctionalGroupsSequence[0].PixelValueTransformationSequence[0]
    slices = [pydicom.dcmread(path).pixel_array for path in paths] if form == "classic" else data.pixel_array
    values = np.array(slices) * float(rescale.RescaleSlope) + float(rescale.RescaleIntercept)
    np.testing.assert_allclose(np.sort(values.ravel()), np.sort(image.ravel()), rtol=0, atol=scale / 131070 * 1.001)


def test_sequence_parameters_are_written(tmp_path: Path, image: np.ndarray, origin: Origin) -> None:
    (first, *_) = write_dicom(
        tmp_path / "out", image, GEOMETRIES["axial"], origin, series=DicomSeries("T1", 9002, 1, None, SEQUENCE)
    )
    data = pydicom.dcmread(first)
    assert (data.RepetitionTime, data.EchoTime, data.FlipAngle, data.EchoNumbers) == (500, 11, 70, 2)
    assert (data.MagneticFieldStrength, data.ImagingFrequency, data.SeriesNumber) == (2.89, 123.2, 9002)
    assert data.SeriesDescription == "T1 RESEARCH ONLY"

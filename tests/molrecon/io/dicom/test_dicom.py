"""What is refused, how slices lie, the marks of a derived image, identifiers, and where identity comes from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from molrecon.io import UnreadableInput
from molrecon.io.dicom import DicomSeries, Origin, read_template, write_dicom, write_enhanced_dicom
from molrecon.io.dicom.layout import quantise, turned
from molrecon.io.dicom.origin import derivation
from molrecon.io.geometry import Geometry

from .conftest import GEOMETRIES

pydicom = pytest.importorskip("pydicom")


def template_file(path: Path, **elements: object) -> Path:
    """Write a DICOM file as a scanner would, with a private element and parameters of its own series."""
    data = pydicom.Dataset()
    data.SpecificCharacterSet = "ISO_IR 100"
    data.PatientName, data.PatientID, data.PatientBirthDate, data.PatientSex = "Müller^Jürgen", "P17", "19700102", "M"
    data.StudyInstanceUID, data.StudyDate, data.StudyTime = "1.2.3.4", "20260131", "235959.5"
    data.FrameOfReferenceUID, data.PatientPosition = "1.2.3.5", "HFS"
    data.Manufacturer, data.InstitutionName, data.SeriesDescription = "SIEMENS", "A hospital", "t1_tse"
    data.EchoTime, data.MagneticFieldStrength = 99, 3
    data.private_block(0x0029, "VENDOR", create=True).add_new(1, "LO", "private")
    data.SOPClassUID, data.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.4", "1.2.3.6"
    for keyword, value in elements.items():
        setattr(data, keyword, value)
    data.file_meta = pydicom.dataset.FileMetaDataset()
    data.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    data.save_as(path, enforce_file_format=True)
    return path


def test_without_geometry_it_is_refused(tmp_path: Path, image: np.ndarray, origin: Origin) -> None:
    for write in (write_dicom, write_enhanced_dicom):
        with pytest.raises(ValueError, match=r"does not say where its voxels are in the patient.*not made up"):
            write(tmp_path / "out", image, None, origin)
    assert list(tmp_path.iterdir()) == []


def test_what_else_is_refused(tmp_path: Path, image: np.ndarray, origin: Origin) -> None:
    place = GEOMETRIES["axial"]
    with pytest.raises(ValueError, match="right angles"):
        write_dicom(tmp_path / "out", image, replace(place, slice_step=(1.0, 0.0, 4.0)), origin)
    with pytest.raises(TypeError, match="complex64, expected real"):
        write_dicom(tmp_path / "out", image.astype(np.complex64), place, origin)
    with pytest.raises(ValueError, match=r"expected \(slices, rows, cols\) or \(time, slices, rows, cols\)"):
        write_dicom(tmp_path / "out", image[0], place, origin)
    with pytest.raises(ValueError, match="finite"):
        write_dicom(tmp_path / "out", image * np.nan, place, origin)
    for wrong in ({"frame_seconds": 0.0}, {"contrast": -1}, {"number": -1}):
        with pytest.raises(ValueError, match="Series"):
            DicomSeries(**wrong)
    assert list(tmp_path.iterdir()) == []


def test_slices_lie_as_they_are_read(geometry: Geometry, image: np.ndarray) -> None:
    new, place = turned(image, geometry)
    right, down = (np.array(step) / np.linalg.norm(step) for step in (place.column_step, place.row_step))
    normal = int(np.argmax(np.abs(np.cross(right, down))))
    # Columns grow to the left, or to posterior in sagittal slices; rows to posterior, or to inferior in the others.
    assert right[1 if normal == 0 else 0] > 0.5
    assert down[1] > 0.5 if normal == 2 else down[2] < -0.5
    assert sorted(new.shape) == sorted(image.shape)
    # Each value is unique: it is still at the same place.
    old_places = {value: geometry.affine_lps() @ (*index, 1) for index, value in np.ndenumerate(image)}
    for index, value in np.ndenumerate(new):
        np.testing.assert_allclose(place.affine_lps() @ (*index, 1), old_places[value], atol=1e-9)


@given(st.lists(st.floats(-(2.0**99), 2.0**99, width=32), min_size=1, max_size=20))
def test_values_come_back_to_half_a_slope(values: list[float]) -> None:
    image = np.array(values)
    stored = quantise(image)
    assert max(len(stored.slope), len(stored.intercept)) <= 16
    slope, intercept = float(stored.slope), float(stored.intercept)
    # Decimal strings of 16 characters are off by 1e-9 of the range, a few thousandths of a slope.
    error = np.abs(stored.pixels * slope + intercept - image)
    assert slope > 0
    assert (error <= 0.51 * slope).all()


def test_what_it_says_about_its_derivation(tmp_path: Path, image: np.ndarray, origin: Origin) -> None:
    warned = replace(origin, warnings=("slice 1: the maps do not fit",), converged=np.array([True, False, True]))
    paths = write_dicom(tmp_path / "out", image, GEOMETRIES["axial"], warned)
    first, second = (pydicom.dcmread(path) for path in paths[:2])
    assert list(first.ImageType) == ["DERIVED", "PRIMARY", "OTHER", "M"]
    assert first.ImageComments == "RESEARCH ONLY - NOT FOR DIAGNOSIS. slice 1: the maps do not fit"
    assert first.SeriesDescription == "molrecon RESEARCH ONLY"
    assert first.ContentQualification == "RESEARCH"
    for words in (
        "molrecon 0.2.0",
        "mol-2d",
        "cd" * 32,
        "ab" * 32,
        "ef" * 32,
        "at most 1.00e-04 (certified)",
        "7 steps",
    ):
        assert words in first.DerivationDescription
    assert "NOT CONVERGED" not in first.DerivationDescription
    assert second.DerivationDescription.endswith("at most 3.00e-04 (certified); 9 steps; NOT CONVERGED")
    (equipment,) = first.ContributingEquipmentSequence
    assert equipment.PurposeOfReferenceCodeSequence[0].CodeValue == "109102"
    assert "cd" * 32 in equipment.ContributionDescription
    assert derivation(origin, None).endswith("at most 3.00e-04 (certified); 9 steps")
    long = replace(origin, model="m" * 2000, warnings=("w" * 20000,))
    assert len(derivation(long, None)) <= 1024
    assert derivation(replace(origin, kind="none", n_steps=None), (0,)).endswith("; no error bound")


def test_the_same_again_is_the_same_object(tmp_path: Path, image: np.ndarray, origin: Origin) -> None:
    place = GEOMETRIES["axial"]
    first = [path.read_bytes() for path in write_dicom(tmp_path / "a", image, place, origin)]
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "stale.dcm").touch()
    second = write_dicom(tmp_path / "b", image, place, origin)
    assert [path.read_bytes() for path in second] == first
    assert sorted((tmp_path / "b").iterdir()) == second  # of the older folder nothing is left
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]
    write_enhanced_dicom(tmp_path / "c.dcm", image, place, origin)
    once = (tmp_path / "c.dcm").read_bytes()
    assert write_enhanced_dicom(tmp_path / "c.dcm", image, place, origin).read_bytes() == once


def test_every_object_has_its_own_identifier(tmp_path: Path, image: np.ndarray, origin: Origin) -> None:
    place = GEOMETRIES["axial"]
    origins = [origin, replace(origin, weights_sha256="00" * 32), replace(origin, settings_sha256="00" * 32)]
    paths = [write_dicom(tmp_path / f"{k}", image, place, one) for k, one in enumerate(origins)]
    paths.append(write_dicom(tmp_path / "contrast", image, place, origin, series=DicomSeries(contrast=1)))
    paths.append([write_enhanced_dicom(tmp_path / "e.dcm", image, place, origin)])
    found = [[pydicom.dcmread(path) for path in series] for series in paths]
    instances = [data.SOPInstanceUID for series in found for data in series]
    assert len(set(instances)) == len(instances) == 13
    assert all(len(uid) <= 64 and uid.startswith("2.25.") and uid.is_valid for uid in instances)
    assert [len({data.SeriesInstanceUID for data in series}) for series in found] == [1] * 5
    assert len({series[0].SeriesInstanceUID for series in found}) == 5
    assert len({(data.StudyInstanceUID, data.FrameOfReferenceUID) for series in found for data in series}) == 1
    other = write_dicom(tmp_path / "other", image, place, replace(origin, input_sha256="00" * 32))
    assert pydicom.dcmread(other[0]).StudyInstanceUID != found[0][0].StudyInstanceUID


def test_another_study_gets_other_objects(tmp_path: Path, image: np.ndarray, origin: Origin) -> None:
    template = read_template(template_file(tmp_path / "t.dcm"))
    paths = [
        write_dicom(tmp_path / name, image, GEOMETRIES["axial"], origin, template=one)[0]
        for name, one in (("a", None), ("b", template))
    ]
    first, second = (pydicom.dcmread(path) for path in paths)
    assert first.SOPInstanceUID != second.SOPInstanceUID
    assert first.SeriesInstanceUID != second.SeriesInstanceUID


def test_without_a_template_there_is_no_identity(tmp_path: Path, image: np.ndarray, origin: Origin) -> None:
    data = pydicom.dcmread(write_dicom(tmp_path / "a", image, GEOMETRIES["axial"], origin)[0])
    assert (data.PatientName, data.PatientID, data.PatientIdentityRemoved) == ("ANON^", "ANON", "YES")
    assert not (data.PatientBirthDate or data.PatientSex or data.StudyDate or data.AccessionNumber)


@pytest.mark.parametrize("body", [{}, {"BodyPartExamined": "HEAD"}, {"BodyPartExamined": "KNEE", "Laterality": "L"}])
def test_identity_comes_from_the_template(tmp_path: Path, image: np.ndarray, origin: Origin, errors, body) -> None:
    template = read_template(template_file(tmp_path / "t.dcm", **body))
    classic = write_dicom(tmp_path / "a", image, GEOMETRIES["axial"], origin, template=template)[0]
    enhanced = write_enhanced_dicom(tmp_path / "e.dcm", image, GEOMETRIES["axial"], origin, template=template)
    for path in (classic, enhanced):
        data = pydicom.dcmread(path)
        assert (data.PatientName, data.PatientID, data.PatientBirthDate) == ("Müller^Jürgen", "P17", "19700102")
        assert (data.StudyInstanceUID, data.StudyDate, data.FrameOfReferenceUID) == ("1.2.3.4", "20260131", "1.2.3.5")
        assert "PatientIdentityRemoved" not in data
        assert [item.Manufacturer for item in data.ContributingEquipmentSequence] == ["SIEMENS", "molrecon"]
        # What belongs to the other series, and what is not asked for, stays there.
        assert not data.get("EchoTime") and "InstitutionName" not in data
        assert not [element for element in data.iterall() if element.tag.is_private]
        assert data.SeriesDescription == "molrecon RESEARCH ONLY"
        assert errors(path) == []
    frames = np.stack([image, image])
    timed = replace(origin, error_bound=None, n_steps=None, converged=None)
    paths = write_dicom(
        tmp_path / "b", frames, GEOMETRIES["axial"], timed, series=DicomSeries(frame_seconds=2.0), template=template
    )
    last = pydicom.dcmread(paths[-1])
    assert (last.AcquisitionDate, last.AcquisitionTime) == ("20260201", "000001.000000")


def test_templates_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "text.dcm").write_text("no DICOM")
    template_file(tmp_path / "study.dcm", StudyInstanceUID="")
    for name, found in (("absent.dcm", "FileNotFound"), ("text.dcm", "InvalidDicom"), ("study.dcm", "no StudyInst")):
        with pytest.raises(UnreadableInput, match=f"{found}.*expected a DICOM file of the same exam"):
            read_template(tmp_path / name)

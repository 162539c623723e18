"""How the commands read: a geometry from another image of the exam, and conjugation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ismrmrd
import nibabel
import numpy as np
import pytest

from molrecon.command.parser import main
from molrecon.io import Geometry, read_volume, write_nifti
from molrecon.io.nifti import affine_ras
from molrecon.simulation.sample import write_sample

PLACE = Geometry((-100.0, -108.0, 12.5), (0.0, -3.0, 4.0), (0.0, 0.8, 0.6), (1.0, 0.0, 0.0), 5.0)
FIXED = ("--model", "zero-filled", "--device", "cpu", "--noise-level", "0.01", "--maps")


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sample(tmp_path_factory.mktemp("scan") / "head.h5", slices=2, coils=2)


@pytest.fixture(scope="module")
def maps(scan: Path) -> str:
    np.save(scan.parent / "maps.npy", np.full((2, 432, 200), np.sqrt(0.5), np.complex64))
    return str(scan.parent / "maps.npy")


@pytest.fixture
def placed(scan: Path, tmp_path: Path) -> Path:
    """An image of the same head, mirrored as scanners store it, in a folder named after a patient."""
    reference = read_volume(scan).reference
    assert reference is not None
    origin = tuple(np.array(PLACE.origin) + 199 * np.array(PLACE.column_step))
    mirrored = Geometry(origin, PLACE.slice_step, PLACE.row_step, (-1.0, 0.0, 0.0), 5.0)
    folder = tmp_path / "DOE_JANE"
    folder.mkdir()
    write_nifti(folder / "scanner.nii.gz", reference[..., ::-1], None, geometry=mirrored)
    return folder / "scanner.nii.gz"


def test_a_geometry_is_borrowed_and_said_by_hash(scan, maps, placed, tmp_path, capsys):
    out = tmp_path / "out"
    command = ["reconstruct", str(scan), "--out", str(out), *FIXED, maps, "--geometry", str(placed)]
    assert main(command) == 0
    image: Any = nibabel.load(out / "head.nii.gz")
    assert (int(image.header["sform_code"]), int(image.header["qform_code"])) == (1, 1)
    assert np.allclose(image.affine, affine_ras(PLACE), atol=1e-4)
    place = json.loads((out / "head.json").read_text())["image"]["orientation"]
    digest = place["borrowed_from"].partition("sha256 ")[2][:64]
    assert len(digest) == 64 and "axes columns reversed" in place["borrowed_from"]
    assert "borrowed from a NIfTI image" in (out / "head.html").read_text()
    capsys.readouterr()
    assert main([*command, "--resume"]) == 0
    assert "kept" in capsys.readouterr().out
    assert main([*command[:-2], "--resume"]) == 0  # without the image the place is another
    assert "kept" not in capsys.readouterr().out
    assert json.loads((out / "head.json").read_text())["image"]["orientation"] == "unknown"


def test_neither_folder_nor_name_of_the_image_is_told(scan, maps, placed, tmp_path, capsys):
    out = tmp_path / "out"
    options = ["--geometry", str(placed), "--no-paths", "--workers", "1"]
    assert main(["reconstruct", str(scan), "--out", str(out), *FIXED, maps, *options]) == 0
    output = capsys.readouterr()
    written = b"".join(path.read_bytes() for path in out.rglob("*") if path.is_file())
    assert b"DOE_JANE" not in written and b"scanner.nii" not in written
    assert "DOE_JANE" not in output.out + output.err


def test_an_image_that_does_not_fit_fails_its_scan_with_a_sentence(scan, maps, placed, tmp_path, capsys):
    image: Any = nibabel.load(placed)
    nibabel.save(image.slicer[..., :1], placed.with_name("one.nii"))
    options = ["--geometry", str(placed.with_name("one.nii"))]
    assert main(["reconstruct", str(scan), "--out", str(tmp_path / "out"), *FIXED, maps, *options]) == 4
    assert "the image has 1 slices, expected 2" in capsys.readouterr().err
    assert not (tmp_path / "out" / "head.nii.gz").exists()


def test_what_makes_no_sense_is_said_before_anything_runs(scan, placed, tmp_path, capsys):
    command = ["reconstruct", str(scan), "--out", str(tmp_path / "out"), "--model", "zero-filled"]
    assert main([*command, "--geometry-axes", "stored"]) == 2
    assert main([*command, "--geometry", str(tmp_path / "none.nii")]) == 3
    assert main(["reconstruct", str(scan), "--out", str(placed.parent), "--geometry", str(placed.parent)]) == 3
    assert "no DICOM image" in capsys.readouterr().err


@pytest.fixture(scope="module")
def raw(scan: Path) -> Path:
    """The scan as MRD, of a vendor whose data are not conjugated by themselves."""
    volume = read_volume(scan)
    assert volume.header is not None
    path = scan.parent / "raw.mrd"
    with ismrmrd.Dataset(str(path), "dataset", create_if_needed=True) as dataset:
        dataset.write_xml_header(volume.header.encode())
        for index in np.ndindex(2, volume.kspace.shape[-1]):
            readout = ismrmrd.Acquisition.from_array(np.ascontiguousarray(volume.kspace[index[0], :, :, index[1]]))
            readout.center_sample = volume.kspace.shape[2] // 2
            readout.idx.slice, readout.idx.kspace_encode_step_1 = index
            dataset.append_acquisition(readout)
    return path


def test_conjugated_data_give_the_image_turned_round(raw, maps, tmp_path):
    images = {}
    for word in ("auto", "no", "yes"):
        command = ["reconstruct", str(raw), "--out", str(tmp_path / word), *FIXED, maps, "--conjugate", word]
        assert main(command) == 0
        images[word] = np.asarray(nibabel.Nifti1Image.from_filename(tmp_path / word / "raw.nii.gz").dataobj)
    assert np.array_equal(images["auto"], images["no"])
    # Conjugating k-space reverses the image about voxel n // 2, along both axes.
    turned = np.roll(images["no"][::-1, ::-1], (1, 1), (0, 1))
    assert np.abs(images["yes"] - turned)[1:, 1:].max() < 1e-4 * turned.max()


def test_every_command_that_reads_takes_it(raw, tmp_path, monkeypatch, capsys):
    for word, conjugated in (("yes", True), ("no", False)):
        assert main(["info", str(raw), "--json", "-", "--conjugate", word]) == 0
        assert json.loads(capsys.readouterr().out)["conjugated"] is conjugated
    read = []

    def stop(path, *, conjugate=None):
        read.append(conjugate)
        raise ValueError("enough")

    monkeypatch.setattr("molrecon.io.read_volume", stop)
    for command in (["compare", str(raw)], ["robustness", str(raw)], ["certify", "mol-guided-2d", "--data", str(raw)]):
        assert main([*command, "--conjugate", "yes"]) != 0
    assert read == [True] * 3
    assert main(["certify", "mol-guided-2d", "--conjugate", "yes"]) == 2

    def serve(settings):
        read.append(settings.conjugate)
        raise ValueError("enough")

    monkeypatch.setattr("molrecon.stream.server.StreamServer", serve)
    assert main(["serve", "--conjugate", "no"]) != 0
    assert read[-1] is False


def test_dicom_of_a_scan_without_geometry(scan, maps, placed, tmp_path):
    pydicom = pytest.importorskip("pydicom")
    out = tmp_path / "out"
    options = ["--geometry", str(placed), "--dicom", "enhanced"]
    assert main(["reconstruct", str(scan), "--out", str(out), *FIXED, maps, *options]) == 0
    assert pydicom.dcmread(out / "head.dcm").NumberOfFrames == 2


def test_a_template_series_gives_identity_and_place(scan, maps, tmp_path, capsys):
    pydicom = pytest.importorskip("pydicom")
    from molrecon.io import read_placed_image
    from molrecon.io.dicom import Origin, Template, write_dicom

    identity = pydicom.Dataset()
    identity.PatientName, identity.PatientID, identity.StudyInstanceUID = "Template^Patient", "T1", "1.2.3.4"
    identity.FrameOfReferenceUID = "1.2.3.9"
    reference = read_volume(scan).reference
    assert reference is not None
    exam = tmp_path / "exam"
    made = Origin("ab" * 32, "scanner", None, "ef" * 32, "0")
    write_dicom(exam, reference, PLACE, made, template=Template(identity))
    out = tmp_path / "out"
    command = ["reconstruct", str(scan), "--out", str(out), *FIXED, maps, "--dicom", "--dicom-template", str(exam)]
    assert main(command) == 0
    placed_image: Any = nibabel.load(out / "head.nii.gz")
    assert np.allclose(placed_image.affine, affine_ras(PLACE), atol=1e-4)
    ours, theirs = (read_placed_image(folder) for folder in (out / "head.dicom", exam))
    assert np.allclose(ours.geometry.affine_lps(), theirs.geometry.affine_lps(), atol=1e-4)
    for file in (out / "head.dicom").iterdir():
        data = pydicom.dcmread(file)
        assert (data.PatientName, data.PatientID, data.StudyInstanceUID) == ("Template^Patient", "T1", "1.2.3.4")
        assert data.FrameOfReferenceUID == "1.2.3.9"
    # One slice less, and a slice of another patient, are refused.
    last = sorted(exam.iterdir())[-1]
    other = pydicom.dcmread(last)
    last.unlink()
    capsys.readouterr()
    assert main(command) == 4
    assert "the image has 1 slices, expected 2" in capsys.readouterr().err
    other.PatientID = "T2"
    other.save_as(last)
    assert main(command) == 3
    assert "a folder of 2 studies or patients" in capsys.readouterr().err

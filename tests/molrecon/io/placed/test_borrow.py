"""A scan without a geometry takes that of an image of the same exam: to the right voxel, or not at all."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, cast

import nibabel
import numpy as np
import pytest
import torch

from molrecon.io import Geometry, RawVolume, borrow_geometry, read_placed_image, write_nifti
from molrecon.io.nifti import affine_ras
from molrecon.io.placed import PlacedImage
from molrecon.io.volume import UnreadableInput
from molrecon.simulation.sample import VOXEL_SIZE, sample_image, sample_maps
from operators.fourier import centred_fft
from operators.masks import random_mask

SLICES = 3
# Steps of 5 mm, 1 mm and 1 mm at right angles, turned about two axes.
TURN = np.array([[0.8, -0.6, 0.0], [0.48, 0.64, -0.6], [0.36, 0.48, 0.8]])


def place(slice_step, row_step, column_step) -> Geometry:
    through, row, column = ((TURN @ np.array(step)).tolist() for step in (slice_step, row_step, column_step))
    return Geometry((-90.25, -70.5, 33.125), tuple(through), tuple(row), tuple(column), 5.0)


PLACES = {
    "axial": place((0, 0, 5), (0, 1, 0), (1, 0, 0)),
    "descending": place((0, 0, -5), (0, 1, 0), (1, 0, 0)),
    "coronal, upside down": place((0, 5, 0), (0, 0, 1), (-1, 0, 0)),
    "sagittal, readout from front to back": place((5, 0, 0), (0, 1, 0), (0, 0, -1)),
}


@cache
def head() -> tuple[np.ndarray, np.ndarray]:
    """Return a head (slices, rows, cols) and its fully sampled k-space (slices, coil, rows, cols)."""
    image, maps = sample_image(SLICES), sample_maps(SLICES, 4)
    kspace = centred_fft(torch.from_numpy(maps * image[:, None]), (-2, -1)).numpy().astype(np.complex64)
    return np.abs(image), kspace


def scan(voxel_size: tuple[float, float, float] | None = VOXEL_SIZE, accel: float = 4) -> RawVolume:
    """Return the undersampled scan of the head, with noise, which does not say where it lies."""
    kspace = head()[1]
    mask = np.ones(kspace.shape[-1], bool)
    if accel > 1:
        mask = np.asarray(random_mask(kspace.shape[-1], accel, 0.08, [3])).astype(bool).reshape(-1)
    rng = np.random.default_rng(2)
    noise = rng.standard_normal((*kspace.shape, 2), np.float32).view(np.complex64)[..., 0]
    noisy = (kspace + 0.01 * noise) * mask
    return RawVolume(Path("scan.npy"), noisy, mask, kspace.shape[-2:], "ab" * 32, voxel_size)


def gap(found: Geometry, true: Geometry) -> float:
    """Return the largest distance of any voxel from its place, in mm."""
    slices, rows, cols = head()[0].shape
    corners = np.stack(np.meshgrid([0, slices - 1], [0, rows - 1], [0, cols - 1]), -1).reshape(-1, 3)
    ends = np.concatenate([corners, np.ones((8, 1))], 1)
    return float(np.linalg.norm(ends @ (found.affine_lps() - true.affine_lps()).T, axis=1).max())


def as_nifti(folder: Path, geometry: Geometry) -> Path:
    write_nifti(folder / "placed.nii.gz", head()[0], None, geometry=geometry)
    return folder / "placed.nii.gz"


def as_dicom(folder: Path, geometry: Geometry, form: str = "classic") -> Path:
    pytest.importorskip("pydicom")
    from molrecon.io.dicom import Origin, write_dicom, write_enhanced_dicom

    origin = Origin("ab" * 32, "scanner", None, "ef" * 32, "1")
    if form == "classic":
        write_dicom(folder / "series", head()[0], geometry, origin)
        return folder / "series"
    write_enhanced_dicom(folder / "series.dcm", head()[0], geometry, origin)
    return folder / "series.dcm"


def as_dcm2niix(folder: Path, geometry: Geometry) -> Path:
    dcm2niix = pytest.importorskip("dcm2niix")
    made = as_dicom(folder, geometry)
    command = [dcm2niix.bin, "-b", "n", "-z", "n", "-f", "x", "-o", folder, made]
    subprocess.run(command, check=True, capture_output=True)
    return folder / "x.nii"


FORMS = {
    "nifti": as_nifti,
    "dicom folder": as_dicom,
    "dicom file": lambda folder, geometry: as_dicom(folder, geometry) / "0002.dcm",
    "enhanced dicom": lambda folder, geometry: as_dicom(folder, geometry, "enhanced"),
    "dcm2niix": as_dcm2niix,
}


@pytest.mark.parametrize("where", PLACES)
@pytest.mark.parametrize("form", FORMS)
def test_every_voxel_gets_its_place(tmp_path, form, where):
    image = read_placed_image(FORMS[form](tmp_path, PLACES[where]))
    found = borrow_geometry(scan(), image)
    assert gap(found, PLACES[where]) < 2e-4
    assert found.slice_thickness == pytest.approx(5, rel=1e-4)
    assert image.sha256 in (found.borrowed_from or "")


@pytest.mark.parametrize("form", ["nifti", "dicom folder"])
def test_without_a_field_of_view_the_matrix_decides(tmp_path, form):
    image = read_placed_image(FORMS[form](tmp_path, PLACES["axial"]))
    assert gap(borrow_geometry(scan(voxel_size=None), image), PLACES["axial"]) < 2e-4


def test_an_interpolated_image_has_the_same_first_voxel():
    values = np.repeat(np.repeat(head()[0], 2, 1), 2, 2)
    true = PLACES["axial"]
    half: dict[str, Any] = {name: tuple(np.array(getattr(true, name)) / 2) for name in ("row_step", "column_step")}
    image = PlacedImage(values, replace(true, **half), "NIfTI", "cd" * 32)
    assert gap(borrow_geometry(scan(), image), true) < 1e-6


def placed(values: np.ndarray, **changed: Any) -> PlacedImage:
    return PlacedImage(values, replace(PLACES["axial"], **changed), "NIfTI", "cd" * 32)


@pytest.mark.parametrize(
    ("image", "sentence"),
    [
        (lambda: placed(head()[0][:2]), "the image has 2 slices, expected 3"),
        (lambda: placed(head()[0], row_step=(0, 1.1, 0), column_step=(1.1, 0, 0)), "field of view is 237.6 x 220 mm"),
        (lambda: placed(head()[0], slice_step=(0, 0, 2)), "slices are 2 mm apart"),
        (lambda: placed(np.random.default_rng(0).random(head()[0].shape)), "does not look like the scan"),
        (lambda: placed(head()[0] + head()[0][:, :, ::-1]), "looks as much like the scan"),
    ],
)
def test_another_image_is_refused(image, sentence):
    with pytest.raises(ValueError, match=sentence):
        borrow_geometry(scan(), image())


def test_axes_as_they_are_stored_are_taken_at_the_users_word():
    symmetric = placed(head()[0] + head()[0][:, :, ::-1])
    found = borrow_geometry(scan(), symmetric, axes="stored")
    assert gap(found, PLACES["axial"]) == 0
    with pytest.raises(ValueError, match="axes 'guessed', expected one of found, stored"):
        borrow_geometry(scan(), symmetric, axes=cast("Any", "guessed"))


def test_an_image_that_does_not_say_where_it_lies_is_refused(tmp_path):
    write_nifti(tmp_path / "unknown.nii", head()[0], VOXEL_SIZE)
    with pytest.raises(UnreadableInput, match="sform code 0, qform code 0, expected a NIfTI image that says"):
        read_placed_image(tmp_path / "unknown.nii")
    nifti: Any = nibabel.load(as_nifti(tmp_path, PLACES["axial"]))
    nifti.set_sform(affine_ras(PLACES["axial"]), code=4)
    nifti.set_qform(affine_ras(PLACES["axial"]), code=0)
    nibabel.save(nifti, tmp_path / "atlas.nii")
    with pytest.raises(UnreadableInput, match="sform code 4"):
        read_placed_image(tmp_path / "atlas.nii")


@pytest.mark.parametrize("name", ["none.nii", "none.dcm"])
def test_no_image_is_said(tmp_path, name):
    with pytest.raises(UnreadableInput, match="no such file"):
        read_placed_image(tmp_path / name)
    (tmp_path / name).write_bytes(b"no image at all" * 30)
    with pytest.raises(UnreadableInput, match=name):
        read_placed_image(tmp_path / name)


def test_a_folder_of_two_series_is_refused_and_a_file_of_one_is_not(tmp_path):
    pydicom = pytest.importorskip("pydicom")
    folder = as_dicom(tmp_path, PLACES["axial"])
    for path in sorted(folder.iterdir()):
        data = pydicom.dcmread(path)
        data.SeriesInstanceUID, data.SOPInstanceUID = "1.2.3", f"{data.SOPInstanceUID}1"
        data.save_as(folder / f"other_{path.name}")
    (folder / "notes.txt").write_text("not DICOM")
    with pytest.raises(UnreadableInput, match="a folder of 2 series"):
        read_placed_image(folder)
    assert read_placed_image(folder / "0001.dcm").values.shape == head()[0].shape


def test_a_missing_slice_is_noticed(tmp_path):
    folder = as_dicom(tmp_path, PLACES["axial"])
    (folder / "0003.dcm").unlink()
    with pytest.raises(ValueError, match="2 slices, expected 3"):
        borrow_geometry(scan(), read_placed_image(folder))


def test_errors_quote_no_header(tmp_path):
    pydicom = pytest.importorskip("pydicom")
    path = as_dicom(tmp_path, PLACES["axial"]) / "0001.dcm"
    data = pydicom.dcmread(path)
    data.PatientName = "Doe^Jane"
    del data.ImagePositionPatient
    data.save_as(path)
    with pytest.raises(UnreadableInput) as caught:
        read_placed_image(path)
    assert "Doe" not in str(caught.value) and "Jane" not in repr(caught.value.__cause__)

"""From MRD files of every geometry to DICOM by the command: dcm2niix puts every voxel where the NIfTI puts it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import ismrmrd
import nibabel
import numpy as np
import pytest

from examples._mrd_files import header, radial, readouts
from molrecon.command.parser import main

pytest.importorskip("pydicom")
dcm2niix = pytest.importorskip("dcm2niix")

ROWS, COLS = 20, 16
CENTRE = np.array([12.5, -33.25, 71.0])
OBLIQUE = np.linalg.qr(np.array([[0.8, 0.3, 0.2], [-0.4, 0.9, 0.5], [0.1, -0.6, 1.0]]))[0].T
PLAIN = np.eye(3)
# Directions (read, phase, slice), partitions, and the distance of 2D slices that are 5 mm thick.
PLACES = {
    "gaps": (PLAIN, 1, 7.0),
    "descending": (PLAIN, 1, -5.0),
    "double oblique, descending with gaps": (OBLIQUE, 1, -6.5),
    "3D": (PLAIN, 6, 0.0),
    "3D double oblique": (OBLIQUE, 5, 0.0),
    "stack of stars, double oblique": (OBLIQUE, 4, 0.0),
}


def write(path: Path, place: str) -> None:
    """Write noise of one coil, fully sampled: 3 slices or one slab, cropped along the first axis."""
    directions, depth, step = PLACES[place]
    rng = np.random.default_rng(0)
    points = radial(30, ROWS) if place.startswith("stack") else None
    matrix = (ROWS, COLS) if points is None else (ROWS, ROWS)
    acquisitions = []
    for number in range(3 if depth == 1 else depth):
        shape = (1, COLS, ROWS) if points is None else (1, *points.shape[:2])
        samples = rng.normal(size=shape) + 1j * rng.normal(size=shape)
        index = {"slice": number} if depth == 1 else {"kspace_encode_step_2": number}
        for one in readouts(samples, None if points is None else points / ROWS, **index):
            one.center_sample = ROWS // 2
            one.position[:] = CENTRE + (number if depth == 1 else 0) * step * directions[2]
            one.read_dir[:], one.phase_dir[:], one.slice_dir[:] = directions
            acquisitions.append(one)
    with ismrmrd.Dataset(str(path), "dataset", create_if_needed=True) as dataset:
        kind = "cartesian" if points is None else "radial"
        xml = header(kind, matrix, (ROWS - 6, matrix[1] - 3), depth=depth)
        xml = xml.replace(f"<x>{2 * (ROWS - 6)}</x>", f"<x>{2 * ROWS - 12}</x>")
        dataset.write_xml_header(xml.encode())
        for one in acquisitions:
            dataset.append_acquisition(one)


@pytest.mark.parametrize("place", PLACES)
def test_both_files_say_the_same_place(place: str, tmp_path: Path) -> None:
    write(tmp_path / "scan.mrd", place)
    fixed = ("--model", "zero-filled", "--noise-level", "0.5", "--dicom")
    assert main(["reconstruct", str(tmp_path / "scan.mrd"), "--out", str(tmp_path / "out"), *fixed]) == 0
    ours = nibabel.Nifti1Image.from_filename(tmp_path / "out" / "scan.nii.gz")
    (tmp_path / "theirs").mkdir()
    command = [dcm2niix.bin, "-b", "n", "-z", "n", "-f", "x", "-o", tmp_path / "theirs", tmp_path / "out/scan.dicom"]
    subprocess.run(command, check=True, capture_output=True)
    (path,) = (tmp_path / "theirs").iterdir()
    theirs = nibabel.Nifti1Image.from_filename(path)
    image = np.asarray(ours.dataobj)
    assert image.size == np.asarray(theirs.dataobj).size and image.max() > 0
    indices = np.indices(image.shape).reshape(3, -1)
    where = np.linalg.inv(theirs.affine) @ ours.affine @ np.concatenate([indices, np.ones((1, indices.shape[1]))])
    voxels = np.rint(where[:3]).astype(int)
    # DICOM has places to six digits or so: a fraction of a micrometre to a few.
    np.testing.assert_allclose(where[:3], voxels, atol=1e-3)
    np.testing.assert_allclose(
        np.asarray(theirs.dataobj)[tuple(voxels)], image.ravel(), rtol=0, atol=image.max() / 65535
    )

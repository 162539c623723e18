"""Points at known places in the patient, measured analytically, are found there through the affine of the NIfTI."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ismrmrd
import nibabel
import numpy as np
import pytest

from molrecon.io import read_mrd, write_nifti
from molrecon.reconstructors.classical import ZeroFilled
from molrecon.scans.reconstruction import reconstruct_volume

AXIAL = ((1, 0, 0), (0, 1, 0))
CORONAL = ((0, 0, -1), (1, 0, 0))
SAGITTAL = ((0, 1, 0), (0, 0, -1))
FIELD_OF_VIEW = (48.0, 30.0)  # as encoded, mm
THICKNESS = 4.0
CENTRE = np.array([12.5, -33.25, 71.0])  # of slice 0


def double_oblique() -> tuple[np.ndarray, np.ndarray]:
    turn, tilt = np.deg2rad(27), np.deg2rad(-38)
    about_z = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]])
    matrix = about_x @ about_z
    return matrix[0], matrix[1]


def text(encoded: tuple[int, int], recon: tuple[int, int], partitions: int = 1) -> str:
    def space(name: str, matrix: tuple[int, int], field_of_view: tuple[float, ...]) -> str:
        (x, y), (a, b), z = matrix, field_of_view, partitions
        return (
            f"<{name}><matrixSize><x>{x}</x><y>{y}</y><z>{z}</z></matrixSize>"
            f"<fieldOfView_mm><x>{a}</x><y>{b}</y><z>{THICKNESS * partitions}</z></fieldOfView_mm></{name}>"
        )

    cropped = tuple(mm * m / n for mm, m, n in zip(FIELD_OF_VIEW, recon, encoded, strict=True))
    return (
        '<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD"><experimentalConditions><H1resonanceFrequency_Hz>123000000'
        f"</H1resonanceFrequency_Hz></experimentalConditions><encoding>{space('encodedSpace', encoded, FIELD_OF_VIEW)}"
        f"{space('reconSpace', recon, cropped)}<encodingLimits><kspace_encoding_step_1><minimum>0</minimum>"
        f"<maximum>{encoded[1] - 1}</maximum><center>{encoded[1] // 2}</center></kspace_encoding_step_1>"
        "</encodingLimits><trajectory>cartesian</trajectory></encoding></ismrmrdHeader>"
    )


def write_points(
    path: Path,
    points: np.ndarray,
    centres: dict[int, np.ndarray],
    frame: tuple[Any, Any],
    encoded: tuple[int, int],
    recon: tuple[int, int],
) -> None:
    """Write the signal of points (points, 3) mm, one number of slice for each centre: 1 in the slice they lie in."""
    read, phase = (np.asarray(vector, float) for vector in frame)
    normal = np.cross(read, phase)
    rows, cols = encoded
    k_read = (np.arange(rows) - rows // 2) / FIELD_OF_VIEW[0]
    with ismrmrd.Dataset(str(path), "dataset", create_if_needed=True) as dataset:
        dataset.write_xml_header(text(encoded, recon).encode())
        for number, centre in centres.items():
            inside = points[np.abs((points - centre) @ normal) < THICKNESS / 2]
            for step in range(cols):
                k = k_read[:, None] * read + (step - cols // 2) / FIELD_OF_VIEW[1] * phase
                signal = np.exp(-2j * np.pi * k @ (inside - centre).T).sum(axis=1)
                line = ismrmrd.Acquisition.from_array(signal[None].astype(np.complex64))
                line.center_sample = rows // 2
                line.idx.kspace_encode_step_1, line.idx.slice = step, number
                line.position[:], line.read_dir[:], line.phase_dir[:] = centre, read, phase
                line.slice_dir[:] = normal
                dataset.append_acquisition(line)


def found(path: Path, tmp_path: Path) -> tuple[np.ndarray, Any]:
    """Return the places (points, 3) in LPS mm of the bright voxels of the reconstructed volume."""
    result = reconstruct_volume(read_mrd(path), ZeroFilled(), noise_level=1e-3)
    assert result.geometry is not None
    write_nifti(tmp_path / "image.nii", result.image, result.voxel_size, geometry=result.geometry)
    image: Any = nibabel.load(tmp_path / "image.nii")
    voxels = np.argwhere(image.get_fdata() > 0.5 * image.get_fdata().max())
    return nibabel.affines.apply_affine(image.affine, voxels) * [-1, -1, 1], image


def assert_same_points(one: np.ndarray, other: np.ndarray) -> None:
    assert one.shape == other.shape
    distances = np.linalg.norm(one[:, None] - other[None], axis=-1)
    assert distances.min(axis=0).max() < 1e-4 and distances.min(axis=1).max() < 1e-4


@pytest.mark.parametrize("frame", [AXIAL, CORONAL, SAGITTAL, double_oblique()], ids=["ax", "cor", "sag", "oblique"])
@pytest.mark.parametrize(("encoded", "recon"), [((16, 10), (8, 8)), ((15, 11), (7, 10)), ((16, 11), (9, 11))])
@pytest.mark.parametrize(
    "steps",
    [
        {0: 0.0},
        {0: 0.0, 1: 4.0, 2: 8.0},
        {0: 0.0, 1: -5.5, 2: -11.0},
        {1: 5.0, 3: 15.0},
        {0: 5.0, 1: 15.0, 2: 0, 3: 10},
    ],
    ids=["single", "contiguous", "descending with gaps", "partial", "numbered by time"],
)
def test_points_are_found_where_they_are(tmp_path, frame, encoded, recon, steps):
    read, phase = (np.asarray(vector, float) for vector in frame)
    normal = np.cross(read, phase)
    pixel = np.array(FIELD_OF_VIEW) / encoded
    centres = {number: CENTRE + step * normal for number, step in steps.items()}
    places = [(0, 0), (-3, 2), (2, -3)]  # pixels from the centre: with two slices, they span the volume
    points = np.array(
        [centre + a * pixel[0] * read + b * pixel[1] * phase for centre in centres.values() for a, b in places]
    )
    write_points(tmp_path / "raw.h5", points, centres, (read, phase), encoded, recon)
    measured, image = found(tmp_path / "raw.h5", tmp_path)
    assert_same_points(measured, points)
    assert (image.header["sform_code"], image.header["qform_code"]) == (1, 1)
    np.testing.assert_allclose(image.get_qform(), image.get_sform(), atol=1e-4)
    assert image.shape[:2] == recon[::-1]
    distance = (
        np.ptp(list(steps.values())) / (np.ptp(list(steps)) or 1) if steps != {0: 5.0, 1: 15.0, 2: 0, 3: 10} else 5
    )
    np.testing.assert_allclose(image.header.get_zooms(), [pixel[1], pixel[0], distance or THICKNESS], rtol=1e-6)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("zero", "all are zero"),
        ("parallel", "not two right-angled"),
        ("turned", "different directions"),
        ("uneven", "do not advance in equal steps"),
    ],
)
def test_what_cannot_be_placed_is_unknown_with_a_remark(tmp_path, change, words):
    path = tmp_path / "raw.h5"
    heights = (0.0, 5.0, 17.0 if change == "uneven" else 10.0)
    centres = {number: CENTRE + np.array([0, 0, height]) for number, height in enumerate(heights)}
    write_points(path, CENTRE[None], centres, AXIAL, (16, 10), (8, 8))
    with ismrmrd.Dataset(str(path), "dataset") as dataset:
        lines = [dataset.read_acquisition(k) for k in range(dataset.number_of_acquisitions())]
        header = dataset.read_xml_header()
    for line in lines:
        if change == "zero":
            line.read_dir[:] = line.phase_dir[:] = line.slice_dir[:] = line.position[:] = (0, 0, 0)
        elif change == "parallel":
            line.phase_dir[:] = line.read_dir[:]
        elif change == "turned" and line.idx.slice == 2:
            line.read_dir[:], line.phase_dir[:] = CORONAL
    with ismrmrd.Dataset(str(tmp_path / "changed.h5"), "dataset", create_if_needed=True) as dataset:
        dataset.write_xml_header(header)
        for line in lines:
            dataset.append_acquisition(line)
    volume = read_mrd(tmp_path / "changed.h5")
    assert volume.geometry is None
    assert any(words in remark for remark in volume.remarks)


def test_slices_shifted_within_their_plane_have_no_qform(tmp_path):
    shifted = {number: CENTRE + number * np.array([1.0, 0, 5.0]) for number in range(3)}
    points = np.array([centre + np.array([3.0, 0, 0]) for centre in shifted.values()])
    write_points(tmp_path / "raw.h5", points, shifted, AXIAL, (16, 10), (8, 8))
    measured, image = found(tmp_path / "raw.h5", tmp_path)
    assert_same_points(measured, points)
    assert (image.header["sform_code"], image.header["qform_code"]) == (1, 0)


@pytest.mark.parametrize("frame", [AXIAL, double_oblique()], ids=["ax", "oblique"])
@pytest.mark.parametrize(("partitions", "kept"), [(6, 6), (7, 4), (6, 4), (7, 5)])
def test_points_of_a_slab_are_found_where_they_are(tmp_path, frame, partitions, kept):
    read, phase = (np.asarray(vector, float) for vector in frame)
    normal = np.cross(read, phase)
    (rows, cols), recon = (16, 11), (9, 10)
    pixel = np.array(FIELD_OF_VIEW) / (rows, cols)
    places = [(0, 0, 0), (-3, 2, 1), (2, -3, -1), (3, 1, 0)]
    points = np.array(
        [CENTRE + a * pixel[0] * read + b * pixel[1] * phase + c * THICKNESS * normal for a, b, c in places]
    )
    header = text((rows, cols), recon, partitions)
    full = f"<z>{partitions}</z></matrixSize>"
    where = header.rindex(full)
    header = header[:where] + f"<z>{kept}</z></matrixSize>" + header[where + len(full) :]
    limits = f"<minimum>0</minimum><maximum>{partitions - 1}</maximum><center>{partitions // 2}</center>"
    second = f"<kspace_encoding_step_2>{limits}</kspace_encoding_step_2></encodingLimits>"
    header = header.replace("</encodingLimits>", second)
    with ismrmrd.Dataset(str(tmp_path / "raw.h5"), "dataset", create_if_needed=True) as dataset:
        dataset.write_xml_header(header.encode())
        for step, partition in np.ndindex(cols, partitions):
            k = (np.arange(rows) - rows // 2)[:, None] / FIELD_OF_VIEW[0] * read
            k = k + (step - cols // 2) / FIELD_OF_VIEW[1] * phase
            k = k + (partition - partitions // 2) / (THICKNESS * partitions) * normal
            signal = np.exp(-2j * np.pi * k @ (points - CENTRE).T).sum(axis=1)
            line = ismrmrd.Acquisition.from_array(signal[None].astype(np.complex64))
            line.center_sample = rows // 2
            line.idx.kspace_encode_step_1, line.idx.kspace_encode_step_2 = step, partition
            line.position[:], line.read_dir[:], line.phase_dir[:], line.slice_dir[:] = CENTRE, read, phase, normal
            dataset.append_acquisition(line)
    measured, image = found(tmp_path / "raw.h5", tmp_path)
    assert_same_points(measured, points)
    assert image.shape == (kept, recon[1], recon[0])

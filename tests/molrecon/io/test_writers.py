"""NIfTI, submission files, the crop, and that no writer leaves a part of a file behind."""

from __future__ import annotations

import h5py
import nibabel
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from molrecon.io import atomic_path, center_crop, write_cfl, write_nifti, write_submission

IMAGE = np.arange(2 * 5 * 7, dtype=np.float64).reshape(2, 5, 7)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.b.nii.gz"])
def test_nifti_round_trip(tmp_path, name):
    write_nifti(tmp_path / name, IMAGE, (0.5, 0.75, 4.0))
    image = nibabel.Nifti1Image.from_filename(tmp_path / name)
    assert image.shape == (7, 5, 2)
    assert image.get_data_dtype() == np.float32
    np.testing.assert_array_equal(np.asarray(image.dataobj).T, IMAGE)
    assert image.header.get_zooms() == (0.75, 0.5, 4.0)
    assert image.header.get_xyzt_units()[0] == "mm"
    assert (int(image.header["sform_code"]), int(image.header["qform_code"])) == (0, 0)
    assert image.header["descrip"].item() == b"orientation unknown"
    np.testing.assert_allclose(np.abs(np.diag(np.asarray(image.affine))), (0.75, 0.5, 4.0, 1.0))
    assert [item.name for item in tmp_path.iterdir()] == [name]


def test_nifti_of_unknown_voxel_size(tmp_path):
    write_nifti(tmp_path / "a.nii", IMAGE, None)
    header = nibabel.Nifti1Image.from_filename(tmp_path / "a.nii").header
    assert header.get_zooms() == (1.0, 1.0, 1.0)
    assert header.get_xyzt_units()[0] == "unknown"
    assert header["descrip"].item() == b"orientation unknown, voxel size unknown"


def test_nifti_of_a_series(tmp_path):
    series = np.stack([IMAGE, IMAGE + 1, IMAGE + 2])
    write_nifti(tmp_path / "a.nii.gz", series, (0.5, 0.75, 4.0), 0.25)
    image = nibabel.Nifti1Image.from_filename(tmp_path / "a.nii.gz")
    assert image.shape == (7, 5, 2, 3)
    np.testing.assert_array_equal(np.asarray(image.dataobj).T, series)
    assert image.header.get_zooms() == (0.75, 0.5, 4.0, 0.25)
    assert image.header.get_xyzt_units() == ("mm", "sec")
    for wrong, seconds in ((series, None), (IMAGE, 0.25), (series, 0.0)):
        with pytest.raises(ValueError, match="write_nifti"):
            write_nifti(tmp_path / "b.nii", wrong, None, seconds)


def test_submission_round_trip(tmp_path):
    write_submission(tmp_path / "file1.h5", IMAGE)
    with h5py.File(tmp_path / "file1.h5") as file:
        assert list(file) == ["reconstruction"]
        assert file["reconstruction"].dtype == np.float32
        np.testing.assert_array_equal(file["reconstruction"][()], IMAGE)
    assert [item.name for item in tmp_path.iterdir()] == ["file1.h5"]


BAD_IMAGES = [
    (IMAGE[0], ValueError),
    (IMAGE[:0], ValueError),
    (IMAGE * np.nan, ValueError),
    (IMAGE * 1j, TypeError),
]


@pytest.mark.parametrize(("image", "error"), BAD_IMAGES)
def test_images_that_cannot_be_written(tmp_path, image, error):
    with pytest.raises(error, match="write_nifti: image"):
        write_nifti(tmp_path / "a.nii", image, None)
    with pytest.raises(error, match="write_submission: reconstruction"):
        write_submission(tmp_path / "a.h5", image)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "size", [(1.0, 1.0), (1.0, 0.0, 1.0), (1.0, -1.0, 1.0), (1.0, np.nan, 1.0), (1.0, np.inf, 1.0)]
)
def test_impossible_voxel_sizes(tmp_path, size):
    with pytest.raises(ValueError, match="voxel size"):
        write_nifti(tmp_path / "a.nii", IMAGE, size)


def test_nifti_suffix(tmp_path):
    with pytest.raises(ValueError, match=r"a\.img, expected \.nii"):
        write_nifti(tmp_path / "a.img", IMAGE, None)


def test_values_beyond_float32_are_refused(tmp_path):
    with pytest.raises(ValueError, match="float32"):
        write_nifti(tmp_path / "a.nii", IMAGE * 1e300, None)
    with pytest.raises(ValueError, match="float32"):
        write_submission(tmp_path / "a.h5", IMAGE * 1e300)


class DiskFull(OSError):
    pass


def test_a_failing_block_leaves_the_old_file(tmp_path):
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(DiskFull), atomic_path(tmp_path / "a.txt") as temporary:
        assert temporary.parent == tmp_path
        temporary.write_text("half")
        raise DiskFull
    assert [item.name for item in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "old"
    with atomic_path(tmp_path / "a.txt") as temporary:
        temporary.write_text("new")
        assert (tmp_path / "a.txt").read_text() == "old"
    assert (tmp_path / "a.txt").read_text() == "new"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("old", [False, True])
def test_no_writer_leaves_half_a_file(tmp_path, monkeypatch, old):
    def fill_disk(image, path):
        path.write_bytes(b"half")
        raise DiskFull

    if old:
        write_nifti(tmp_path / "a.nii", IMAGE, None)
        write_submission(tmp_path / "a.h5", IMAGE)
        write_cfl(tmp_path / "a", IMAGE)
    before = {item.name: item.read_bytes() for item in tmp_path.iterdir()}
    monkeypatch.setattr(nibabel, "save", fill_disk)
    monkeypatch.setattr(h5py.File, "create_dataset", lambda *_, **__: fill_disk(None, tmp_path / "scratch"))
    monkeypatch.setattr("molrecon.io.atomic.os.fsync", lambda _: fill_disk(None, tmp_path / "scratch"))
    for write in (
        lambda: write_nifti(tmp_path / "a.nii", IMAGE + 1, None),
        lambda: write_submission(tmp_path / "a.h5", IMAGE + 1),
        lambda: write_cfl(tmp_path / "a", IMAGE + 1),
    ):
        with pytest.raises(DiskFull):
            write()
        (tmp_path / "scratch").unlink(missing_ok=True)
        assert {item.name: item.read_bytes() for item in tmp_path.iterdir()} == before


@given(
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    shape=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    batch=st.lists(st.integers(1, 2), max_size=2),
)
def test_crop_keeps_the_centre(size, shape, batch):
    image = np.zeros((*batch, *size))
    # The origin of a centred Fourier transform is at index size // 2.
    image[..., size[0] // 2, size[1] // 2] = 1
    cropped = center_crop(image, shape)
    rows, cols = min(size[0], shape[0]), min(size[1], shape[1])
    assert cropped.shape == (*batch, rows, cols)
    starts = (size[0] - rows) // 2, (size[1] - cols) // 2
    np.testing.assert_array_equal(cropped, image[..., starts[0] : starts[0] + rows, starts[1] : starts[1] + cols])
    if min(shape) > 1:
        assert cropped.sum() == image.sum()


def test_crop_of_a_known_image():
    np.testing.assert_array_equal(center_crop(IMAGE, (3, 4)), IMAGE[:, 1:4, 1:5])
    np.testing.assert_array_equal(center_crop(IMAGE, (9, 3)), IMAGE[:, :, 2:5])


@pytest.mark.parametrize(
    ("image", "shape"), [(np.ones(3), (1, 1)), (IMAGE, (0, 2)), (IMAGE, (1, -2)), (IMAGE, (1, 2, 3))]
)
def test_crop_refuses(image, shape):
    with pytest.raises(ValueError, match="center_crop: image"):
        center_crop(image, shape)

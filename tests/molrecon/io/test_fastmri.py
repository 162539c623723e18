"""fastMRI files: every kind of the data sets, and every way in which one can be wrong."""

from __future__ import annotations

import hashlib
import logging

import h5py
import numpy as np
import pytest

from molrecon.io import UnreadableInput, read_fastmri, read_volume
from molrecon.io.volume import check_kspace

ATTRIBUTES = {"acquisition": "AXT2", "max": 0.5, "norm": np.float32(2), "patient_id": b"ab12", "acceleration": 4}
LINES = np.array([0, 1, 0, 0, 1, 1, 0, 0, 1, 0])


def test_multi_coil_volume(fastmri_file, kspace, header):
    data, reference = kspace(2, 3, 16, 10), np.abs(kspace(2, 8, 8)).astype(np.float32)
    path = fastmri_file(
        {"kspace": data, "ismrmrd_header": header().encode(), "reconstruction_rss": reference}, ATTRIBUTES
    )
    volume = read_volume(path)
    assert volume.path == path
    assert volume.kspace.dtype == np.complex64
    np.testing.assert_array_equal(volume.kspace, data)
    assert (volume.n_coils, volume.fully_sampled) == (3, True)
    assert volume.sampling_mask.shape == (1, 1, 10)
    assert volume.recon_shape == (8, 8)
    assert volume.voxel_size == pytest.approx((2.0, 2.5, 5.0))
    np.testing.assert_array_equal(volume.reference, reference)
    assert volume.reference_kind == "rss"
    expected = {"acquisition": "AXT2", "max": 0.5, "norm": 2.0, "patient_id": "ab12", "acceleration": 4}
    assert volume.attributes == expected
    assert volume.header == header()
    assert volume.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_single_coil_volume_has_the_esc_reference(fastmri_file, kspace, header):
    esc, rss = np.full((2, 8, 8), 1.0), np.full((2, 8, 8), 2.0)
    data = kspace(2, 16, 10)
    contents = {"kspace": data, "ismrmrd_header": header(), "reconstruction_esc": esc, "reconstruction_rss": rss}
    volume = read_fastmri(fastmri_file(contents))
    np.testing.assert_array_equal(volume.kspace[:, 0], data)
    assert (volume.n_coils, volume.reference_kind) == (1, "esc")
    np.testing.assert_array_equal(volume.reference, esc)
    del contents["reconstruction_esc"]
    assert read_fastmri(fastmri_file(contents, name="b.h5")).reference_kind == "rss"


@pytest.mark.parametrize("dtype", [bool, np.float32, np.int64])
def test_test_file_carries_its_mask(fastmri_file, kspace, dtype):
    data = kspace(2, 3, 16, 10) * LINES
    volume = read_fastmri(fastmri_file({"kspace": data.astype(np.complex64), "mask": LINES.astype(dtype)}))
    np.testing.assert_array_equal(volume.sampling_mask, LINES.astype(bool)[None, None])
    assert volume.sampling_mask.dtype == bool
    assert not volume.fully_sampled
    assert volume.reference is None
    assert volume.reference_kind is None


def test_data_outside_the_mask_are_left_out_and_the_log_says_so(fastmri_file, kspace, caplog):
    data = kspace(1, 2, 16, 10)
    with caplog.at_level(logging.WARNING):
        volume = read_fastmri(fastmri_file({"kspace": data, "mask": LINES}))
    np.testing.assert_array_equal(volume.kspace, data * LINES)
    assert "outside the mask" in caplog.text
    assert volume.left_out == {"masked samples": 6 * 16}
    assert not volume.incomplete  # the file itself asks for it


@pytest.mark.parametrize("with_mask", [False, True])
def test_no_negative_zero_tells_the_sign_of_data_left_out(fastmri_file, kspace, with_mask):
    data = (kspace(1, 2, 16, 10) * LINES).astype(np.complex64)
    assert np.signbit(data.view(np.float32)[data.view(np.float32) == 0]).any()
    volume = read_fastmri(fastmri_file({"kspace": data} | ({"mask": LINES} if with_mask else {})))
    floats = volume.kspace.view(np.float32)
    assert not np.signbit(floats[floats == 0]).any()
    np.testing.assert_array_equal(volume.sampling_mask, LINES.astype(bool)[None, None])


def test_check_kspace_for_other_readers(tmp_path, kspace):
    with pytest.raises(UnreadableInput, match=r"kspace of shape 3 x 16 x 10, expected 4 axes"):
        check_kspace(tmp_path, kspace(3, 16, 10))


def test_two_dimensional_mask(fastmri_file, kspace):
    mask = np.random.default_rng(0).random((16, 10)) < 0.4
    volume = read_fastmri(fastmri_file({"kspace": kspace(1, 2, 16, 10), "mask": mask}))
    np.testing.assert_array_equal(volume.sampling_mask, mask[None])


@pytest.mark.parametrize("stored", [None, "by slice", "of both slices together"])
def test_masks_that_differ_by_slice(fastmri_file, kspace, stored):
    masks = np.stack([LINES, np.roll(LINES, 2)]).astype(bool)[:, None]
    data = (kspace(2, 3, 16, 10) * masks[:, None]).astype(np.complex64)
    file = {
        None: {},
        "by slice": {"mask": masks},
        "of both slices together": {"mask": np.asarray(masks.any(axis=0))[0]},
    }[stored]
    volume = read_fastmri(fastmri_file({"kspace": data} | file))
    np.testing.assert_array_equal(volume.sampling_mask, masks)
    np.testing.assert_array_equal(volume.kspace, data)
    assert volume.left_out == {}


def test_coils_last_and_planes_are_told(fastmri_file, kspace):
    with pytest.raises(UnreadableInput, match=r"coils last, expected .*numpy\.moveaxis\(kspace, -1, 1\)"):
        read_fastmri(fastmri_file({"kspace": kspace(2, 40, 36, 4)}))
    with pytest.raises(UnreadableInput, match=r"single coil is kspace\[numpy.newaxis\]"):
        read_fastmri(fastmri_file({"kspace": kspace(16, 10)}, name="b.h5"))


def test_zero_padding_without_a_header_is_told(fastmri_file, kspace):
    data = np.zeros((1, 2, 24, 10), np.complex64)
    data[..., 4:20, :] = kspace(1, 2, 16, 10) * LINES
    (remark,) = read_fastmri(fastmri_file({"kspace": data})).remarks
    assert "rows 0 to 3 and 20 to 23 of 24 are zero in every column" in remark


def test_phase_encode_padding(fastmri_file, kspace, header):
    # fastMRI's rule: left = 10 // 2 - 3 = 2, right = 2 + 6 + 1 = 9.
    data = kspace(2, 3, 16, 10)
    data[..., [0, 1, 9]] = 0
    text = header(limits=(0, 6, 3))
    volume = read_fastmri(fastmri_file({"kspace": data, "ismrmrd_header": text}))
    assert (volume.attributes["padding_left"], volume.attributes["padding_right"]) == (2, 9)
    np.testing.assert_array_equal(np.flatnonzero(~volume.sampling_mask), [0, 1, 9])
    assert volume.fully_sampled
    data[..., 4] = 0
    assert not read_fastmri(fastmri_file({"kspace": data, "ismrmrd_header": text}, name="b.h5")).fully_sampled
    # A mask that also names padded columns does not make them measured.
    given = fastmri_file({"kspace": data, "ismrmrd_header": text, "mask": np.ones(10)}, name="c.h5")
    np.testing.assert_array_equal(np.flatnonzero(~read_fastmri(given).sampling_mask), [0, 1, 4, 9])


def test_padding_that_holds_data_is_no_padding(fastmri_file, kspace, header):
    volume = read_fastmri(fastmri_file({"kspace": kspace(1, 2, 16, 10), "ismrmrd_header": header(limits=(0, 6, 3))}))
    assert "padding_left" not in volume.attributes
    assert volume.sampling_mask.all()


@pytest.mark.parametrize("limits", [(0, 9, 5), (0, 3, 900), (0, -8, 5)])
def test_no_padding_or_impossible_padding(fastmri_file, kspace, header, limits):
    volume = read_fastmri(fastmri_file({"kspace": kspace(1, 2, 16, 10), "ismrmrd_header": header(limits=limits)}))
    assert "padding_left" not in volume.attributes
    assert volume.fully_sampled


def test_volume_narrower_than_its_recon_matrix(fastmri_file, kspace, header):
    text = header(encoded=(16, 6, 1), recon=(8, 8, 1), encoded_fov=(32.0, 12.0, 5.0), limits=(0, 5, 3))
    reference = np.arange(64.0).reshape(1, 8, 8)
    volume = read_fastmri(
        fastmri_file({"kspace": kspace(1, 2, 16, 6), "ismrmrd_header": text, "reconstruction_rss": reference})
    )
    assert volume.recon_shape == (8, 6)
    np.testing.assert_array_equal(volume.reference, reference[:, :, 1:7])
    assert volume.voxel_size == pytest.approx((2.0, 2.0, 5.0))


def test_reference_smaller_than_the_recon_matrix_sets_the_shape(fastmri_file, kspace, header):
    contents = {"kspace": kspace(1, 2, 16, 10), "ismrmrd_header": header(), "reconstruction_rss": np.ones((1, 7, 5))}
    volume = read_fastmri(fastmri_file(contents))
    assert volume.recon_shape == (7, 5)
    np.testing.assert_array_equal(volume.reference, np.ones((1, 7, 5)))


def test_without_header(fastmri_file, kspace):
    volume = read_fastmri(fastmri_file({"kspace": kspace(1, 2, 16, 10)}))
    assert (volume.recon_shape, volume.voxel_size, volume.header) == ((16, 10), None, None)


def test_voxel_size_of_stored_data_without_oversampling(fastmri_file, kspace, header):
    # The header says 16 encoded rows over 32 mm, kspace has the 8 of the recon matrix over 16 mm.
    volume = read_fastmri(fastmri_file({"kspace": kspace(1, 2, 8, 10), "ismrmrd_header": header()}))
    assert volume.voxel_size == pytest.approx((2.0, 2.5, 5.0))


def test_a_header_of_another_matrix_is_remarked(fastmri_file, kspace, header, caplog):
    volume = read_fastmri(fastmri_file({"kspace": kspace(1, 2, 16, 12), "ismrmrd_header": header()}))
    (remark,) = volume.remarks
    assert "12 columns of k-space, the header has 10 encoded, 8 reconstructed" in remark and remark in caplog.text
    assert read_fastmri(fastmri_file({"kspace": kspace(1, 2, 16, 10), "ismrmrd_header": header()})).remarks == ()


@pytest.mark.parametrize("fov", [(0.0, 25.0, 5.0), (32.0, float("nan"), 5.0)])
def test_voxel_size_is_unknown_without_a_field_of_view(fastmri_file, kspace, header, fov):
    volume = read_fastmri(fastmri_file({"kspace": kspace(1, 2, 16, 10), "ismrmrd_header": header(encoded_fov=fov)}))
    assert volume.voxel_size is None


def test_other_storage_of_the_same_numbers(tmp_path, kspace):
    data = kspace(2, 3, 16, 10)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("kspace", data=data.astype(">c16"), compression="gzip", chunks=(1, 1, 16, 10))
        file.attrs["array"] = np.arange(3)
        file.attrs["empty"] = h5py.Empty("f4")
    volume = read_fastmri(tmp_path / "a.h5")
    np.testing.assert_array_equal(volume.kspace, data)
    assert volume.kspace.dtype == np.dtype(np.complex64)
    assert volume.attributes == {}


def spoilt(value):
    def change(data):
        data = data.copy()
        data[0, 1, 2, 3] = value
        return data

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data[0, 0], r"shape \(16, 10\), expected \(slices, coils, rows, cols\)"),
        (lambda data: data[None], r"shape \(1, 1, 2, 16, 10\)"),
        (lambda data: data.real.copy(), "dtype float32, expected a complex dtype"),
        (lambda data: data[:, :0], "1 x 0 x 16 x 10 .*expected one or more coils"),
        (lambda data: data[:0], "expected one or more slices"),
        (lambda data: data[..., :0], "expected one or more cols"),
        (spoilt(np.nan), "NaN or infinity in the kspace of slice 0"),
        (spoilt(complex(0, np.inf)), "NaN or infinity"),
        (lambda data: data.astype(np.complex128) * 1e200, "NaN or infinity"),
        (lambda data: data * 0, "zero everywhere"),
    ],
)
def test_bad_kspace(fastmri_file, kspace, change, message):
    path = fastmri_file({"kspace": change(kspace(1, 2, 16, 10))})
    with pytest.raises(UnreadableInput, match=f"{path.name}: found .*{message}"):
        read_volume(path)


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"mask": np.ones(9)}, r"mask of shape \(9,\), expected \(10,\)"),
        ({"mask": np.ones((1, 10))}, r"mask of shape \(1, 10\)"),
        ({"mask": np.full(10, 0.5)}, "only 0 and 1"),
        ({"mask": np.full(10, np.nan)}, "only 0 and 1"),
        ({"mask": np.zeros(10)}, "keeps no measured sample"),
        ({"ismrmrd_header": "<ismrmrdHeader"}, "an ISMRMRD XML header"),
        ({"ismrmrd_header": "<html></html>"}, "without an encoding"),
        ({"ismrmrd_header": ["<html>", "</html>"]}, r"shape \(2,\).*expected a dataset with one text"),
        ({"reconstruction_rss": np.ones((2, 8, 8))}, r"reference of shape \(2, 8, 8\).*expected \(1, rows, cols\)"),
        ({"reconstruction_rss": np.ones((1, 8, 8), complex)}, "complex128"),
        ({"reconstruction_rss": np.full((1, 8, 8), np.nan)}, "NaN or infinity in the reference"),
    ],
)
def test_bad_company(fastmri_file, kspace, extra, message):
    path = fastmri_file({"kspace": kspace(1, 2, 16, 10)} | extra)
    with pytest.raises(UnreadableInput, match=message):
        read_volume(path)


def test_header_with_impossible_matrix(fastmri_file, kspace, header):
    path = fastmri_file({"kspace": kspace(1, 2, 16, 10), "ismrmrd_header": header(recon=(8, 0, 1))})
    with pytest.raises(UnreadableInput, match="reconSpace matrixSize 8 x 0 x 1"):
        read_volume(path)


def test_missing_kspace_names_what_is_there(fastmri_file):
    with pytest.raises(UnreadableInput, match=r"no kspace among \['reconstruction'\]"):
        read_volume(fastmri_file({"reconstruction": np.ones((1, 8, 8))}))


@pytest.mark.parametrize("name", ["mask", "reconstruction_rss"])
def test_text_in_place_of_numbers(fastmri_file, kspace, name):
    with pytest.raises(UnreadableInput, match=f'"{name}".*expected a dataset of numbers'):
        read_volume(fastmri_file({"kspace": kspace(1, 2, 16, 10), name: "text"}))


def test_kspace_that_is_a_group(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_group("kspace")
    with pytest.raises(UnreadableInput, match="expected a dataset of numbers"):
        read_volume(tmp_path / "a.h5")


@pytest.mark.parametrize("share", [0.02, 0.5, 0.99])
def test_truncated_file(fastmri_file, kspace, share):
    path = fastmri_file({"kspace": kspace(2, 4, 32, 20)})
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(UnreadableInput, match=path.name):
        read_volume(path)


def test_claimed_size_is_compared_with_the_file_before_it_is_allocated(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("kspace", shape=(1000, 100, 1000, 1000), dtype=np.complex64)
    with pytest.raises(UnreadableInput, match="expected a complete file"):
        read_volume(tmp_path / "a.h5")

"""k-space in .npy files and BART pairs."""

from __future__ import annotations

import hashlib
import os
import pickle
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from molrecon.io import UnreadableInput, read_bart, read_cfl, read_npy, read_volume, write_cfl

LINES = np.array([0, 1, 0, 0, 1, 1, 0, 0, 1, 0])


def save(path, array):
    np.save(path, array)
    return path


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["<c8", ">c8", "<c16"])
def test_npy_with_and_without_slices(tmp_path, kspace, order, dtype):
    data = kspace(2, 3, 16, 10)
    for stored, expected in ((data, data), (data[0], data[:1])):
        path = save(tmp_path / "a.npy", np.asarray(stored, dtype, order=order))
        volume = read_volume(path)
        np.testing.assert_array_equal(volume.kspace, expected)
        assert volume.kspace.dtype == np.dtype(np.complex64)
        assert volume.kspace.flags.c_contiguous
        assert volume.fully_sampled
        assert (volume.recon_shape, volume.voxel_size, volume.reference) == ((16, 10), None, None)
        assert volume.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_version_two_header(tmp_path, kspace):
    with (tmp_path / "a.npy").open("wb") as file:
        np.lib.format.write_array(file, kspace(3, 16, 10), version=(2, 0))
    assert read_npy(tmp_path / "a.npy").kspace.shape == (1, 3, 16, 10)


def test_mask_of_left_out_columns(tmp_path, kspace):
    data = (kspace(2, 3, 16, 10) * LINES).astype(np.complex64)
    data[0, 1] = 0  # a dead coil in one slice hides nothing
    data[:, :, 0, 4] = 0  # nor does a chance zero
    volume = read_npy(save(tmp_path / "a.npy", data))
    np.testing.assert_array_equal(volume.sampling_mask, LINES.astype(bool)[None, None])
    assert not volume.fully_sampled
    floats = volume.kspace.view(np.float32)
    assert not np.signbit(floats[floats == 0]).any()


def test_mask_of_left_out_samples(tmp_path, kspace):
    mask = np.random.default_rng(0).random((16, 10)) < 0.5
    volume = read_npy(save(tmp_path / "a.npy", (kspace(3, 16, 10) * mask).astype(np.complex64)))
    np.testing.assert_array_equal(volume.sampling_mask, mask[None])


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.ones((2, 16, 10), np.float32), "dtype float32"),
        (np.ones((16, 10), np.complex64), r"shape \(16, 10\), expected a complex .npy array \(coil, rows, cols\)"),
        (np.ones((1, 1, 2, 16, 10), np.complex64), r"shape \(1, 1, 2, 16, 10\)"),
        (np.ones((), np.complex64), r"shape \(\)"),
        (np.ones((0, 16, 10), np.complex64), "one or more coils"),
        (np.ones((2, 16, 0), np.complex64), "one or more cols"),
        (np.full((2, 16, 10), np.nan, np.complex64), "NaN or infinity"),
        (np.zeros((2, 16, 10), np.complex64), "zero everywhere"),
        (np.ones(3, [("a", "<c8")]), "dtype"),
    ],
)
def test_bad_arrays(tmp_path, array, message):
    with pytest.raises(UnreadableInput, match=message) as error:
        read_volume(save(tmp_path / "a.npy", array))
    assert str(tmp_path / "a.npy") in str(error.value)


@pytest.mark.parametrize(
    ("shape", "order", "advice"),
    [
        ((256, 256, 8), (2, 0, 1), "numpy.moveaxis(array, -1, 0)"),
        ((96, 96, 32), (2, 0, 1), "numpy.moveaxis(array, -1, 0)"),
        ((40, 36, 4), (2, 0, 1), "numpy.moveaxis(array, -1, 0)"),
        ((2, 64, 60, 8), (0, 3, 1, 2), "numpy.moveaxis(array, -1, 1)"),
        ((64, 60, 5, 8), (2, 3, 0, 1), "numpy.moveaxis(array, (2, 3), (0, 1))"),
    ],
)
def test_coils_last_are_told_with_what_mends_them(tmp_path, shape, order, advice):
    array = np.ones(shape, np.complex64)
    with pytest.raises(UnreadableInput) as error:
        read_npy(save(tmp_path / "a.npy", array))
    coils, rows, cols = shape[-3:]
    assert f"which would be {coils} coils of {rows} x {cols}" in str(error.value)
    assert "coils last" in str(error.value) and advice in str(error.value)
    mended = eval(advice, {"numpy": np, "array": array})
    assert mended.shape == tuple(shape[axis] for axis in order)
    assert read_npy(save(tmp_path / "b.npy", mended)).kspace.shape[-3:] == mended.shape[-3:]


@pytest.mark.parametrize(
    "shape", [(8, 256, 256), (128, 320, 168), (64, 128, 64), (32, 320, 32), (16, 24, 20), (20, 8, 64, 48), (4, 48, 8)]
)
def test_coils_first_are_read(tmp_path, shape):
    assert read_npy(save(tmp_path / "a.npy", np.ones(shape, np.complex64))).n_coils == shape[-3]


def test_a_plane_could_be_of_a_single_coil(tmp_path, kspace):
    with pytest.raises(UnreadableInput, match=r"one slice of a single coil is array\[numpy.newaxis\]"):
        read_npy(save(tmp_path / "a.npy", kspace(16, 10)))
    assert read_npy(save(tmp_path / "a.npy", kspace(16, 10)[np.newaxis])).n_coils == 1


def test_zero_padded_and_undersampled(tmp_path, kspace, caplog):
    data = np.zeros((2, 3, 24, 20), np.complex64)
    data[..., 4:20, 5:15] = kspace(2, 3, 16, 10) * LINES
    volume = read_npy(save(tmp_path / "a.npy", data))
    rows, columns = volume.remarks
    assert rows.startswith("rows 0 to 3 and 20 to 23 of 24 are zero in every column, as if the readout had been zero-")
    assert "the mask counts them as not measured" in rows and "kspace[..., 4:20, :]" in rows
    assert columns.startswith("columns 0 to 5 and 14 to 19 of 20 are zero, as if k-space had been zero-padded")
    assert "4 of 20 columns (acceleration 5) where 4 of 8 between them were (2)" in columns
    assert rows in caplog.text and columns in caplog.text
    assert volume.sampling_mask.shape == (1, 24, 20)
    assert read_npy(save(tmp_path / "a.npy", data[..., 4:20, 5:15])).remarks == ()


class Trap:
    """Unpickling this makes a folder."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (self.folder,)


def test_objects_are_never_unpickled(tmp_path):
    array = np.empty((1, 1, 1), object)
    array[0, 0, 0] = Trap(str(tmp_path / "sprung"))
    np.save(tmp_path / "a.npy", array, allow_pickle=True)
    with pytest.raises(UnreadableInput, match="dtype object"):
        read_volume(tmp_path / "a.npy")
    (tmp_path / "b.npy").write_bytes(pickle.dumps(Trap(str(tmp_path / "sprung"))))
    with pytest.raises(UnreadableInput):
        read_volume(tmp_path / "b.npy")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("keep", [0, 4, 9, 60, 128, 1000, -1])
def test_truncated_npy(tmp_path, kspace, keep):
    path = save(tmp_path / "a.npy", kspace(2, 16, 10))
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(UnreadableInput, match=r"a\.npy"):
        read_npy(path)


def test_surplus_bytes(tmp_path, kspace):
    path = save(tmp_path / "a.npy", kspace(2, 16, 10))
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(UnreadableInput, match="expected 2688 bytes"):
        read_npy(path)


def bart(path, kspace, axes):
    """Store kspace (slices, coils, rows, cols) with its axes as the BART dimensions `axes`."""
    dims = [1] * 16
    for axis, dim in enumerate(axes):
        dims[dim] = kspace.shape[axis]
    order = np.argsort(axes)
    write_cfl(path, kspace.transpose(order).reshape(dims))


@pytest.mark.parametrize(
    ("shape", "axes"),
    [
        ((4, 3, 8, 6), (13, 3, 0, 1)),
        ((4, 3, 8, 6), (2, 3, 0, 1)),
        ((1, 3, 8, 6), (13, 3, 1, 2)),
        ((4, 3, 8, 6), (13, 3, 1, 2)),
    ],
    ids=["slices in 13", "slices in 2", "a plane of phase encodes", "planes of phase encodes"],
)
@pytest.mark.parametrize("name", ["scan.v2.cfl", "scan.v2.hdr", "scan.v2"])
def test_bart_dimensions(tmp_path, kspace, shape, axes, name):
    data = kspace(*shape)
    bart(tmp_path / "scan.v2", data, axes)
    volume = read_volume(tmp_path / name)
    np.testing.assert_array_equal(volume.kspace, data)
    assert volume.path == tmp_path / "scan.v2.cfl"
    content = (tmp_path / "scan.v2.hdr").read_bytes() + (tmp_path / "scan.v2.cfl").read_bytes()
    assert volume.sha256 == hashlib.sha256(content).hexdigest()


def test_bart_mask(tmp_path, kspace):
    bart(tmp_path / "a", (kspace(1, 3, 8, 10) * LINES).astype(np.complex64), (13, 3, 0, 1))
    np.testing.assert_array_equal(read_bart(tmp_path / "a").sampling_mask[0, 0], LINES.astype(bool))


@pytest.mark.parametrize("dims", [(8, 6, 2, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2), (8, 6, 1, 3, 2), (1, 8, 6, 3, 1, 2)])
def test_bart_dimensions_without_a_place(tmp_path, kspace, dims):
    write_cfl(tmp_path / "a", kspace(*dims))
    with pytest.raises(UnreadableInput, match=r"more than 1 in \["):
        read_bart(tmp_path / "a")


def test_several_sets_of_maps_are_no_wrong_shape(tmp_path, kspace):
    maps = kspace(8, 6, 1, 3, 2)
    write_cfl(tmp_path / "maps", maps)
    with pytest.raises(UnreadableInput) as error:
        read_bart(tmp_path / "maps.cfl")
    assert "dimension 4 counts sets of sensitivity maps, here 2" in str(error.value)
    assert "`bart ecalib -m 1`" in str(error.value) and "`bart slice 4 0 maps maps-1`" in str(error.value)
    if shutil.which("bart") is not None:
        subprocess.run(["bart", "slice", "4", "0", "maps", "maps-1"], cwd=tmp_path, check=True, timeout=60)
        np.testing.assert_array_equal(read_bart(tmp_path / "maps-1").kspace[0], maps[:, :, 0, :, 0].transpose(2, 0, 1))


@settings(max_examples=30, deadline=None)
@given(shape=st.lists(st.integers(1, 4), min_size=1, max_size=6), seed=st.integers(0, 99))
def test_cfl_round_trip(tmp_path_factory, shape, seed):
    rng = np.random.default_rng(seed)
    array = (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(np.complex64)
    path = tmp_path_factory.mktemp("cfl") / "a"
    write_cfl(path, array)
    back = read_cfl(path)
    assert back.ndim == max([1, *(axis + 1 for axis, size in enumerate(shape) if size > 1)])
    np.testing.assert_array_equal(back.reshape(shape), array)
    assert sorted(item.name for item in path.parent.iterdir()) == ["a.cfl", "a.hdr"]


@pytest.mark.parametrize("array", [np.ones(()), np.ones((0, 2)), np.ones((1,) * 17)])
def test_write_cfl_refuses(tmp_path, array):
    with pytest.raises(ValueError, match="write_cfl: array of shape"):
        write_cfl(tmp_path / "a", array)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "a.hdr: found .*expected '# Dimensions'"),
        (b"# Dimensions\n", "a.hdr"),
        (b"# Dimensions\n8 6 x\n", "a.hdr"),
        (b"# Dimensions\n8 0 1 3\n", "a.hdr: found dimensions '8 0 1 3'"),
        (b"# Dimensions\n8 -6 1 3\n", "a.hdr"),
        (b"# Dimensions\n" + b"1 " * 17 + b"\n", "a.hdr"),
        (b"\xff\xfe# Dimensions\n8 6 1 3\n", "a.hdr"),
        (b"# Dimensions\n8 6 1 4\n", "a.cfl: found 1152 bytes, expected 1536 bytes"),
        (b"# Dimensions\n" + b"9" * 40 + b"\n", "a.cfl: found 1152 bytes"),
    ],
)
def test_bad_hdr(tmp_path, kspace, text, message):
    write_cfl(tmp_path / "a", kspace(8, 6, 1, 3))
    (tmp_path / "a.hdr").write_bytes(text)
    with pytest.raises(UnreadableInput, match=message):
        read_volume(tmp_path / "a.cfl")


@pytest.mark.parametrize("missing", ["a.cfl", "a.hdr"])
def test_half_a_pair(tmp_path, kspace, missing):
    write_cfl(tmp_path / "a", kspace(8, 6, 1, 3))
    (tmp_path / missing).unlink()
    for name in ("a.cfl", "a.hdr"):
        with pytest.raises(UnreadableInput, match=missing):
            read_volume(tmp_path / name)


@pytest.mark.skipif(shutil.which("bart") is None, reason="BART is not installed")
def test_bart_itself_writes_and_reads_the_same_array(tmp_path, kspace):
    array = kspace(8, 6, 1, 3)
    write_cfl(tmp_path / "a", array)
    subprocess.run(["bart", "flip", "1", "a", "b"], cwd=tmp_path, check=True, timeout=60, capture_output=True)
    np.testing.assert_array_equal(read_cfl(tmp_path / "b"), array[::-1])
    subprocess.run(["bart", "phantom", "-k", "-s", "4", "-x", "16", "p"], cwd=tmp_path, check=True, timeout=60)
    assert read_volume(tmp_path / "p").kspace.shape == (1, 4, 16, 16)


@pytest.mark.skipif("MOLRECON_DATA" not in os.environ, reason="MOLRECON_DATA (folder of the real data) is not set")
def test_real_brain():
    mri = Path(os.environ["MOLRECON_DATA"]) / "mri"
    full = read_volume(mri / "brain_mprage_8ch_230x180_ksp_c64.npy")
    assert full.kspace.shape == (1, 8, 230, 180)
    assert full.fully_sampled
    prospective = read_volume(mri / "brain_prospective_8ch_230x180_ksp_c64.npy")
    assert prospective.sampling_mask.shape == (1, 230, 180)
    assert 7.5 < 1 / prospective.sampling_mask.mean() < 8.5

"""Damaged files: every reader gives UnreadableInput or a valid volume, never another exception."""

from __future__ import annotations

import io
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from molrecon.io import UnreadableInput, read_volume, write_cfl

FUZZ = settings(
    max_examples=120,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def check(path: Path) -> None:
    try:
        volume = read_volume(path)
    except UnreadableInput as error:
        assert ": found " in str(error)
        return
    slices, coils, rows, cols = volume.kspace.shape
    assert min(slices, coils) >= 1
    assert volume.kspace.dtype == np.dtype(np.complex64)
    assert np.isfinite(volume.kspace.view(np.float32)).all()
    assert volume.sampling_mask.dtype == bool
    assert volume.sampling_mask.shape in [(n, m, cols) for n in (1, slices) for m in (1, rows)]
    assert volume.sampling_mask.any()
    assert not (volume.kspace * ~volume.sampling_mask[:, None]).any()
    assert 1 <= volume.recon_shape[0] <= rows
    assert 1 <= volume.recon_shape[1] <= cols
    if volume.reference is not None:
        assert volume.reference.shape == (slices, *volume.recon_shape)
        assert np.isfinite(volume.reference).all()


def damaged(content: bytes, cut: float, flips: list[tuple[float, int]]) -> bytes:
    data = bytearray(content[: round(cut * len(content))])
    for place, value in flips:
        if data:
            data[int(place * len(data))] ^= value
    return bytes(data)


# Half of the examples keep the whole length: a shortened HDF5 file is refused at once and tests little else.
CUT = st.one_of(st.just(1.0), st.floats(0, 1))
FLIPS = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), max_size=6)


@pytest.fixture(scope="module", params=["earliest", "latest"])
def fastmri_bytes(request, tmp_path_factory):
    rng = np.random.default_rng(0)
    header = (
        '<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD"><encoding>'
        + "".join(
            f"<{space}><matrixSize><x>{x}</x><y>4</y><z>1</z></matrixSize>"
            f"<fieldOfView_mm><x>{x}</x><y>4</y><z>1</z></fieldOfView_mm></{space}>"
            for space, x in (("encodedSpace", 6), ("reconSpace", 3))
        )
        + "</encoding></ismrmrdHeader>"
    )
    path = tmp_path_factory.mktemp("fuzz") / "a.h5"
    with h5py.File(path, "w", libver=request.param) as file:
        file["kspace"] = (rng.normal(size=(1, 2, 6, 4)) + 1j).astype(np.complex64)
        file["mask"] = np.array([True, False, True, True])
        file["ismrmrd_header"] = header
        file["reconstruction_rss"] = rng.random((1, 3, 4)).astype(np.float32)
        file.attrs["acquisition"] = "AXT2"
        file.attrs["max"] = 1.5
    check(path)
    return path.read_bytes()


@FUZZ
@given(cut=CUT, flips=FLIPS)
def test_fastmri(tmp_path, fastmri_bytes, cut, flips):
    path = tmp_path / "a.h5"
    path.write_bytes(damaged(fastmri_bytes, cut, flips))
    check(path)


@FUZZ
@given(cut=CUT, flips=FLIPS, version=st.sampled_from([(1, 0), (2, 0), (3, 0)]))
def test_npy(tmp_path, cut, flips, version):
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.ones((1, 2, 2), np.complex64), version)
    path = tmp_path / "a.npy"
    path.write_bytes(damaged(buffer.getvalue(), cut, flips))
    check(path)


@FUZZ
@given(cut=CUT, flips=FLIPS, suffix=st.sampled_from([".hdr", ".cfl"]))
def test_bart(tmp_path, cut, flips, suffix):
    write_cfl(tmp_path / "a", np.ones((4, 3, 1, 2), np.complex64))
    path = tmp_path / f"a{suffix}"
    path.write_bytes(damaged(path.read_bytes(), cut, flips))
    check(tmp_path / "a.cfl")


@FUZZ
@given(
    content=st.binary(max_size=200),
    start=st.sampled_from([b"", b"\x89HDF\r\n\x1a\n", b"\x93NUMPY", b"\x93NUMPY\x01\0"]),
)
def test_anything_at_all(tmp_path, content, start):
    path = tmp_path / "a"
    path.write_bytes(start + content)
    check(path)

"""Which reader gets which file, and which files a list of paths stands for."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from molrecon.io import UnreadableInput, expand_inputs, read_volume, write_cfl


def test_the_content_decides_not_the_suffix(tmp_path, fastmri_file, kspace):
    fastmri_file({"kspace": kspace(1, 2, 16, 10)}, name="a.npy")
    assert read_volume(tmp_path / "a.npy").kspace.shape == (1, 2, 16, 10)
    np.save(tmp_path / "b.npy", kspace(3, 16, 10))
    (tmp_path / "b.npy").rename(tmp_path / "b.h5")
    assert read_volume(str(tmp_path / "b.h5")).n_coils == 3


@pytest.mark.parametrize(
    ("content", "found"), [(b"", "an empty file"), (b"PK\x03\x04zip", "starts with b'PK"), (b"text", "b'text'")]
)
def test_files_of_no_known_kind(tmp_path, content, found):
    (tmp_path / "a.h5").write_bytes(content)
    with pytest.raises(UnreadableInput, match=rf"a\.h5: found .*{found}.*, expected fastMRI or ISMRMRD HDF5"):
        read_volume(tmp_path / "a.h5")


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(UnreadableInput, match=r"nothing\.h5: found no such file"):
        read_volume(tmp_path / "nothing.h5")
    with pytest.raises(UnreadableInput, match="found a folder"):
        read_volume(tmp_path)


def test_the_error_survives_the_way_between_processes():
    error = pickle.loads(pickle.dumps(UnreadableInput(Path("a.h5"), "this", "that")))  # noqa: S301
    assert str(error) == "a.h5: found this, expected that"
    assert (error.path, error.found, error.expected) == (Path("a.h5"), "this", "that")
    assert isinstance(error, ValueError)


def test_expand_inputs(tmp_path, kspace):
    for name in ("b.h5", "a.npy", "notes.txt", ".hidden.h5", "c.hdf5", "d.mrd"):
        (tmp_path / name).touch()
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "e.h5").touch()
    write_cfl(tmp_path / "k", kspace(4, 4))
    names = ["a.npy", "b.h5", "c.hdf5", "d.mrd", "k.cfl"]
    assert expand_inputs([tmp_path]) == [tmp_path / name for name in names]
    single = [str(tmp_path / "k.hdr"), tmp_path / "k.cfl", tmp_path / "missing.h5", tmp_path / "sub", tmp_path / "b.h5"]
    expected = [tmp_path / "k.cfl", tmp_path / "missing.h5", tmp_path / "sub" / "e.h5", tmp_path / "b.h5"]
    assert expand_inputs([*single, tmp_path / "b.h5"]) == expected
    assert expand_inputs([]) == []


def test_expand_inputs_refuses_an_empty_folder(tmp_path):
    with pytest.raises(UnreadableInput, match="without volumes"):
        expand_inputs([tmp_path])
    assert expand_inputs([tmp_path, "a.h5"]) == [tmp_path, Path("a.h5")]  # others go on; reading it says what is wrong
    with pytest.raises(UnreadableInput):
        read_volume(tmp_path)


def test_what_a_folder_holds_besides_is_said(tmp_path, caplog):
    for name in ("a.h5", "B.H5", "k.cfl", "k.hdr"):
        (tmp_path / name).touch()
    volumes = [tmp_path / name for name in ("B.H5", "a.h5", "k.cfl")]
    assert expand_inputs([tmp_path]) == volumes and not caplog.text  # the header belongs to its data
    (tmp_path / "notes.txt").touch()
    (tmp_path / "sub").mkdir()
    assert expand_inputs([tmp_path]) == volumes
    assert "left out: 1 other files, 1 sub-folders" in caplog.text

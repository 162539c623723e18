"""Damage that the HDF5 library itself does not survive is found before the library sees it."""

from __future__ import annotations

import struct

import h5py
import numpy as np
import pytest

from molrecon.io import UnreadableInput, read_volume
from molrecon.io.hdf5 import COLLECTION, check_heaps, own_file, read_text
from molrecon.io.mrd.records import sound

TEXT = "a text with an umlaut: ü"


def change(path, offset, value):
    """Overwrite bytes at `offset` from the start of the first heap collection."""
    content = bytearray(path.read_bytes())
    start = content.index(COLLECTION) + offset
    content[start : start + len(value)] = value
    path.write_bytes(content)


@pytest.fixture
def heap_file(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["text"] = TEXT
    return tmp_path / "a.h5"


@pytest.mark.parametrize(
    "options",
    [{}, {"chunks": (1,)}, {"chunks": (1,), "compression": "gzip"}, {"dtype": "S40"}, {"dtype": "S40", "chunks": (1,)}],
)
@pytest.mark.parametrize("userblock", [0, 512])
def test_text_however_it_is_stored(tmp_path, options, userblock):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w", userblock_size=userblock) as file:
        file.create_dataset("text", data=[TEXT.encode()] if "dtype" in options else [TEXT], **options)
        file["scalar"] = TEXT
    check_heaps(path)
    with h5py.File(path) as file:
        assert read_text(path, file["text"]) == TEXT
        assert read_text(path, file["scalar"]) == TEXT


@pytest.mark.parametrize("value", [1.0, np.ones(2), ["a", "b"]])
def test_what_is_not_one_text(tmp_path, value):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["text"] = value
        with pytest.raises(UnreadableInput, match="expected a dataset with one text"):
            read_text(tmp_path / "a.h5", file["text"])


def test_free_space_of_no_size_would_be_followed_for_ever(heap_file):
    # The entry after the text, whose 25 bytes fill 32: 16 for the collection, 16 for the entry's own header.
    change(heap_file, 16 + 16 + 32 + 8, struct.pack("<Q", 0))
    with pytest.raises(UnreadableInput, match="a heap entry of 0 bytes"):
        check_heaps(heap_file)


@pytest.mark.parametrize(
    ("offset", "value", "message"),
    [
        (8, struct.pack("<Q", 1 << 40), "a heap of 1099511627776 bytes"),
        (16 + 8, struct.pack("<Q", 1 << 60), "a heap entry of 1152921504606846976 bytes"),
        (16 + 8, struct.pack("<Q", (1 << 64) - 1), "a heap entry of"),
    ],
)
def test_heaps_that_do_not_fit(heap_file, offset, value, message):
    change(heap_file, offset, value)
    with pytest.raises(UnreadableInput, match=message):
        check_heaps(heap_file)


@pytest.mark.parametrize(("offset", "value"), [(16, b"\x07\0"), (16 + 8, struct.pack("<Q", 3)), (0, b"gcol")])
def test_text_that_is_not_in_its_heap(heap_file, offset, value):
    with h5py.File(heap_file) as file:
        file["text"]
    change(heap_file, offset, value)
    with (
        h5py.File(heap_file) as file,
        pytest.raises(UnreadableInput, match=r"heap entry"),
    ):
        read_text(heap_file, file["text"])


def test_kspace_of_a_compound_type_that_is_not_complex(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["kspace"] = np.zeros((1, 1, 4, 4), [("r", "<f8"), ("i", "<f4")])
    with pytest.raises(UnreadableInput, match="expected a dataset of numbers"):
        read_volume(tmp_path / "a.h5")


def test_readouts_of_a_compound_type_with_overlapping_fields():
    inner = np.dtype({"names": ["a", "b"], "formats": ["<f8", "<f4"], "offsets": [0, 8], "itemsize": 16})
    overlapping = np.dtype({"names": ["a", "b"], "formats": ["<f8", "<f4"], "offsets": [0, 4], "itemsize": 8})
    assert sound(np.dtype("<f4"))
    assert sound(np.dtype([("head", inner), ("position", "<f4", (3,))]))
    assert not sound(overlapping)
    assert not sound(np.dtype([("head", overlapping)]))


RECORD = np.dtype([("head", "<i4"), ("samples", h5py.vlen_dtype(np.dtype("<f4")))])


def test_records_of_a_file_that_somebody_else_closes(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        data = file.create_dataset("data", (2,), RECORD)
        for k in range(2):
            data[k] = (k, np.full(3, k, np.float32))
    somebody = h5py.File(path, "r")
    theirs = somebody["data"]
    with own_file(path) as file:
        ours = file["data"]
        somebody.close()
        assert not theirs
        np.testing.assert_array_equal(ours[1]["samples"], [1, 1, 1])

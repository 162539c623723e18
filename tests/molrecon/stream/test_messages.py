"""Messages agree with the reference library, in both directions, and the heads with its structures."""

from __future__ import annotations

import ctypes
import io

import ismrmrd
import ismrmrd.hdf5
import numpy as np
import pytest

from molrecon.stream import wire
from molrecon.stream.messages import (
    Acquisition,
    Config,
    Image,
    Skipped,
    Text,
    XmlHeader,
    encode_acquisition,
    encode_config,
    encode_image,
    encode_text,
    read_message,
)
from molrecon.stream.wire import Limits, WireError, file_reader


def message(content: bytes, **options):
    return read_message(file_reader(io.BytesIO(content)), Limits(), **options)


@pytest.mark.parametrize(
    ("dtype", "reference", "structure"),
    [
        (wire.ACQUISITION_HEAD, ismrmrd.hdf5.acquisition_header_dtype, ismrmrd.AcquisitionHeader),
        (wire.IMAGE_HEAD, ismrmrd.hdf5.image_header_dtype, ismrmrd.ImageHeader),
    ],
)
def test_heads_are_those_of_the_reference(dtype, reference, structure):
    assert dtype.itemsize == ctypes.sizeof(structure) == reference.itemsize
    assert {name: dtype.fields[name][1] for name in dtype.names} == {
        name: reference.fields[name][1] for name in reference.names
    }


def test_readouts_of_the_reference_and_back():
    samples = (np.arange(12).reshape(3, 4) + 1j).astype(np.complex64)
    written = ismrmrd.Acquisition.from_array(samples, np.ones((4, 2), np.float32))
    written.idx.slice, written.position = 7, (1, 2, 3)
    content = io.BytesIO()
    content.write(b"\xf0\x03")
    written.serialize_into(content.write)
    read = message(content.getvalue())
    assert isinstance(read, Acquisition) and read.head["idx"]["slice"] == 7
    np.testing.assert_array_equal(read.samples.view(np.complex64).reshape(3, 4), samples)
    assert encode_acquisition(read) == content.getvalue()


def test_images_are_read_by_the_reference_and_here():
    pixels = np.arange(24, dtype=np.float32).reshape(1, 1, 4, 6)
    head = np.zeros((), wire.IMAGE_HEAD)
    head["version"], head["image_index"], head["position"] = 1, 5, (1, 2, 3)
    content = encode_image(Image(head, {"DataRole": ["Image"], "Two & three": ["<2>", "3"]}, pixels))
    stream = io.BytesIO(content[2:])
    reference = ismrmrd.Image.deserialize_from(stream.read)
    np.testing.assert_array_equal(reference.data, pixels)
    assert reference.image_index == 5 and tuple(reference.getHead().matrix_size) == (6, 4, 1)
    assert ismrmrd.Meta.deserialize(reference.attribute_string)["Two & three"] == ["<2>", "3"]
    own = message(content, images=True)
    assert isinstance(own, Image) and own.meta["Two & three"] == ["<2>", "3"]
    np.testing.assert_array_equal(own.pixels, pixels)
    assert message(content) == Skipped("images")


def test_waveforms_of_the_reference_are_read_past():
    waveform = ismrmrd.Waveform.from_array(np.ones((2, 5), np.uint32))
    content = io.BytesIO()
    content.write(b"\x02\x04")
    waveform.serialize_into(content.write)
    content.write(encode_text("next"))
    read = file_reader(io.BytesIO(content.getvalue()))
    assert read_message(read, Limits()) == Skipped("waveforms")
    assert read_message(read, Limits()) == Text("next")


def test_texts_with_and_without_a_nul():
    assert message(b"\x03\x00\x03\x00\x00\x00ab\x00") == XmlHeader("ab")
    assert message(b"\x02\x00\x02\x00\x00\x00ab") == Config("ab")
    assert message(encode_config("molrecon")) == Config("molrecon")
    assert message(b"") is None
    with pytest.raises(WireError, match="UTF-8"):
        message(b"\x05\x00\x01\x00\x00\x00\xff")
    with pytest.raises(ValueError, match="expected fewer than 1024"):
        encode_config("x" * 1024)

"""MRD images say what is known of them: numbers, places, bounds and warnings."""

from __future__ import annotations

from dataclasses import replace

import h5py
import numpy as np
import pytest

from molrecon.io import Frame, read_volume
from molrecon.reconstructors.classical import ZeroFilled
from molrecon.scans.data_warnings import DataWarning
from molrecon.scans.reconstruction import reconstruct_volume
from molrecon.scans.sidecar import ModelSource
from molrecon.stream.images import ImageMaker


@pytest.fixture(scope="module")
def made(scan):
    volume = read_volume(scan)
    with h5py.File(scan, "r") as file:
        heads = file["dataset/data"].fields("head")[()]
    return volume, reconstruct_volume(volume, ZeroFilled()), heads


def test_warnings_are_with_the_images_that_they_are_of(made):
    volume, result, heads = made
    warnings = [
        DataWarning(None, "remark", None, None, "of all slices"),
        DataWarning(1, "image residual", 2.0, 1.5, "of one slice"),
    ]
    maker = ImageMaker("float32", ModelSource("model", "abc"), heads)
    first, second = maker.images(Frame(volume), replace(result, warnings=warnings), 1)
    assert first.meta["molreconWarning"] == ["remark: of all slices"]
    assert second.meta["molreconWarning"][1] == "slice 1: image residual 2 (at most 1.5): of one slice"
    assert first.meta["molreconModelSha256"] == ["abc"]
    assert "molreconErrorBound" not in first.meta  # zero-filling has none
    assert "molreconWarning" not in next(maker.images(Frame(volume), replace(result, warnings=[]), 1)).meta


def test_numbers_go_on_in_the_next_series_where_sixteen_bits_end(made):
    volume, result, heads = made
    maker = ImageMaker("uint16", ModelSource("model", None), heads)
    numbers = [
        (int(image.head["image_series_index"]), int(image.head["image_index"]))
        for image in maker.images(Frame(volume), result, 2**16 - 1)
    ]
    assert numbers == [(1, 2**16 - 1), (2, 0)]


def test_places_without_geometry_are_those_of_the_readouts(made):
    volume, result, heads = made
    maker = ImageMaker("float32", ModelSource("model", None), heads)
    placed = list(maker.images(Frame(volume), result, 1))
    unplaced = list(maker.images(Frame(replace(volume, geometry=None)), result, 1))
    for one, other in zip(placed, unplaced, strict=True):
        for name in ("position", "read_dir", "phase_dir", "slice_dir", "slice", "acquisition_time_stamp"):
            np.testing.assert_array_equal(one.head[name], other.head[name])


def test_images_of_whole_numbers_have_a_window_and_no_others_below_one(made):
    volume, result, heads = made
    whole = next(ImageMaker("uint16", ModelSource("model", None), heads).images(Frame(volume), result, 1))
    assert (whole.meta["WindowCenter"], whole.meta["WindowWidth"]) == (["2048"], ["4096"])
    small = replace(result, image=result.image / result.image.max())
    floats = next(ImageMaker("float32", ModelSource("model", None), heads).images(Frame(volume), small, 1))
    assert "WindowCenter" not in floats.meta

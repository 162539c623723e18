"""Photographs: files, and luma as MATLAB and OpenCV define it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from molrecon.io import UnreadableInput
from molrecon.io.images import luma, matlab_grey, read_image, write_image

COLOUR = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)


@pytest.mark.parametrize("image", [COLOUR, COLOUR[..., 0]], ids=["colour", "grey"])
@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif"])
def test_round_trip(image: np.ndarray, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"x{suffix}"
    write_image(path, image)
    np.testing.assert_array_equal(read_image(path), image)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_other_modes(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    Image.fromarray(COLOUR).convert("RGBA").save(path)
    np.testing.assert_array_equal(read_image(path), COLOUR)
    Image.fromarray(COLOUR[..., 0]).convert("P").save(path)
    np.testing.assert_array_equal(read_image(path), np.stack([COLOUR[..., 0]] * 3, -1))
    Image.fromarray(np.full((3, 3), 40000, np.uint16)).save(path)
    with pytest.raises(ValueError, match=r"mode I(;16)?, expected an image of 8 bits"):
        read_image(path)


def test_what_is_no_image(tmp_path: Path) -> None:
    with pytest.raises(UnreadableInput, match="no such file"):
        read_image(tmp_path / "none.png")
    (tmp_path / "x.png").write_bytes(b"something else")
    with pytest.raises(UnreadableInput, match="cannot identify"):
        read_image(tmp_path / "x.png")
    with pytest.raises(ValueError, match=r"unknown suffix '\.xyz'"):
        write_image(tmp_path / "x.xyz", COLOUR)


@settings(deadline=None)
@given(st.tuples(*[st.integers(0, 255)] * 3))
@example((189, 0, 0))
def test_luma(pixel: tuple[int, int, int]) -> None:
    image = np.array([[pixel]], np.uint8)
    exact = 0.299 * pixel[0] + 0.587 * pixel[1] + 0.114 * pixel[2]
    for convert in (luma, matlab_grey):
        # Rounding is half a level; MATLAB's weights are up to 6.4e-5 from these, 0.017 of a level at 255.
        assert abs(int(convert(image)[0, 0]) - exact) <= 0.517
    grey = np.array([[pixel[:1] * 3]], np.uint8)
    assert luma(grey)[0, 0] == matlab_grey(grey)[0, 0] == pixel[0]
    np.testing.assert_array_equal(luma(image[..., 0]), image[..., 0])


def test_luma_of_known_pixels() -> None:
    pixels = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [10, 20, 30]]], np.uint8)
    assert luma(pixels).tolist() == [[76, 150, 29, 18]]
    assert matlab_grey(pixels).tolist() == [[76, 150, 29, 18]]

"""Photographs: reading and writing 8-bit files, and the two definitions of luma that published numbers rest on."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from molrecon.io.atomic import write_atomically
from molrecon.io.volume import UnreadableInput

MATLAB_LUMA = (0.298936021293775, 0.587043074451121, 0.114020904255103)
OPENCV_LUMA = (4899, 9617, 1868)  # over 2^14


def read_image(path: str | Path) -> np.ndarray:
    """Return an 8-bit image, (rows, cols) when the file is grey and (rows, cols, 3) red, green, blue when it is not.

    Transparency is dropped.

    Raises:
        UnreadableInput: no such file, not an image, or one of more than 8 bits.
    """
    expected = "an image of 8 bits a channel"
    try:
        with Image.open(path) as image:
            if image.mode.startswith(("I", "F")):
                raise UnreadableInput(path, f"an image of mode {image.mode}", expected)
            return np.array(image.convert("L" if image.mode in ("1", "L", "LA") else "RGB"))
    except FileNotFoundError as error:
        raise UnreadableInput(path, "no such file", expected) from error
    except (OSError, UnidentifiedImageError, SyntaxError) as error:
        raise UnreadableInput(path, str(error), expected) from error


def write_image(path: str | Path, image: np.ndarray) -> None:
    """Write (rows, cols) or (rows, cols, 3) uint8 in the format that the suffix names, atomically.

    Raises:
        ValueError: an unknown suffix.
        OSError: the file cannot be written.
    """
    kind = check_suffix(path)
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format=kind)
    write_atomically(path, buffer.getbuffer())


def check_suffix(path: str | Path) -> str:
    """Return the format that a name's suffix stands for. Raises ValueError when it stands for none."""
    suffix = Path(path).suffix
    kind = Image.registered_extensions().get(suffix.lower())
    if kind is None:
        raise ValueError(f"{path}: unknown suffix {suffix!r}, expected that of an image, such as .png")
    return kind


def luma(image: np.ndarray) -> np.ndarray:
    """Return Y of YCrCb as OpenCV computes it, `(4899 R + 9617 G + 1868 B + 8192) >> 14`, uint8; grey stays grey.

    image: (rows, cols) or (rows, cols, 3) uint8. The test protocols of ISTA-Net+ and COAST use this one.
    """
    if image.ndim == 2:
        return image
    return ((image.astype(np.int64) @ np.array(OPENCV_LUMA) + 8192) >> 14).astype(np.uint8)


def matlab_grey(image: np.ndarray) -> np.ndarray:
    """Return MATLAB's rgb2gray, rounded half up, uint8; grey stays grey. The published training blocks use this one.

    image: (rows, cols) or (rows, cols, 3) uint8.
    """
    if image.ndim == 2:
        return image
    return np.floor(image.astype(np.float64) @ np.array(MATLAB_LUMA) + 0.5).astype(np.uint8)

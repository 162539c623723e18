"""The few fields of an ISMRMRD XML header that a Cartesian reconstruction needs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from molrecon.io.volume import UnreadableInput, reading
from molrecon.io.xml_text import parse_xml

__all__ = ["Header", "header_root", "padding", "padding_attributes", "parse_header", "voxel_size"]

EXPECTED = "an ISMRMRD XML header"
LIMITS = ("minimum", "maximum", "center")
TRAJECTORIES = ("cartesian", "epi", "radial", "goldenangle", "spiral", "other")  # of the ISMRMRD schema


@dataclass(frozen=True)
class Header:
    """One encoding of an ISMRMRD header; x is the readout (rows), y the phase encode (cols), z the slice.

    encoded_matrix, recon_matrix: samples (x, y, z); encoded_fov, recon_fov: mm (x, y, z), None when absent or not
    positive; phase_limits, partition_limits: (minimum, maximum, center) of kspace_encoding_step_1 and _2, None when
    absent.
    """

    encoded_matrix: tuple[int, int, int]
    recon_matrix: tuple[int, int, int]
    encoded_fov: tuple[float, float, float] | None
    recon_fov: tuple[float, float, float] | None
    phase_limits: tuple[int, int, int] | None
    trajectory: str
    calibration_mode: str
    partition_limits: tuple[int, int, int] | None = None


def parse_header(path: Path, xml: str, number: int = 0) -> Header:
    """Read one encoding of the ISMRMRD header `xml`, the first if not said otherwise; `path` is only named in errors.

    A header with a document type is refused before it is parsed. Errors quote none of the header's text, which may
    identify the subject.

    Raises UnreadableInput.
    """
    root = header_root(path, xml)
    with reading(path, EXPECTED, quote=False):
        encodings = root.findall("{*}encoding")
        if number >= len(encodings):
            which = f" {number}" if number else ""
            raise UnreadableInput(path, f"a header without an encoding{which}", EXPECTED)
        encoding = encodings[number]
        return Header(
            encoded_matrix=_matrix(path, encoding, "encodedSpace"),
            recon_matrix=_matrix(path, encoding, "reconSpace"),
            encoded_fov=_field_of_view(encoding, "encodedSpace"),
            recon_fov=_field_of_view(encoding, "reconSpace"),
            phase_limits=_limits(encoding, "kspace_encoding_step_1"),
            trajectory=_trajectory(encoding),
            calibration_mode=encoding.findtext(_path("parallelImaging", "calibrationMode"), "").strip(),
            partition_limits=_limits(encoding, "kspace_encoding_step_2"),
        )


def header_root(path: Path, xml: str) -> ElementTree.Element:
    """Return the root element of an ISMRMRD header. Raises UnreadableInput."""
    try:
        return parse_xml(xml)
    except ValueError as error:
        raise UnreadableInput(path, f"a header that is {error}", EXPECTED) from None


def padding(header: Header, cols: int) -> tuple[int, int]:
    """Acquired columns (left, right): left = encoded_y // 2 - center, right = left + maximum + 1.

    This is fastMRI's rule; (0, cols) where the header has no limits, contradicts itself, or describes another number
    of columns than `cols`.
    """
    if header.phase_limits is None or header.encoded_matrix[1] != cols:
        return 0, cols
    _, maximum, center = header.phase_limits
    left = cols // 2 - center
    right = left + maximum + 1
    left, right = max(left, 0), min(right, cols)
    return (left, right) if left < right else (0, cols)


def padding_attributes(header: Header, sampling_mask: np.ndarray) -> dict[str, str | float | int]:
    """{"padding_left", "padding_right"} where the header has padding and sampling_mask (..., cols) agrees, else {}."""
    cols = sampling_mask.shape[-1]
    left, right = padding(header, cols)
    # The data overrule the header: a column that holds samples is no padding.
    if (left, right) == (0, cols) or sampling_mask[..., :left].any() or sampling_mask[..., right:].any():
        return {}
    return {"padding_left": left, "padding_right": right}


def voxel_size(header: Header, rows: int, cols: int) -> tuple[float, float, float] | None:
    """Voxel spacing in mm (row, column, slice) of an image of kspace size (rows, cols), cropped or not; or None.

    Along an axis whose kspace size is the encoded matrix: encoded field of view / encoded matrix, since the crop to
    the recon matrix does not interpolate. Otherwise (oversampling removed before storage) recon field of view / recon
    matrix. The slice spacing is the recon one; a gap between slices is not in the header.
    """
    spacing = []
    for axis, size in enumerate((rows, cols, None)):
        encoded = header.encoded_fov is not None and size == header.encoded_matrix[axis]
        field_of_view = header.encoded_fov if encoded else header.recon_fov
        if field_of_view is None:
            return None
        spacing.append(field_of_view[axis] / (header.encoded_matrix if encoded else header.recon_matrix)[axis])
    return spacing[0], spacing[1], spacing[2]


def describe_matrix(header: Header, rows: int, cols: int) -> list[str]:
    """Return a remark for each axis of the k-space that is neither as the encoded matrix nor as the recon one."""
    return [
        f"{size} {axis} of k-space, the header has {encoded} encoded, {recon} reconstructed: the voxel size is unsure"
        for axis, size, encoded, recon in zip(
            ("rows", "columns"), (rows, cols), header.encoded_matrix, header.recon_matrix, strict=False
        )
        if size not in (encoded, recon)
    ]


def _path(*tags: str) -> str:
    return "/".join("{*}" + tag for tag in tags)


def _trajectory(encoding: ElementTree.Element) -> str:
    name = encoding.findtext("{*}trajectory", "cartesian").strip()
    return name if name.lower() in TRAJECTORIES else "unknown"


def _limits(encoding: ElementTree.Element, counter: str) -> tuple[int, int, int] | None:
    limits = [encoding.findtext(_path("encodingLimits", counter, name), "") for name in LIMITS]
    return (int(limits[0]), int(limits[1]), int(limits[2])) if all(limits) else None


def _matrix(path: Path, encoding: ElementTree.Element, space: str) -> tuple[int, int, int]:
    x, y, z = (int(encoding.findtext(_path(space, "matrixSize", axis), "0")) for axis in "xyz")
    if min(x, y, z) < 1:
        raise UnreadableInput(path, f"{space} matrixSize {x} x {y} x {z} in the header", "positive sizes")
    return x, y, z


def _field_of_view(encoding: ElementTree.Element, space: str) -> tuple[float, float, float] | None:
    x, y, z = (float(encoding.findtext(_path(space, "fieldOfView_mm", axis), "nan")) for axis in "xyz")
    return (x, y, z) if all(math.isfinite(value) and value > 0 for value in (x, y, z)) else None

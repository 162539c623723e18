"""From a reconstruction to MRD images: pixels, where they lie in the patient, and what is to be said about them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np

from molrecon.io import RawVolume
from molrecon.io.header import parse_header
from molrecon.io.mrd.purposes import OTHER_PURPOSES
from molrecon.scans.reconstruction import Reconstruction
from molrecon.scans.sidecar import ModelSource, versions
from molrecon.stream.config import Pixels
from molrecon.stream.messages import Image
from molrecon.stream.wire import IMAGE_HEAD, MAGNITUDE, VECTORS

RESEARCH = "RESEARCH ONLY - NOT FOR DIAGNOSIS"
WHITE = 4095  # of uint16 images: the brightest pixel, in the 12 bits that scanners show
COPIED = (
    "measurement_uid",
    *VECTORS,
    "acquisition_time_stamp",
    "physiology_time_stamp",
    "user_int",
    "user_float",
)
COUNTED = ("slice", "contrast", "phase", "repetition", "set")


@final
@dataclass(frozen=True, eq=False)
class Series:
    """Images in the order in which they are sent, numbered on.

    Attributes:
        pixels: their type.
        source: the model that made them.
        heads: (readouts,) of dtype ACQUISITION_HEAD, of the whole scan.
    """

    pixels: Pixels
    source: ModelSource
    heads: np.ndarray

    def images(self, volume: RawVolume, result: Reconstruction, first_index: int) -> Iterator[Image]:
        """Yield the slices of a reconstructed volume, each an image (1, 1, cols, rows): x is the readout.

        Args:
            volume: as it was read.
            result: its reconstruction.
            first_index: the number of the first image.
        """
        peak = float(result.image.max())
        scale = WHITE / peak if self.pixels == "uint16" and peak > 0 else 1.0
        for k, one in enumerate(result.image):
            values = np.rint(one * scale).astype("<u2") if self.pixels == "uint16" else one.astype("<f4")
            head = _head(volume, self.heads, k)
            head["image_index"] = (first_index + k) % 2**16
            head["image_series_index"] = 1 + (first_index + k) // 2**16
            meta = self._meta(result, k, scale, peak, head)
            yield Image(head, meta, np.ascontiguousarray(values.T)[None, None])

    def _meta(
        self, result: Reconstruction, k: int, scale: float, peak: float, head: np.ndarray
    ) -> dict[str, list[str]]:
        bound = float(result.error_bound[k])
        meta: dict[str, list[str]] = {
            "DataRole": ["Image"],
            "ImageProcessingHistory": ["molrecon", self.source.name],
            "ImageComments": [RESEARCH],
            "ImageComment": [RESEARCH],
            "SeriesDescriptionAdditional": ["molrecon"],
            "Keep_image_geometry": ["1"],
            "molreconVersion": [versions()["molrecon"]],
            "molreconModel": [self.source.name],
            "molreconConverged": [str(bool(result.converged[k])).lower()],
            "molreconSteps": [str(int(result.n_steps[k]))],
            "molreconBoundKind": [result.kind],
            "molreconScale": [repr(scale)],
        }
        if head["read_dir"].any() and head["phase_dir"].any():
            meta["ImageRowDir"] = [f"{value:.18f}" for value in head["read_dir"]]
            meta["ImageColumnDir"] = [f"{value:.18f}" for value in head["phase_dir"]]
        if self.pixels == "uint16":
            # Floats of a maximum of 1e-4 have no window of whole numbers, which is what scanners take.
            meta |= {"WindowCenter": [str(WHITE // 2 + 1)], "WindowWidth": [str(WHITE + 1)]}
        elif peak >= 16:
            meta |= {"WindowCenter": [str(round(peak / 2))], "WindowWidth": [str(round(peak))]}
        if math.isfinite(bound) and result.kind != "none":
            meta["molreconErrorBound"] = [f"{bound:.6g}"]
        if self.source.weights_sha256 is not None:
            meta["molreconModelSha256"] = [self.source.weights_sha256]
        if warnings := [str(warning) for warning in result.warnings if warning.slice in (None, k)]:
            meta["molreconWarning"] = warnings
        return meta


def _head(volume: RawVolume, heads: np.ndarray, slice_number: int) -> np.ndarray:
    """Return the head of an image, from the readout of its slice that is nearest to the centre of k-space."""
    cols = volume.kspace.shape[-1]
    limits = None if volume.header is None else parse_header(Path(volume.path), volume.header).phase_limits
    centre = cols // 2 if limits is None else limits[2]
    keep = (heads["flags"] & sum(1 << (flag - 1) for flag in OTHER_PURPOSES)) == 0
    keep &= heads["idx"]["slice"] == slice_number
    distance = np.abs(heads["idx"]["kspace_encode_step_1"].astype(int) - centre)
    head = np.zeros((), IMAGE_HEAD)
    head["version"], head["image_type"] = 1, MAGNITUDE
    if keep.any():
        nearest = heads[np.flatnonzero(keep)[np.argmin(distance[keep])]]
        for name in COPIED:
            head[name] = nearest[name]
        for name in COUNTED:
            head[name] = nearest["idx"][name]
    head["slice"] = slice_number
    if volume.voxel_size is not None:
        rows, cols = volume.recon_shape
        row_mm, column_mm, slice_mm = volume.voxel_size
        head["field_of_view"] = rows * row_mm, cols * column_mm, slice_mm
        _centre(head, volume, row_mm, column_mm)
    return head


def _centre(head: np.ndarray, volume: RawVolume, row_mm: float, column_mm: float) -> None:
    """Move the position from the voxel n // 2 of the Fourier transform to the voxel m // 2 of the image.

    They are the same voxel unless an odd number is cropped from an even one, or the reverse.
    """
    for name, spacing, full, kept in zip(
        ("read_dir", "phase_dir"), (row_mm, column_mm), volume.kspace.shape[-2:], volume.recon_shape, strict=True
    ):
        voxels = kept // 2 - (full // 2 - (full - kept) // 2)
        head["position"] = head["position"] + voxels * spacing * head[name]

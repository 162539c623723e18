"""From a reconstruction to MRD images: pixels, where they lie in the patient, and their attributes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

import numpy as np

from molrecon.io import Frame, Geometry
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
NEAR_MM = 1e-2  # of positions that are one
COUNTED = ("slice", "contrast", "phase", "repetition", "set")


@final
@dataclass(frozen=True, eq=False)
class ImageMaker:
    """Makes the images of a scan, numbered in the order in which they are sent.

    Attributes:
        pixels: their type.
        source: the model that made them.
        heads: (readouts,) of dtype ACQUISITION_HEAD, of the whole scan.
    """

    pixels: Pixels
    source: ModelSource
    heads: np.ndarray

    def images(self, frame: Frame, result: Reconstruction, first_index: int) -> Iterator[Image]:
        """Yield the slices of a reconstructed frame, each an image (1, 1, cols, rows): x is the readout.

        Args:
            frame: as it was read.
            result: its reconstruction.
            first_index: the number of the first image.
        """
        peak = float(result.image.max())
        scale = WHITE / peak if self.pixels == "uint16" and peak > 0 else 1.0
        for k, one in enumerate(result.image):
            values = np.rint(one * scale).astype("<u2") if self.pixels == "uint16" else one.astype("<f4")
            head = _head(frame, self.heads, k)
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


def _head(frame: Frame, heads: np.ndarray, k: int) -> np.ndarray:
    """Return the head of image k of a frame: where it lies, and time stamps and counters of its central readout."""
    volume = frame.volume
    central = _central(frame, heads, k)
    head = np.zeros((), IMAGE_HEAD)
    head["version"], head["image_type"], head["slice"] = 1, MAGNITUDE, k
    if central is not None:
        for name in COPIED:
            head[name] = central[name]
        for name in COUNTED:
            head[name] = central["idx"][name]
    rows, cols = volume.recon_shape
    if volume.geometry is not None:
        position, steps = _placed(volume.geometry, volume.recon_shape, k)
        lengths = np.linalg.norm(steps, axis=1)
        head["position"] = position
        head["read_dir"], head["phase_dir"], through = steps / lengths[:, None]
        if abs(float(head["slice_dir"] @ through)) < 0.99:  # else it has its own sign, whatever way the slices go
            head["slice_dir"] = through
        head["field_of_view"] = rows * lengths[0], cols * lengths[1], volume.geometry.slice_thickness
    elif volume.voxel_size is not None:
        row_mm, column_mm, slice_mm = volume.voxel_size
        head["field_of_view"] = rows * row_mm, cols * column_mm, slice_mm
    return head


def _placed(geometry: Geometry, shape: tuple[int, int], k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the position (3,) of the central voxel of slice k, and its steps (3, 3): of x, y and z as they are sent.

    x is the readout, rows here; the centre of n voxels is n // 2.
    """
    steps = np.array([geometry.row_step, geometry.column_step, geometry.slice_step])
    position: np.ndarray = geometry.origin + np.array([shape[0] // 2, shape[1] // 2, k]) @ steps
    return position, steps


def _central(frame: Frame, heads: np.ndarray, k: int) -> np.ndarray | None:
    """Return the head of the readout of image k that is nearest to the centre of k-space; None if there is none."""
    volume, idx = frame.volume, heads["idx"]
    keep = (heads["flags"] & sum(1 << (flag - 1) for flag in OTHER_PURPOSES)) == 0
    keep &= heads["encoding_space_ref"] == frame.encoding_space
    for name in ("contrast", "phase", "repetition", "set"):
        keep &= idx[name] == getattr(frame, name)
    if volume.volumetric:
        keep &= idx["slice"] == frame.slab
    if volume.geometry is not None:
        # Slices are delivered as they lie, whatever their numbers; the readouts of a 3D slab have one position.
        distances = np.linalg.norm(heads["position"] - _placed(volume.geometry, volume.recon_shape, k)[0], axis=1)
        keep &= distances <= np.min(distances[keep], initial=np.inf) + NEAR_MM
    elif (keep & (idx["slice"] == k)).any():
        keep &= idx["slice"] == k
    if not keep.any():
        return None
    distance = np.abs(idx["kspace_encode_step_1"].astype(int) - _centre(frame))
    central: np.ndarray = heads[np.flatnonzero(keep)[np.argmin(distance[keep])]]
    return central


def _centre(frame: Frame) -> int:
    """Return the number of the phase encode at the centre of k-space, by the header."""
    volume = frame.volume
    header = None if volume.header is None else parse_header(volume.path, volume.header, frame.encoding_space)
    if header is not None and header.phase_limits is not None:
        return header.phase_limits[2]
    return int(volume.kspace.shape[-1]) // 2

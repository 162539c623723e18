"""What every reader returns (`RawVolume`), what it raises (`UnreadableInput`), and the checks they share."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from molrecon.io.geometry import Geometry
from molrecon.io.large_arrays import planes
from molrecon.io.masks import canonical_mask

__all__ = [
    "RawVolume",
    "UnreadableInput",
    "check_kspace",
    "file_sha256",
    "image_data_left_out",
    "left_out_text",
    "reading",
]


# What an image is complete without, of the words that readers use in `RawVolume.left_out`.
AUXILIARY = frozenset(
    {
        "noise readouts",
        "separate calibration readouts",
        "navigator readouts",
        "phase correction readouts",
        "feedback readouts",
        "dummy readouts",
        "surface coil correction readouts",
        "phase stabilisation readouts",
        "masked samples",
    }
)


class UnreadableInput(ValueError):
    """An input file that cannot be used; the message names the file, what was found and what was expected."""

    def __init__(self, path: Path | str, found: str, expected: str) -> None:
        super().__init__(path, found, expected)
        self.path, self.found, self.expected = Path(path), found, expected

    def __str__(self) -> str:
        return f"{self.path}: found {self.found}, expected {self.expected}"


@dataclass(frozen=True, eq=False)
class RawVolume:
    """One scan as it was measured, with what its file says about it.

    kspace         (slices, coils, rows, cols) complex64, centred in both axes; rows are the readout, cols the phase
                   encodes. Samples outside `sampling_mask` are exactly +0. With a `trajectory` it is (slices, coils,
                   readouts, samples), in the order of measurement.
    sampling_mask  (slices or 1, rows or 1, cols) bool, the size 1 along slices when it is the same for all, along rows
                   when whole columns were measured or left out. (cols,) and (rows, cols) are taken too and brought
                   to this shape. Columns that were never acquired because k-space was zero-padded (asymmetric phase
                   encoding) are False too; the acquired range is then
                   attributes["padding_left"] <= column < attributes["padding_right"].
    trajectory     (slices or 1, readouts, samples, 2) float64, where each sample lies in cycles per field of view of
                   `grid`, rows first; None for samples on the grid.
    grid           (rows, cols) of the image whose k-space the samples are of; those of kspace without a trajectory.
    recon_shape    (rows, cols) of the image to deliver; never larger than grid or the reference, so that
                   `center_crop(image, recon_shape)` has exactly this shape.
    voxel_size     mm, (row, column, slice) spacing of the delivered image; None when unknown.
    geometry       where the voxels of the delivered image (slices, *recon_shape) are in the patient; None when unknown.
    reference      (slices, *recon_shape) float32 magnitude, or None.
    reference_kind "rss" (root sum of squares), "esc" (emulated single coil), or None.
    attributes     scalars from the file: acquisition, patient_id, max, norm, acceleration, num_low_frequency, ...
    header         ISMRMRD XML, or None.
    noise_covariance  (coils, coils) complex128, `E n_i conj(n_j)` of a sample of kspace as the scanner measured it in a
                   noise scan, or None.
    calibration    (slices, coils, rows, cols) complex64 measured for the coil maps alone, on the grid, zero where it
                   was not; None.
    left_out       what the file holds and `kspace` does not, in plain words, with its number: {"repetitions": 2}.
    remarks        sentences about the file that its user should read.
    volumetric     the slices are the readout positions of one 3D scan, transformed along the readout: neighbours, and
                   separate problems only because of that transform.
    sha256         hexadecimal digest of the input file (of .hdr followed by .cfl for a BART pair).

    Raises ValueError for a mask or a trajectory that does not fit kspace, and for a trajectory without a grid.
    """

    path: Path
    kspace: np.ndarray
    sampling_mask: np.ndarray
    recon_shape: tuple[int, int]
    sha256: str
    voxel_size: tuple[float, float, float] | None = None
    reference: np.ndarray | None = None
    reference_kind: str | None = None
    attributes: dict[str, str | float | int] = field(default_factory=dict)
    header: str | None = None
    left_out: Mapping[str, int] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()
    geometry: Geometry | None = None
    noise_covariance: np.ndarray | None = None
    calibration: np.ndarray | None = None
    volumetric: bool = False
    trajectory: np.ndarray | None = None
    grid: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        """Bring the mask to its one shape."""
        slices, _, rows, cols = self.kspace.shape
        object.__setattr__(self, "sampling_mask", canonical_mask(self.sampling_mask, self.kspace.shape))
        if self.trajectory is None:
            object.__setattr__(self, "grid", (rows, cols))
        elif self.grid is None or self.trajectory.shape not in ((1, rows, cols, 2), (slices, rows, cols, 2)):
            raise ValueError(
                f"RawVolume: trajectory {self.trajectory.shape} and grid {self.grid} for kspace {self.kspace.shape},"
                f" expected ({slices} or 1, {rows}, {cols}, 2) (slices, readouts, samples, axes) and (rows, cols)"
            )

    @property
    def incomplete(self) -> bool:
        """True when image data were left out, not only readouts that serve other purposes (noise, navigators, ...)."""
        return image_data_left_out(self.left_out)

    @property
    def n_coils(self) -> int:
        """Number of receive coils."""
        return int(self.kspace.shape[1])

    @property
    def fully_sampled(self) -> bool:
        """True when every sample of the acquired range was measured; zero padding does not count against it.

        A trajectory never counts as such: it has no grid that it could fill.
        """
        if self.trajectory is not None:
            return False
        left = int(self.attributes.get("padding_left") or 0)
        right = int(self.attributes.get("padding_right") or self.kspace.shape[-1])
        return bool(self.sampling_mask[..., left:right].all())


def image_data_left_out(left_out: Mapping[str, int]) -> bool:
    """Whether `RawVolume.left_out` names image data, not only readouts that serve other purposes."""
    return not AUXILIARY.issuperset(left_out)


def left_out_text(left_out: Mapping[str, int]) -> str:
    """`RawVolume.left_out` as it is printed: "2 repetitions, 1 noise readout"."""
    return ", ".join(f"{count} {words.removesuffix('s') if count == 1 else words}" for words, count in left_out.items())


@contextmanager
def reading(path: Path, expected: str, *, quote: bool = True) -> Iterator[None]:
    """Turn whatever a format library raises inside the block into UnreadableInput.

    Without `quote`, the message and the traceback hold the kind of error only, not its text, which quotes the input.
    """
    try:
        yield
    except UnreadableInput:
        raise
    except Exception as error:  # on damaged bytes the libraries raise nearly everything, to the user it is one thing
        if not quote:
            raise UnreadableInput(path, type(error).__name__, expected) from None
        raise UnreadableInput(path, f"{type(error).__name__} ({error})", expected) from error


def file_sha256(*paths: Path) -> str:
    """Hexadecimal sha256 of the files' bytes, one after the other. Raises UnreadableInput."""
    digest = hashlib.sha256()
    for path in paths:
        with reading(path, "a readable file"), path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def check_kspace(path: Path, kspace: np.ndarray) -> np.ndarray:
    """kspace (slices, coils, rows, cols) of any complex dtype -> C-contiguous, writable complex64, checked.

    Raises UnreadableInput for another rank, a real dtype, an empty axis (zero coils among them), NaN or infinity
    (also from a value beyond complex64), and data that are zero throughout.
    """
    shape = " x ".join(map(str, kspace.shape))
    if kspace.ndim != 4:
        raise UnreadableInput(path, f"kspace of shape {shape or '()'}", "4 axes (slices, coils, rows, cols)")
    if kspace.dtype.kind != "c":
        raise UnreadableInput(path, f"kspace of dtype {kspace.dtype}", "a complex dtype")
    if 0 in kspace.shape:
        axis = ("slices", "coils", "rows", "cols")[kspace.shape.index(0)]
        raise UnreadableInput(path, f"kspace of shape {shape} (slices, coils, rows, cols)", f"one or more {axis}")
    with np.errstate(over="ignore", invalid="ignore"):
        kspace = np.require(kspace, np.complex64, ["C", "W"])
    filled = False
    for number, one in enumerate(planes(kspace)):
        if not np.isfinite(one.view(np.float32)).all():
            raise UnreadableInput(path, f"NaN or infinity in the kspace of slice {number}", "finite numbers")
        filled = filled or bool(one.any())
    if not filled:
        raise UnreadableInput(path, "kspace that is zero everywhere", "measured samples")
    return kspace

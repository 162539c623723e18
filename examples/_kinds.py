"""One scan of each kind, as an MRD file with its truth: the phantom and coil maps of ismrmrd-tools.

Repetitions are written by the tool itself; what it cannot write (several contrasts, 3D, radial, spiral) by the ismrmrd
package, from the tool's phantom and maps.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import h5py
import ismrmrd
import numpy as np

from examples._mrd_files import header, measure, noise, radial, readouts, spiral, write

GENERATE = "ismrmrd_generate_cartesian_shepp_logan"
INSTALLED = shutil.which(GENERATE) is not None
LEVEL = 0.01  # of the noise, relative to the brightest pixel
COILS = 6


@dataclass(frozen=True, eq=False)
class ScanWithTruth:
    """A file, and what its images should show.

    Attributes:
        path: the file.
        truth: magnitudes by the name of the output after "NAME", "" for NAME.nii.gz; (slices, rows, cols) or (time,
            slices, rows, cols).
        sensitivity: what the images are to be divided by: the root sum of squares of the coil maps.
        placed: whether the file says where the image lies.
    """

    path: Path
    truth: dict[str, np.ndarray]
    sensitivity: np.ndarray | float = 1.0
    placed: bool = True


def generate(folder: Path, matrix: int, *options: str) -> tuple[Path, np.ndarray, np.ndarray]:
    """Return a file of the tool, and its phantom (rows, cols) and coil maps (coil, rows, cols)."""
    path = folder / "generated.h5"
    command = [GENERATE, "-m", str(matrix), "-c", str(COILS), "-o", path.name, *options]
    subprocess.run(command, cwd=folder, check=True, timeout=60, capture_output=True)
    with h5py.File(path) as file:
        phantom, maps = (file[f"dataset/{name}"][0] for name in ("phantom", "csm"))
    # The tool's arrays are (phase encode, readout).
    complex_ = (one["real"] + 1j * one["imag"] for one in (phantom, maps))
    first, second = (np.swapaxes(one, -1, -2).astype(complex) for one in complex_)
    return path, first, second


def normalised(maps: np.ndarray) -> np.ndarray:
    return maps / np.linalg.norm(maps, axis=0)


def repetitions(folder: Path, matrix: int = 64) -> ScanWithTruth:
    """Twofold undersampling that moves from repetition to repetition, as the tool writes it."""
    path, phantom, maps = generate(folder, matrix, "-a", "2", "-w", "16", "-r", "2", "-n", "0.02")
    truth = np.broadcast_to(abs(phantom), (4, 1, matrix, matrix))
    return ScanWithTruth(path, {"": truth}, np.linalg.norm(maps, axis=0), placed=False)


def contrasts(folder: Path, matrix: int = 64) -> ScanWithTruth:
    """Two echoes with the same lines, a third of all and twelve in the centre."""
    _, phantom, maps = generate(folder, matrix)
    rng = np.random.default_rng(0)
    columns = sorted({*range(0, matrix, 3), *range(matrix // 2 - 6, matrix // 2 + 6)})
    images = [phantom, np.sqrt(abs(phantom)) * 0.8]
    acquisitions = []
    for number, image in enumerate(images):
        kspace = transform(image * normalised(maps), (1, 2))
        kspace = kspace + noise(rng, LEVEL, *kspace.shape)
        acquisitions += lines(kspace[..., None], columns, contrast=number)
    path = write(folder / "contrasts.mrd", header("cartesian", (matrix, matrix)), acquisitions)
    return ScanWithTruth(path, {f"_echo-{n + 1}": abs(image)[None] for n, image in enumerate(images)})


def volume(folder: Path, matrix: int = 40, depth: int = 24) -> ScanWithTruth:
    """A 3D scan, with a quarter of its two phase encodes besides the centre."""
    _, phantom, maps = generate(folder, matrix)
    place = (np.arange(depth) - depth // 2) / depth
    image = np.stack([phantom * (abs(z) < 0.35) * (1 - z) for z in place], -1)
    coils = np.stack([maps * np.exp(1j * np.arange(1, COILS + 1) * z)[:, None, None] for z in place], -1)
    coils = normalised(coils)
    rng = np.random.default_rng(0)
    kspace = transform(image * coils, (1, 2, 3))
    kspace = kspace + noise(rng, LEVEL, *kspace.shape)
    sampled = rng.random((matrix, depth)) < 0.25
    sampled[matrix // 2 - 6 : matrix // 2 + 6, depth // 2 - 6 : depth // 2 + 6] = True
    acquisitions = [one for z in range(depth) for one in lines(kspace, np.flatnonzero(sampled[:, z]), z)]
    limits = "".join(
        f"<kspace_encoding_step_{axis}><minimum>0</minimum><maximum>{n - 1}</maximum><center>{n // 2}</center>"
        f"</kspace_encoding_step_{axis}>"
        for axis, n in ((1, matrix), (2, depth))
    )
    xml = header("cartesian", (matrix, matrix), depth=depth).replace(
        "<encodingLimits/>", f"<encodingLimits>{limits}</encodingLimits>"
    )
    return ScanWithTruth(write(folder / "volume.mrd", xml, acquisitions), {"": abs(image)})


def along_trajectory(kind: str) -> Callable[..., ScanWithTruth]:
    def make(folder: Path, matrix: int = 48) -> ScanWithTruth:
        _, phantom, maps = generate(folder, matrix)
        points = radial(24, matrix) if kind == "radial" else spiral(8, 6 * matrix, matrix)
        samples = measure(phantom * normalised(maps), points)
        samples = samples + noise(np.random.default_rng(0), LEVEL, *samples.shape)
        path = write(folder / f"{kind}.mrd", header(kind, (matrix, matrix)), readouts(samples, points / matrix))
        return ScanWithTruth(path, {"": abs(phantom)[None]})

    return make


def stack(folder: Path, matrix: int = 40, depth: int = 4) -> ScanWithTruth:
    """A stack of stars: the same spokes in every partition."""
    _, phantom, maps = generate(folder, matrix)
    points = radial(20, matrix)
    place = (np.arange(depth) - depth // 2) / depth
    image = np.stack([phantom * (1 - 0.4 * z) for z in place])
    coils = [normalised(maps * np.exp(1j * np.arange(1, COILS + 1) * z)[:, None, None]) for z in place]
    samples = np.stack([measure(one * own, points) for one, own in zip(image, coils, strict=True)])
    samples = transform(samples, (0,))
    samples = samples + noise(np.random.default_rng(0), LEVEL, *samples.shape)
    acquisitions = [
        one
        for z, partition in enumerate(samples)
        for one in readouts(partition, points / matrix, kspace_encode_step_2=z)
    ]
    path = write(folder / "stack.mrd", header("radial", (matrix, matrix), depth=depth), acquisitions)
    return ScanWithTruth(path, {"": abs(image)})


KINDS: dict[str, Callable[..., ScanWithTruth]] = {
    "repetitions": repetitions,
    "contrasts": contrasts,
    "3D": volume,
    "radial": along_trajectory("radial"),
    "spiral": along_trajectory("spiral"),
    "stack of stars": stack,
}


def transform(image: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """Return the centred orthonormal Fourier transform."""
    shifted = np.fft.fftn(np.fft.ifftshift(image, axes), axes=axes, norm="ortho")
    return np.fft.fftshift(shifted, axes)


def lines(
    kspace: np.ndarray, columns: list[int] | np.ndarray, partition: int = 0, **idx: int
) -> list[ismrmrd.Acquisition]:
    """Return the acquisitions of some columns of k-space (coil, rows, cols, partitions)."""
    found = []
    for column in columns:
        (one,) = readouts(kspace[:, None, :, column, partition], None, **idx)
        one.idx.kspace_encode_step_1, one.idx.kspace_encode_step_2 = int(column), partition
        one.center_sample = kspace.shape[1] // 2
        found.append(one)
    return found

"""Lay out the SIAT slices: 200 complex T2 brain slices, 256 x 256, packed in one file.

Where from: git clone https://github.com/yqx7150/SIAT_MRIdata200      (lsq1.mat to lsq200.mat)
Licence: none stated; "provided by Shenzhen Institutes of Advanced Technology, the Chinese Academy of Sciences".
Cite: Liu et al., Magn. Reson. Med. 83 (2020), and the other papers named there.

Result: mri/siat200_256_reim_i16.npz with x (200, 2, 256, 256) int16, the real and the imaginary part of each slice,
scaled so that its largest magnitude is 32767, in the order of the file numbers. Neighbouring files are neighbouring
slices: train on 0-159, validate on 170-199, leave the gap.

The slices are 270 x 256 or 256 x 270; the long axis is cut to its middle 256 and nothing is rotated. The packed numbers
are compared with a known hash. If yours differ the script says so and writes nothing; look at them, and then
--accept-other-packing writes them.

Run: python data_scripts/prepare_siat.py --source FOLDER --out DATA
"""

from __future__ import annotations

import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from data_scripts import _common as common
from molrecon.io import atomic_path

NAME = "mri/siat200_256_reim_i16.npz"
N_SLICES, SIZE, LARGEST = 200, 256, 32767
# Of the numbers, not of the file: a zip archive of the same numbers may have other bytes.
NUMBERS_SHA256 = "7348c1528c2113038a4f60ad33cbf6d0d526850ba771a76ccdf16eff3f13170a"


def numbers_sha256(packed: np.ndarray) -> str:
    """sha256 of the little-endian int16 numbers in C order."""
    return common.bytes_sha256(np.ascontiguousarray(packed, "<i2").tobytes())


def read_packed(path: Path) -> np.ndarray:
    """Return x of a packed file, (slices, 2, 256, 256) int16.

    Raises:
        ValueError: no such archive, or no such array in it.
    """
    try:
        with np.load(path) as archive:
            packed = archive["x"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: {error}, expected a .npz with an array x") from error
    if packed.ndim != 4 or packed.shape[1:] != (2, SIZE, SIZE) or packed.dtype != np.int16:
        found = f"x {packed.shape} {packed.dtype}"
        raise ValueError(f"{path}: found {found}, expected (slices, 2, {SIZE}, {SIZE}) int16")
    return packed


def read_slice(path: Path) -> np.ndarray:
    """Return the complex image `Img` of a MATLAB file.

    Raises:
        ValueError: the file is no MATLAB file, has no such variable, or one of another kind or size.
    """
    from scipy.io import loadmat

    try:
        image = np.asarray(loadmat(path)["Img"])
    except Exception as error:  # scipy raises nearly everything on damaged bytes
        raise ValueError(f"{path}: {type(error).__name__} ({error}), expected a MATLAB file with Img") from error
    if image.ndim != 2 or min(image.shape) < SIZE or image.dtype.kind != "c":
        found = f"Img {image.shape} {image.dtype}"
        raise ValueError(f"{path}: found {found}, expected a complex image of at least {SIZE} x {SIZE}")
    return image


def pack(image: np.ndarray) -> np.ndarray:
    """Complex image (rows, cols) -> (2, 256, 256) int16: middle part, largest magnitude 32767."""
    rows, cols = ((n - SIZE) // 2 for n in image.shape)
    middle = image[rows : rows + SIZE, cols : cols + SIZE]
    scaled = middle * (LARGEST / np.abs(middle).max())
    return np.stack([np.rint(scaled.real), np.rint(scaled.imag)]).astype(np.int16)


def prepare(source: Path, out: Path, accept_other: bool) -> common.Report:
    """Find the packed file, or pack the MATLAB files, below source."""
    target = out / NAME
    report = common.Report()
    for path in [target, *(p for p in common.files_below(source, {".npz"}) if p.name == target.name)]:
        if not path.is_file():
            continue
        try:
            digest = numbers_sha256(read_packed(path))
        except ValueError as error:
            report.corrupt.append(f"{NAME} ({error})")
            continue
        if digest != NUMBERS_SHA256:
            report.corrupt.append(f"{NAME} (the numbers in {path} have sha256 {digest}, expected {NUMBERS_SHA256})")
        elif path == target:
            return common.Report(kept=[NAME])
        else:
            common.place(path, target)
            return common.Report(placed=[NAME])
    slices = {path.name: path for path in common.files_below(source, {".mat"})}
    names = [f"lsq{number}.mat" for number in range(1, N_SLICES + 1)]
    if not any(name in slices for name in names):
        if not report.corrupt:
            report.missing.append(f"{NAME} (nor any of {names[0]} to {names[-1]}, from which it can be made)")
        return report
    report.missing += [name for name in names if name not in slices]
    packed = np.zeros((N_SLICES, 2, SIZE, SIZE), np.int16)
    for index, name in enumerate(names):
        if name in slices:
            try:
                packed[index] = pack(read_slice(slices[name]))
            except ValueError as error:
                report.corrupt.append(f"{name} ({error})")
    if report.missing or [line for line in report.corrupt if line.startswith("lsq")]:
        return report
    digest = numbers_sha256(packed)
    if digest != NUMBERS_SHA256 and not accept_other:
        found = f"the packed numbers have sha256 {digest}, expected {NUMBERS_SHA256}"
        report.corrupt.append(f"{NAME} ({found}; --accept-other-packing writes them all the same)")
        return report
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(target) as temporary:
        np.savez_compressed(temporary, x=packed)
    return common.Report(placed=[NAME])


def main(arguments: Sequence[str] | None = None) -> int:
    """Return the exit code: 0 all there, 1 files missing or corrupt, 2 bad arguments."""
    parser = common.parser(__doc__)
    parser.add_argument("--accept-other-packing", action="store_true", help="write numbers whose hash is not known")
    options = parser.parse_args(arguments)
    try:
        report = prepare(options.source, options.out, options.accept_other_packing)
    except common.Unusable as error:
        parser.error(str(error))
    return common.finish("SIAT", [report], __doc__)


if __name__ == "__main__":
    raise SystemExit(main())

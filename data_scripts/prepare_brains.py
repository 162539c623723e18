"""Lay out the brains: two 8-coil k-spaces of one head, one T1 volume, and fifty T1 slices.

Where from, under which licence:

  mri/brain_mprage_8ch_230x180_ksp_c64.npy, 8 coils, fully sampled 2D k-space of a T1 brain
      git clone https://github.com/mikgroup/espirit-matlab-examples      (data/full.cfl, data/full.hdr)
      no licence file; the package it belongs to is for educational, research and not-for-profit use
  mri/brain_prospective_8ch_230x180_ksp_c64.npy, the same head, prospectively undersampled R = 8
      git clone https://github.com/mikgroup/sigpy-mri-tutorial           (data/cartesian_ksp.npy)
      BSD-3-Clause
  mri/brain_t1_3d_188x256x190.nii.gz, magnitude, 8 bit
      git clone https://github.com/neurolabusc/niivue-images             (a T1 .nii.gz; recognised by its content)
      CC BY-NC 4.0
  mri/brain50_png/brain_test_*.png, the test slices of ISTA-Net
      git clone https://github.com/jianzhangcs/ISTA-Net-PyTorch          (data/BrainImages_test)
      none stated

Clone these into one folder and run: python data_scripts/prepare_brains.py --source FOLDER --out DATA
"""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from data_scripts import _common as common
from molrecon.io import atomic_path, read_cfl

FULL = "mri/brain_mprage_8ch_230x180_ksp_c64.npy"
PROSPECTIVE = "mri/brain_prospective_8ch_230x180_ksp_c64.npy"
# The arrays as their authors publish them, by the name of the file there.
ORIGINALS = {FULL: "full.cfl", PROSPECTIVE: "cartesian_ksp.npy"}


def coils_first(path: Path) -> np.ndarray:
    """k-space (coils, ky, kz) complex64 of a BART pair (1, ky, kz, coils) or of a .npy that has coils first already.

    Raises:
        ValueError: the file is not readable, or does not have three axes that are not 1.
    """
    if path.suffix == ".npy":
        try:
            kspace = np.squeeze(np.load(path))
        except (OSError, EOFError, ValueError) as error:
            raise ValueError(f"{path}: {error}, expected a .npy array") from error
    else:
        kspace = np.moveaxis(np.squeeze(read_cfl(path)), -1, 0)
    if kspace.ndim != 3:
        raise ValueError(f"{path}: found shape {kspace.shape}, expected coils and two axes of k-space")
    return np.ascontiguousarray(kspace, np.complex64)


def convert(source: Path, out: Path, name: str, expected: str) -> common.Report:
    """Make `name` from the authors' file below source; kept only if its bytes have the expected sha256."""
    report = common.Report()
    originals = [path for path in common.files_below(source, {".cfl", ".npy"}) if path.name == ORIGINALS[name]]
    for path in originals:
        try:
            kspace = coils_first(path)
        except ValueError as error:
            report.corrupt.append(f"{name} ({error})")
            continue
        buffer = io.BytesIO()
        np.save(buffer, kspace)
        digest = common.bytes_sha256(buffer.getvalue())
        if digest != expected:
            report.corrupt.append(f"{name} (made from {path} it has sha256 {digest}, expected {expected})")
            continue
        target = out / name
        target.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(target) as temporary:
            temporary.write_bytes(buffer.getvalue())
        return common.Report(placed=[name])
    if not originals:
        report.missing.append(f"{name} (nor {ORIGINALS[name]}, from which it can be made)")
    return report


def main(arguments: Sequence[str] | None = None) -> int:
    """Return the exit code: 0 all there, 1 files missing or corrupt, 2 bad arguments."""
    parser = common.parser(__doc__)
    options = parser.parse_args(arguments)
    try:
        checksums = common.read_checksums(common.CHECKSUMS / "brains.sha256")
        direct = common.lay_out(options.source, options.out, checksums)
        reports = [direct]
        for name in ORIGINALS:
            if name in direct.missing:
                direct.missing.remove(name)
                reports.append(convert(options.source, options.out, name, checksums[name]))
    except common.Unusable as error:
        parser.error(str(error))
    return common.finish("brains", reports, __doc__)


if __name__ == "__main__":
    raise SystemExit(main())

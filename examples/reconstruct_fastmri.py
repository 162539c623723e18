"""Reconstruct a fastMRI volume, or the sample when no path is given.

    python examples/reconstruct_fastmri.py [SCAN.h5] [--out DIR] [--model NAME_OR_FILE]

A fully sampled scan is undersampled four times first, with the mask that fastMRI gives this file name, so that there is
something to reconstruct and something to compare with.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np

from molrecon.io import RawVolume, read_volume, write_nifti
from molrecon.reconstructors.defaults import DEFAULT_MODEL
from molrecon.reconstructors.mol import MOL
from molrecon.scans.comparison import root_sum_of_squares, undersample
from molrecon.scans.metrics import psnr, ssim
from molrecon.scans.reconstruction import Reconstruction, reconstruct_volume
from molrecon.simulation.sample import write_sample
from molrecon.weights import load
from operators.masks import file_seed, random_mask

ACCELERATION, CENTER_FRACTION = 4, 0.08


def main() -> None:
    """Read the arguments, reconstruct, write one NIfTI file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scan", nargs="?", help="a fastMRI file; none: the sample")
    parser.add_argument("--out", default=".", help="folder for the image (default: here)")
    parser.add_argument("--model", default=DEFAULT_MODEL, help="packaged model or weights file (default: %(default)s)")
    args = parser.parse_args()
    run(args.scan, Path(args.out), args.model)


def run(scan: str | None, out: Path, model: str) -> Reconstruction:
    """Reconstruct `scan` (None: the sample), print how it went, and write out/NAME.nii.gz."""
    volume = read_volume(scan) if scan else sample_volume()
    measured, reference = volume, None
    if volume.fully_sampled:
        seed = file_seed(volume.path)
        mask = random_mask(volume.kspace.shape[-1], ACCELERATION, CENTER_FRACTION, seed)
        measured, reference = undersample(volume, mask, 0.0, seed), root_sum_of_squares(volume)

    result = reconstruct_volume(measured, load(model, MOL), progress=True)

    for k, (bound, steps) in enumerate(zip(result.error_bound, result.n_steps, strict=True)):
        print(f"slice {k}: within {bound:.1e} of the exact equilibrium after {steps} iterations")
    print(f"the model is {result.certificate.kind}; all slices converged: {bool(np.all(result.converged))}")
    if reference is not None:
        print(f"PSNR {psnr(reference, result.image):.2f} dB, SSIM {ssim(reference, result.image):.4f}")
    target = out / f"{volume.path.stem}.nii.gz"
    write_nifti(target, result.image, result.voxel_size)
    print(f"written: {target}")
    return result


def sample_volume() -> RawVolume:
    """Return the simulated scan of a real head, as read from the file it was written to."""
    with tempfile.TemporaryDirectory() as folder:
        return read_volume(write_sample(Path(folder) / "sample.h5"))


if __name__ == "__main__":
    main()

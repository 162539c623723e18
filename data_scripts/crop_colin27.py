"""Cut the sample's slices out of Colin27, a real head, and write the packaged `molrecon/simulation/colin27.npz`.

Usage: `MOLRECON_DATA=DATA python data_scripts/crop_colin27.py [--out FILE]`

DATA holds `mri/brain_t1_colin27_181x217x181.nii.gz`, which is `templates/ch2.nii.gz` of Debian's package mricron-data.
Copyright and permission: `molrecon/simulation/NOTICE-colin27.txt`. Voxels are copied, never changed.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # to run from a checkout that is not installed

from molrecon.io import atomic_path

SOURCE = Path("mri", "brain_t1_colin27_181x217x181.nii.gz")
PACKAGED = Path(__file__).resolve().parents[1] / "molrecon" / "simulation" / "colin27.npz"
HEIGHTS = tuple(range(-4, 32, 5))  # mm above the anterior commissure: basal ganglia to the roof of the ventricles


def cropped(path: Path) -> dict[str, np.ndarray]:
    """Return `slices` (slices, 216, 180) uint8 and their `heights` (slices,) int16, in mm, of the NIfTI file.

    Rows run from front to back, columns from the patient's right to left. The midline lies at column 90 and the middle
    of the head at row 108, where the centred Fourier transform has its origin.
    """
    image: Any = nibabel.load(path)
    volume = np.asarray(image.dataobj)  # (181, 217, 181): to the right, front and top, 1 mm
    floor = round(float(image.affine[2, 3]))
    axial = volume[:0:-1, :0:-1, [height - floor for height in HEIGHTS]]
    return {"slices": np.ascontiguousarray(axial.transpose(2, 1, 0)), "heights": np.array(HEIGHTS, np.int16)}


def main(arguments: Sequence[str] | None = None) -> int:
    """Return the exit code: 0 written, 2 bad arguments or no data."""
    parser = argparse.ArgumentParser(description="Cut the sample's slices out of Colin27.")
    parser.add_argument("--out", type=Path, default=PACKAGED, help="file to write (default: %(default)s)")
    options = parser.parse_args(arguments)
    source = Path(os.environ.get("MOLRECON_DATA", "."), SOURCE)
    if not source.is_file():
        parser.error(f"{source}: no such file, expected Colin27 there; does MOLRECON_DATA name the data folder?")
    with atomic_path(options.out) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **cropped(source))
    print(f"{options.out}: {options.out.stat().st_size / 1e3:.0f} kB")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

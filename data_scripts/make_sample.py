"""Write the sample scan, a synthetic multi-coil head in the fastMRI file format: 34 MB, some seconds, no download.

Usage: `python data_scripts/make_sample.py --out sample.h5`
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # to run from a checkout that is not installed

from molrecon.io.phantom import (
    DEFAULT_COILS,
    DEFAULT_NOISE_LEVEL,
    DEFAULT_SHAPE,
    DEFAULT_SLICES,
    make_sample_volume,
    voxel_size,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Return the exit code: 0 written, 2 bad arguments."""
    parser = argparse.ArgumentParser(description="Write a synthetic multi-coil head scan in the fastMRI file format.")
    parser.add_argument("--out", default="sample.h5", help="file to write (default: %(default)s)")
    parser.add_argument("--slices", type=int, default=DEFAULT_SLICES)
    parser.add_argument("--coils", type=int, default=DEFAULT_COILS)
    parser.add_argument("--shape", type=int, nargs=2, default=DEFAULT_SHAPE, metavar=("ROWS", "COLS"))
    parser.add_argument(
        "--noise-level",
        type=float,
        default=DEFAULT_NOISE_LEVEL,
        help="complex standard deviation per coil; fat is about 1 (default: %(default)s)",
    )
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    shape = (options.shape[0], options.shape[1])
    try:
        path = make_sample_volume(
            options.out, options.slices, options.coils, shape, noise_level=options.noise_level, seed=options.seed
        )
    except ValueError as error:
        parser.error(str(error))
    spacing = " x ".join(f"{mm:.2f}" for mm in voxel_size(options.slices, shape))
    print(
        f"{path}: {options.slices} slices, {options.coils} coils, {shape[0]} x {shape[1]} pixels, {spacing} mm,"
        f" noise level {options.noise_level}, seed {options.seed}, {path.stat().st_size / 1e6:.1f} MB"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

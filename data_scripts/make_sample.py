"""Write the sample, a simulated scan of a real head in the fastMRI file format: 46 MB, some seconds, no download.

Usage: `python data_scripts/make_sample.py --out sample.h5`
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # to run from a checkout that is not installed

from molrecon.simulation.sample import COILS, NOISE_LEVEL, SLICES, write_sample


def main(arguments: Sequence[str] | None = None) -> int:
    """Return the exit code: 0 written, 2 bad arguments."""
    parser = argparse.ArgumentParser(description="Write a simulated scan of a real head in the fastMRI file format.")
    parser.add_argument("--out", default="sample.h5", help="file to write (default: %(default)s)")
    parser.add_argument("--slices", type=int, default=SLICES, help="the middle ones of eight (default: %(default)s)")
    parser.add_argument("--coils", type=int, default=COILS)
    parser.add_argument(
        "--noise-level",
        type=float,
        default=NOISE_LEVEL,
        help="complex standard deviation per coil; fat is about 1 (default: %(default)s)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of phase, coils and noise (default: %(default)s)")
    options = parser.parse_args(arguments)
    try:
        path = write_sample(options.out, options.slices, options.coils, options.noise_level, options.seed)
    except ValueError as error:
        parser.error(str(error))
    print(
        f"{path}: {options.slices} slices, {options.coils} coils, noise level {options.noise_level},"
        f" seed {options.seed}, {path.stat().st_size / 1e6:.1f} MB"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

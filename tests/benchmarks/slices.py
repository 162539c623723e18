"""A volume of slices with one thread and with all: how near it comes to the time of its slices divided by the cores.

    MOLRECON_DATA=DATA python tests/benchmarks/slices.py [--slices 36] [--threads 2] [--model mol-guided-2d]

The slices are the real 8-coil brain, undersampled 4 times, each with a little noise of its own. One process for each
number of threads, in turn; seconds are from k-space to the image, coil maps included.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

# This script's folder is searched first, and has a file of the name of the package.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import torch

from molrecon.io import read_npy
from molrecon.reconstructors.base import Reconstructor
from molrecon.scans.scan import Scan
from molrecon.scans.scan_reconstruction import reconstruct_scan
from molrecon.scans.settings import Settings
from molrecon.weights import load
from operators import random_mask

BRAIN = "mri/brain_mprage_8ch_230x180_ksp_c64.npy"
ACCELERATION, CENTER_FRACTION, ADDED_NOISE = 4, 0.1334, 0.2  # the scan's own noise is 1.7


def undersampled(data: Path, slices: int) -> Scan:
    """Return the scan."""
    brain = read_npy(data / BRAIN).kspace[0]
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(slices, *brain.shape)) + 1j * rng.normal(size=(slices, *brain.shape))
    mask = random_mask(brain.shape[-1], ACCELERATION, CENTER_FRACTION, 0)
    return Scan.from_arrays(((brain + ADDED_NOISE * noise) * mask).astype(np.complex64))


def seconds(data: Path, slices: int, threads: int, name: str) -> float:
    """Return the time of a volume with so many threads, all slices converged."""
    torch.set_num_threads(threads)
    scan, model = undersampled(data, slices), load(name, Reconstructor)
    start = time.perf_counter()
    (found,) = reconstruct_scan(scan, model, Settings(batch_size=threads))
    if not found.result.converged.all():
        raise RuntimeError(f"slices: {name} did not converge")
    return time.perf_counter() - start


def main() -> None:
    """Print the seconds with one thread, with several, and their ratio to the ideal."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slices", type=int, default=36)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--model", default="mol-guided-2d")
    parser.add_argument("--only", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.only:
        print(seconds(Path(os.environ["MOLRECON_DATA"]), args.slices, args.only, args.model))
        return
    measured = []
    for threads in (1, args.threads):
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        command = [sys.executable, __file__, *sys.argv[1:], "--only", str(threads)]
        done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
        measured.append(float(done.stdout))
    one, several = measured
    print(f"{args.slices} slices: {one:.1f} s with one thread, {several:.1f} s with {args.threads}:", end=" ")
    print(f"{several * args.threads / one:.2f} of the time of the slices divided by the threads")


if __name__ == "__main__":
    main()

"""Reconstruct a 3D scan that is undersampled along two axes; the sample is made on the spot.

    python examples/reconstruct_3d.py [--out DIR] [--model NAME_OR_FILE] [--memory 2GiB]

The sample: the analytic head, 12 coils with known receive fields, k-space of which one in six (slice, column) lines is
measured (variable-density Poisson disc), the rows read out, noise of 0.01 of the brightest voxels. The 3D model sees
the volume as (row, slice, column), the readout first, so that the data consistency falls apart into independent
rows: `molrecon.scans.scan_reconstruction` makes one problem of it, as `molrecon reconstruct` does of an MRD file.
Written: DIR/volume.nii.gz with voxel sizes and DIR/reconstruct_3d.png: one plane of each orientation by reference,
zero-filled, CG-SENSE and MOL, and the error of MOL five times enlarged.

`--memory` plans tiles of the network inside a budget; the result is the same.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from molrecon.io import write_nifti
from molrecon.reconstructors.mol import MOL

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # to run from a checkout that is not installed

from examples._side_by_side import side_by_side
from molrecon.scans.memory import parse_size
from molrecon.simulation.phantom import coil_maps, phantom_volume, voxel_size
from molrecon.simulation.strips import Problem, measured
from molrecon.weights import load
from operators import poisson_disc_mask

MODEL = "mol-brain-3d"
SHAPE = (36, 96, 84)  # slices, rows, columns
COILS, ACCELERATION, CALIBRATION, NOISE = 12, 6.0, (12, 12), 0.01
CG_WEIGHT = 0.01  # the best of CG-SENSE on the model's training problems
TOL = 1e-3
ERROR_GAIN = 5


def make_sample(shape: tuple[int, int, int] = SHAPE, seed: int = 0) -> Problem:
    """Return a head scan of (slices, rows, columns) as (row, slice, column)."""
    slices, rows, cols = shape
    image = phantom_volume(slices, (rows, cols), seed).swapaxes(0, 1)
    fields = coil_maps(slices, COILS, (rows, cols), seed).transpose(1, 2, 0, 3)
    mask = poisson_disc_mask((slices, cols), ACCELERATION, seed, CALIBRATION)
    return measured(image, fields, torch.from_numpy(mask)[None, None], 3, NOISE, np.random.default_rng([seed, 1]))


def run(out: Path, model: str, memory: str | None = None, shape: tuple[int, int, int] = SHAPE) -> dict[str, np.ndarray]:
    """Reconstruct the sample, print how it went, write volume and picture; return magnitudes (slice, row, column)."""
    problem, spacing = make_sample(shape), voxel_size(shape[0], shape[1:])
    budget = None if memory is None else parse_size(memory)
    result = side_by_side(problem, load(model, MOL), CG_WEIGHT, axes=(1, 0, 2), tol=TOL, memory=budget)
    if result.plan:
        print(f"memory: {result.plan}")
    sampled = 1 / float(problem.operator.sampling_mask.float().mean())
    print(f"{' x '.join(map(str, shape))} voxels, {problem.kspace.shape[1]} coils, {sampled:.1f} times fewer")
    print(*result.lines(), sep="\n")
    out.mkdir(parents=True, exist_ok=True)
    write_nifti(out / "volume.nii.gz", result.magnitudes["MOL"], spacing)
    draw(result.magnitudes, spacing, out / "reconstruct_3d.png")
    print(f"written: {out / 'volume.nii.gz'}, {out / 'reconstruct_3d.png'}")
    return result.magnitudes


def draw(magnitudes: dict[str, np.ndarray], spacing: tuple[float, float, float], path: Path) -> None:
    """Write the picture: an axial, a sagittal and a coronal plane in millimetres, by method."""
    reference = magnitudes["reference"]
    error = ERROR_GAIN * np.abs(magnitudes["MOL"] - reference)
    columns = {**magnitudes, f"MOL, error x {ERROR_GAIN}": error}
    row_mm, col_mm, slice_mm = spacing
    slices, rows, cols = reference.shape
    # Up is up: slices run from low to high, rows from front to back.
    planes = (
        (lambda v: v[slices // 2], row_mm / col_mm, rows * row_mm),
        (lambda v: v[::-1, :, cols // 2 - cols // 12], slice_mm / row_mm, slices * slice_mm),
        (lambda v: v[::-1, rows // 2], slice_mm / col_mm, slices * slice_mm),
    )
    heights = [height for _, _, height in planes]
    figure = Figure(figsize=(11, 11 / len(columns) * sum(heights) / (rows * row_mm) * 1.12), facecolor="black")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(planes), len(columns), gridspec_kw={"height_ratios": heights})
    top = float(np.quantile(reference, 0.998))
    for axis, name in zip(axes[0], columns, strict=True):
        axis.set_title(name, color="white", fontsize=10)
    for line, (plane, aspect, _) in zip(axes, planes, strict=True):
        for axis, volume in zip(line, columns.values(), strict=True):
            axis.imshow(plane(volume), cmap="gray", vmin=0, vmax=top, aspect=aspect)
            axis.set_axis_off()
    figure.subplots_adjust(left=0.005, right=0.995, top=0.93, bottom=0.005, wspace=0.02, hspace=0.02)
    figure.savefig(path, dpi=100)


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(), help="folder for volume and picture (default: here)")
    parser.add_argument("--model", default=MODEL, help="packaged 3D model or weights file (default: %(default)s)")
    parser.add_argument("--memory", help="budget for the whole process, such as 2GiB; default: no limit")
    arguments = parser.parse_args()
    run(arguments.out, arguments.model, arguments.memory)


if __name__ == "__main__":
    main()

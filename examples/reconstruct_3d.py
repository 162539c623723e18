"""Reconstruct a 3D scan that is undersampled along two axes; the sample is made on the spot.

    python examples/reconstruct_3d.py [--out DIR] [--model NAME_OR_FILE] [--memory 2GiB]

The sample: the analytic head, 12 coils with known receive fields, k-space of which one in six (slice, column) lines is
measured (variable-density Poisson disc), the rows read out, noise of 0.01 of the fat's intensity. The 3D model sees
the volume as (row, slice, column), the readout first, so that the data consistency falls apart into independent
rows. Written: DIR/volume.nii.gz with voxel sizes and DIR/reconstruct_3d.png: one plane of each orientation by
reference, zero-filled, CG-SENSE and MOL, and the error of MOL five times enlarged.

`--memory` plans tiles of the network inside a budget; the result is the same.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from molrecon.classical import CGSense, zero_filled
from molrecon.io import write_nifti
from molrecon.io.phantom import coil_maps, phantom_volume, voxel_size
from molrecon.memory import fit_to_memory, plan_memory
from molrecon.metrics import psnr, ssim
from molrecon.weights import load_model
from operators import Sense, poisson_disc_mask

MODEL = "mol-brain-3d"
SHAPE = (36, 96, 84)  # slices, rows, columns
COILS, ACCELERATION, CALIBRATION, NOISE = 12, 6.0, (12, 12), 0.01
CG_WEIGHT = 0.01  # the best of CG-SENSE on the model's training problems
TOL = 1e-3
ERROR_GAIN = 5


@dataclass(frozen=True)
class Sample:
    """A simulated scan; images are (row, slice, column).

    Attributes:
        kspace: (1, coil, row, slice, column), unsampled entries zero.
        operator: A.
        reference: (row, slice, column) complex.
        noise_level: standard deviation of the complex noise.
        voxel_size: (row, column, slice) in mm.
    """

    kspace: Tensor
    operator: Sense
    reference: Tensor
    noise_level: float
    voxel_size: tuple[float, float, float]


def make_sample(shape: tuple[int, int, int] = SHAPE, seed: int = 0) -> Sample:
    """Return a head scan of (slices, rows, columns)."""
    slices, rows, cols = shape
    image = torch.from_numpy(phantom_volume(slices, (rows, cols), seed)).transpose(0, 1)
    maps = torch.from_numpy(coil_maps(slices, COILS, (rows, cols), seed)).permute(1, 2, 0, 3)
    combined = torch.linalg.vector_norm(maps, dim=0)
    reference = image * combined
    mask = poisson_disc_mask((slices, cols), ACCELERATION, seed, CALIBRATION)
    operator = Sense((maps / combined)[None].contiguous(), torch.from_numpy(mask)[None, None])
    kspace = operator(reference[None])
    noise = torch.randn(kspace.shape, dtype=kspace.dtype, generator=torch.Generator().manual_seed(seed))
    kspace = operator.sampling(kspace + NOISE * noise)
    return Sample(kspace, operator, reference, NOISE, voxel_size(slices, (rows, cols)))


@torch.no_grad()
def run(out: Path, model: str, memory: str | None = None, shape: tuple[int, int, int] = SHAPE) -> dict[str, np.ndarray]:
    """Reconstruct the sample, print how it went, write volume and picture; return magnitudes (slice, row, column)."""
    sample = make_sample(shape)
    mol = load_model(model)
    mol.tol = TOL
    if memory is not None:
        plan = plan_memory(memory, mol.network, sample.reference.shape, sample.kspace.shape[1], window=mol.window)
        print(f"memory: {plan.describe()}")
        mol = fit_to_memory(mol, plan)
    solution = mol(sample.kspace, sample.operator, sample.noise_level)
    images = {
        "reference": sample.reference,
        "zero-filled": zero_filled(sample.kspace, sample.operator)[0],
        "CG-SENSE": CGSense(CG_WEIGHT)(sample.kspace, sample.operator).value[0],
        "MOL": solution.value[0],
    }
    magnitudes = {name: image.abs().transpose(0, 1).contiguous().numpy() for name, image in images.items()}
    reference = magnitudes["reference"]
    sampled = 1 / float(sample.operator.sampling_mask.float().mean())
    print(f"{' x '.join(map(str, reference.shape))} voxels, {sample.kspace.shape[1]} coils, {sampled:.1f} times fewer")
    for name, image in magnitudes.items():
        if name != "reference":
            print(f"{name:<12} PSNR {psnr(reference, image):.2f} dB  SSIM {ssim(reference, image):.4f}")
    print(
        f"MOL is within {float(solution.error_bound):.1e} of its exact equilibrium"
        f" ({mol.certificate().kind}) after {int(solution.n_steps)} iterations"
    )
    out.mkdir(parents=True, exist_ok=True)
    write_nifti(out / "volume.nii.gz", magnitudes["MOL"], sample.voxel_size)
    draw(magnitudes, sample.voxel_size, out / "reconstruct_3d.png")
    print(f"written: {out / 'volume.nii.gz'}, {out / 'reconstruct_3d.png'}")
    return magnitudes


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

"""Reconstruct a dynamic scan, 2D+time, that is undersampled eight times; the sample is made on the spot.

    python examples/reconstruct_dynamic.py [--out DIR] [--model NAME_OR_FILE]

The sample: a slice of the analytic head into which a beating chamber is put, and through which contrast arrives: first
in the chamber, then in its wall, last and least in the tissue. Of every frame an eighth of the columns is measured, in
steps of the golden ratio from frame to frame, by 8 coils with known receive fields, with noise of 0.01 of the
brightest pixels. Written: DIR/series.nii.gz, 4D with the time step; DIR/reconstruct_dynamic.png, a frame and the line
through the chamber over time by reference, zero-filled, CG-SENSE and MOL, and the error of MOL five times enlarged;
DIR/reconstruct_dynamic.gif, the same methods in motion.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from molrecon.io import write_nifti
from molrecon.reconstructors.mol import MOL

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # to run from a checkout that is not installed

from examples._side_by_side import side_by_side
from molrecon.simulation.phantom import coil_maps, phantom_volume, voxel_size
from molrecon.simulation.strips import Problem, measured
from molrecon.weights import load
from operators import golden_kt_mask

MODEL = "mol-perfusion-2dt"
SHAPE = (16, 104, 88)  # frames, rows, columns
FRAME_SECONDS = 0.1
COILS, ACCELERATION, CENTRE, NOISE = 8, 8.0, 4, 0.01
CG_WEIGHT = 0.003  # the best of CG-SENSE on the model's training problems
TOL = 1e-3
ERROR_GAIN = 5
CHAMBER = (0.08, -0.06)  # its centre, relative to half the field of view: down, right
CHAMBER_RADIUS, WALL = 0.17, 0.07
BEATS = 2.5  # in the series


def moving_head(shape: tuple[int, int, int], seed: int = 0) -> np.ndarray:
    """Return the object (frames, rows, columns) complex64: head, beating chamber, arriving contrast."""
    frames, rows, cols = shape
    head = phantom_volume(1, (rows, cols), seed)[0]
    y, x = np.meshgrid(np.linspace(-1, 1, rows), np.linspace(-cols / rows, cols / rows, cols), indexing="ij")
    distance = np.hypot(1.15 * (y - CHAMBER[0]), x - CHAMBER[1])
    soft = 1.5 * 2 / rows
    t = np.linspace(0, 1, frames)[:, None, None]
    beat = np.sin(np.pi * BEATS * t) ** 2

    def arrived(when: float, width: float) -> np.ndarray:
        return 1 / (1 + np.exp(-(t - when) / width))

    def inside(radius: np.ndarray) -> np.ndarray:
        return np.clip(0.5 + (radius - distance) / soft, 0, 1)

    radius = CHAMBER_RADIUS * (1 - 0.35 * beat)
    # The wall keeps its area while the chamber contracts.
    outer = np.sqrt(radius**2 + (CHAMBER_RADIUS + WALL) ** 2 - CHAMBER_RADIUS**2)
    blood = 0.25 + 0.75 * arrived(0.3, 0.04)
    muscle = 0.3 + 0.3 * arrived(0.55, 0.07)
    magnitude = np.abs(head) * (1 + 0.12 * arrived(0.7, 0.1))
    magnitude = magnitude + inside(outer) * (muscle - magnitude)
    magnitude = magnitude + inside(radius) * (blood - magnitude)
    return (magnitude * np.exp(1j * np.angle(head))).astype(np.complex64)


def make_sample(shape: tuple[int, int, int] = SHAPE, seed: int = 0) -> Problem:
    """Return a scan of (frames, rows, columns)."""
    frames, rows, cols = shape
    fields = coil_maps(1, COILS, (rows, cols), seed).swapaxes(0, 1)
    mask = torch.from_numpy(golden_kt_mask(frames, cols, ACCELERATION, seed, CENTRE))[None, :, None]
    return measured(moving_head(shape, seed), fields, mask, 2, NOISE, np.random.default_rng([seed, 1]))


def run(out: Path, model: str, shape: tuple[int, int, int] = SHAPE) -> dict[str, np.ndarray]:
    """Reconstruct the sample, print how it went, write series and pictures; return magnitudes (frame, row, column)."""
    problem = make_sample(shape)
    result = side_by_side(problem, load(model, MOL), CG_WEIGHT, tol=TOL)
    frames, rows, cols = shape
    sampled = 1 / float(problem.operator.sampling_mask.float().mean())
    print(f"{frames} frames of {rows} x {cols}, {problem.kspace.shape[1]} coils, {sampled:.1f} times fewer samples")
    print(*result.lines(), sep="\n")
    out.mkdir(parents=True, exist_ok=True)
    spacing = voxel_size(1, (rows, cols))
    write_nifti(out / "series.nii.gz", result.magnitudes["MOL"][:, None], spacing, FRAME_SECONDS)
    draw(result.magnitudes, out / "reconstruct_dynamic.png")
    animate(result.magnitudes, out / "reconstruct_dynamic.gif")
    print(f"written: {out / 'series.nii.gz'}, {out / 'reconstruct_dynamic.png'}, {out / 'reconstruct_dynamic.gif'}")
    return result.magnitudes


def columns_of(magnitudes: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return what is shown side by side: the methods and the error of the last."""
    error = ERROR_GAIN * np.abs(magnitudes["MOL"] - magnitudes["reference"])
    return {**magnitudes, f"MOL, error x {ERROR_GAIN}": error}


def draw(magnitudes: dict[str, np.ndarray], path: Path) -> None:
    """Write the picture: a frame in mid-contraction, and the line through the chamber (columns) over time (down)."""
    columns = columns_of(magnitudes)
    frames, rows, cols = magnitudes["reference"].shape
    frame, line = round(0.6 * frames), round(rows * (1 + CHAMBER[0]) / 2)
    figure = Figure(figsize=(11, 11 / len(columns) * 1.35 * rows / cols * 1.1), facecolor="black")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, len(columns), gridspec_kw={"height_ratios": (1, 0.35)})
    top = float(np.quantile(magnitudes["reference"], 0.998))
    for k, (name, series) in enumerate(columns.items()):
        axes[0, k].imshow(series[frame], cmap="gray", vmin=0, vmax=top)
        axes[0, k].axhline(line, color="yellow", linewidth=0.5, alpha=0.5)
        axes[0, k].set_title(name, color="white", fontsize=10)
        axes[1, k].imshow(series[:, line], cmap="gray", vmin=0, vmax=top, aspect="auto", interpolation="nearest")
        for axis in axes[:, k]:
            axis.set_axis_off()
    figure.subplots_adjust(left=0.005, right=0.995, top=0.93, bottom=0.005, wspace=0.02, hspace=0.02)
    figure.savefig(path, dpi=100)


def animate(magnitudes: dict[str, np.ndarray], path: Path) -> None:
    """Write the series of all methods side by side as an animated GIF that repeats."""
    top = float(np.quantile(magnitudes["reference"], 0.998))
    wide = np.concatenate(list(columns_of(magnitudes).values()), axis=2)
    pictures = [
        Image.fromarray((np.clip(frame / top, 0, 1) * 255).astype(np.uint8)).resize(
            (2 * frame.shape[1], 2 * len(frame))
        )
        for frame in wide
    ]
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=round(1000 * FRAME_SECONDS), loop=0)


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(), help="folder for series and pictures (default: here)")
    parser.add_argument("--model", default=MODEL, help="packaged 2D+time model or weights file (default: %(default)s)")
    arguments = parser.parse_args()
    run(arguments.out, arguments.model)


if __name__ == "__main__":
    main()

"""Draw every kind of MRD scan as the one command reconstructs it, beside the truth.

    python examples/kinds_of_scans.py [--out DIR] [--model NAME] [--kinds KIND ...]

Needs ismrmrd-tools (the phantom, its coil maps, and files with repetitions) and the ismrmrd package (the other files):
several contrasts, 3D, radial, spiral. Each is one `molrecon reconstruct`. Written: DIR/kinds_of_scans.png, a row a kind
with zero-filled, CG-SENSE and model, their PSNR and the phantom; of volumes and series one image is shown, and all are
scored.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import nibabel
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # to run from a checkout that is not installed

from examples._kinds import INSTALLED, KINDS, ScanWithTruth
from molrecon.command.parser import main as molrecon
from molrecon.reconstructors.defaults import DEFAULT_MODEL
from molrecon.scans.metrics import psnr

INCHES = 1.9  # of an image


def reconstruct(scan: ScanWithTruth, model: str, out: Path) -> tuple[np.ndarray, float]:
    """Return the images of the scan's first output (image, rows, cols) at the truth's brightness, and their PSNR."""
    if molrecon(["reconstruct", str(scan.path), "--out", str(out), "--model", model]) != 0:
        raise RuntimeError(f"{scan.path.name}: not reconstructed by {model}")
    name, truth = next(iter(scan.truth.items()))
    written = nibabel.Nifti1Image.from_filename(out / f"{scan.path.stem}{name}.nii.gz")
    image = np.asarray(written.dataobj).T / scan.sensitivity
    image = image * float((image * truth).sum() / (image**2).sum())
    flat = (-1, *truth.shape[-2:])
    return image.reshape(flat), psnr(truth.reshape(flat).astype(np.float32), image.reshape(flat).astype(np.float32))


def draw(kinds: Sequence[str], model: str, folder: Path) -> tuple[Figure, dict[str, dict[str, float]]]:
    """Return the sheet, and PSNR by kind and method."""
    methods = ("zero-filled", "cg-sense", model)
    figure = Figure(figsize=(INCHES * 4 + 0.6, (INCHES + 0.25) * len(kinds)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(kinds), 4, squeeze=False)
    scores: dict[str, dict[str, float]] = {}
    for row, kind in zip(axes, kinds, strict=True):
        own = folder / kind
        own.mkdir()
        scan = KINDS[kind](own)
        truth = next(iter(scan.truth.values()))
        truth = truth.reshape(-1, *truth.shape[-2:])
        shown = len(truth) // 2
        scores[kind] = {}
        for place, method in zip(row, methods, strict=False):
            image, scores[kind][method] = reconstruct(scan, method, own / method)
            place.imshow(image[shown], cmap="gray", vmin=0, vmax=truth[shown].max())
            place.set_title(f"{method}, {scores[kind][method]:.1f} dB", fontsize=8)
        row[3].imshow(truth[shown], cmap="gray", vmin=0, vmax=truth[shown].max())
        row[3].set_title("phantom", fontsize=8)
        row[0].set_ylabel(kind)
        for place in row:
            place.set_xticks([])
            place.set_yticks([])
    return figure, scores


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw the sheet and print the scores; return 1 where the tool is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("."), help="folder for the picture")
    parser.add_argument("--model", default=DEFAULT_MODEL, help="a packaged model")
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS), help="default: all")
    options = parser.parse_args(arguments)
    if not INSTALLED:
        print("ismrmrd-tools is not installed: ismrmrd_generate_cartesian_shepp_logan was not found", file=sys.stderr)
        return 1
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        figure, scores = draw(options.kinds, options.model, Path(folder))
    figure.savefig(options.out / "kinds_of_scans.png", dpi=90)
    for kind, by_method in scores.items():
        print(f"{kind:<12} " + ", ".join(f"{method} {score:.2f} dB" for method, score in by_method.items()))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

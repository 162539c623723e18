"""A photograph from a tenth, a quarter and half of its numbers, as `molrecon cs` makes it, and a part of each.

python examples/cs_images.py --image PHOTO.png --figure FILE [--ratios 10 25 50] [--part ROW COL SIZE]
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from molrecon.io.images import read_image
from molrecon.sensing.find_imager import find_imager
from molrecon.sensing.photographs import sense_photograph
from molrecon.sensing.ratios import DEFAULT_IMAGER, MEASUREMENTS


def draw(images: dict[str, np.ndarray], part: tuple[int, int, int], path: Path) -> None:
    """Write images by title in a row, and below each the square of `part` (row, column, size) of it."""
    figure = Figure(figsize=(2.6 * len(images), 5.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, len(images), squeeze=False)
    row, col, size = part
    for column, (title, image) in enumerate(images.items()):
        for axis, shown in zip(axes[:, column], (image, image[row : row + size, col : col + size]), strict=True):
            axis.imshow(shown, cmap="gray", vmin=0, vmax=255)
            axis.axis("off")
        axes[0, column].set_title(title, fontsize=9)
    figure.savefig(path, dpi=80)


def main(argv: Sequence[str] | None = None) -> None:
    """Sense and reconstruct the photograph at every ratio, and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", type=Path, required=True)
    parser.add_argument("--figure", type=Path, required=True)
    parser.add_argument("--ratios", type=int, nargs="+", choices=tuple(MEASUREMENTS), default=[10, 25, 50])
    parser.add_argument("--model", default=DEFAULT_IMAGER)
    parser.add_argument("--part", type=int, nargs=3, metavar=("ROW", "COL", "SIZE"), default=[64, 96, 96])
    arguments = parser.parse_args(argv)
    photograph = read_image(arguments.image)
    images = {f"{arguments.image.stem}, all {photograph.size:,} numbers": photograph}
    for ratio in arguments.ratios:
        result = sense_photograph(photograph, find_imager(arguments.model, ratio))
        images[f"{ratio} %: {result.psnr:.1f} dB, SSIM {result.ssim:.3f}"] = result.image
    draw(images, tuple(arguments.part), arguments.figure)


if __name__ == "__main__":
    main()

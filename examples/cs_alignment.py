"""The alignment `|Phi u - y| / |y|` with the measurements, before and after the network of every stage.

    python examples/cs_alignment.py --model GDM.safetensors --model GIN.safetensors [--set set11] [--figure FILE]

`--published R` adds the authors' ISTA-Net+ at R per cent. Before: u = x_k - rho_k g_k, what the network refines.
After: u = x_{k+1}. Means over the images of the set. DATA is --data, or MOLRECON_DATA.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from molrecon.sensing.alignment import alignment
from molrecon.sensing.assembly import names
from molrecon.sensing.equilibrium_stage import EquilibriumStage
from molrecon.sensing.imager import BlockImager
from molrecon.sensing.published_ista import load_published_imager
from molrecon.sensing.training import benchmark_images
from molrecon.weights import load

Curves = dict[str, tuple[np.ndarray, np.ndarray]]


def mean_alignment(imager: BlockImager, images: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return alignment before and after each stage's network, (stages,), means over images (rows, cols) uint8."""
    curves = []
    if isinstance(imager.model, EquilibriumStage):
        raise TypeError("mean_alignment: an imager at equilibrium, expected one of several stages")
    for image in images:
        x = torch.from_numpy(image)[None].float() / 255
        curves.append(alignment(imager.model, *imager.problem(imager.measure(x), (image.shape[0], image.shape[1]))))
    before, after = (torch.stack(part).mean(0).numpy() for part in zip(*curves, strict=True))
    return before, after


def draw(curves: Curves, path: Path) -> None:
    """Write one line a model: every stage is a point before its network and one after it."""
    figure = Figure(figsize=(7, 4.8), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for name, (before, after) in curves.items():
        stages = np.arange(1, len(before) + 1)
        (points,) = axes.semilogy(stages, after, "o-", label=f"{name}, after the network")
        axes.semilogy(stages, before, "o:", color=points.get_color(), fillstyle="none", label=f"{name}, before")
    axes.set_xlabel("stage")
    axes.set_ylabel("|Phi u - y| / |y|")
    axes.set_ylim(bottom=1e-3)  # x_0 of the block models meets the measurements to rounding, far below
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(loc="outside upper center", ncols=2, fontsize=8)
    figure.savefig(path, dpi=110)


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table; write JSON and figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("MOLRECON_DATA"))
    parser.add_argument("--model", action="append", default=[], metavar="NAME_OR_FILE")
    parser.add_argument("--published", type=int, metavar="R")
    parser.add_argument("--set", choices=("set11", "bsd68", "bsd68_cropped"), default="set11")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args(argv)
    if arguments.data is None:
        parser.error("--data is missing and MOLRECON_DATA is not set, expected the data folder")
    torch.set_num_threads(arguments.threads)
    imagers: dict[str, BlockImager] = {}
    if arguments.published:
        folder = arguments.data / "published" / "ista_net_plus"
        imagers[f"published ISTA-Net+ {arguments.published} %"] = load_published_imager(folder, arguments.published)
    for model in arguments.model:
        imager = load(model, BlockImager)
        imagers[f"{Path(model).stem} ({names(imager.model)[1]})"] = imager
    images = benchmark_images(arguments.data, arguments.set)
    curves: Curves = {}
    for name, imager in imagers.items():
        curves[name] = mean_alignment(imager, images)
        print(name)
        for title, values in zip(("before", "after"), curves[name], strict=True):
            print(f"  {title:6}", " ".join(f"{value:.4f}" for value in values))
    if arguments.json:
        content = {name: {"before": b.tolist(), "after": a.tolist()} for name, (b, a) in curves.items()}
        arguments.json.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    if arguments.figure:
        draw(curves, arguments.figure)


if __name__ == "__main__":
    main()

"""Sparse codes layer by layer: the packaged networks of the LISTA family beside ISTA and FISTA.

    python examples/sparse_coding.py [--figure FILE] [--json FILE] [--data DATA] [--model FILE ...] [--arms FILE ...]

Benchmark: 1000 codes of 500 entries, 10 % of them nonzero, from 250 numbers, without noise and at 20 dB; the NMSE in
dB, pooled over codes and as a mean of dB (see `molrecon.descent.sparse`). Patches: 8 x 8 pixels of photographs, 143
cosines, ten layers; the distance `20 log10(E|y_l - y*| / E|y*|)` to the optimum y* of the lasso, which FISTA finds
to 1e-10. They are cut from a photograph that ships with scikit-image, or with --data from BSD68.

--model adds networks to the packaged ones, --arms the mean distances of FOLDER/arms.json of `train_descent.py patches`.
`examples/train_sparse_coding.py` trains the networks of the benchmark, `examples/train_descent.py` those of patches.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from molrecon.descent.lista import CodeNetwork
from molrecon.descent.sparse import FISTA, ISTA, nmse_by_layer
from molrecon.descent.sparse_problems import (
    REDUCTION,
    REGULARISATION,
    TEST,
    WINDOW,
    BernoulliGaussian,
    Patches,
    draw_patches,
    image_split,
    patch_dictionary,
    stream,
)
from molrecon.solvers.batched import norm
from molrecon.weights import available_models, load, load_card
from operators import Dense

Curves = dict[str, np.ndarray]  # name: dB by layer, the last entry of the last layer

CODES, PATCHES = 1000, 300
BENCHMARK_REGULARISATION = 0.2  # mu of ISTA and FISTA: the best of a few for sixteen iterations
DISTANCE = "distance to the lasso's optimum, patches"
AT_START = 1e-3  # dB of a distance relative to itself, mean over seeds in rounded numbers
PIXELS = (WINDOW // REDUCTION) ** 2


def benchmark(networks: Mapping[str, CodeNetwork], snr_db: float | None) -> tuple[Curves, Curves]:
    """Return the NMSE by layer, (pooled, mean of dB), of networks and of ISTA and FISTA with as many iterations."""
    pooled: Curves = {}
    mean: Curves = {}
    for name, model in networks.items():
        dictionary = model.dictionary
        codes, measurements = BernoulliGaussian(dictionary, snr_db=snr_db).draw(CODES, stream(0, TEST))
        operator = Dense(dictionary)
        if not pooled:
            for solver in (ISTA, FISTA):
                iterates = solver(BENCHMARK_REGULARISATION).stages(measurements, operator)
                title = solver.__name__
                pooled[title], mean[title] = nmse_by_layer(iterates, codes, model.n_layers)
        pooled[name], mean[name] = nmse_by_layer(model.stages(measurements, operator), codes, model.n_layers)
    return pooled, mean


@torch.no_grad()
def patches(networks: Mapping[str, CodeNetwork], folder: Path | None, layers: int = 10) -> Curves:
    """Return the distance to the lasso's optimum of layers 0 .. L in dB, of networks and of ISTA and FISTA."""
    *_, images = image_split(folder)
    problem = Patches(draw_patches(images, PATCHES, stream(0, TEST)), patch_dictionary())
    operator = Dense(problem.dictionary)
    size = norm(problem.codes).mean()
    curves: Curves = {}
    runs = {solver.__name__: solver(REGULARISATION).stages(problem.measurements, operator) for solver in (ISTA, FISTA)}
    runs |= {name: model.stages(problem.measurements, operator) for name, model in networks.items()}
    for name, stages in runs.items():
        count = networks[name].n_layers if name in networks else layers
        distances = [norm(y - problem.codes).mean() / size for y in itertools.islice(stages, count)]
        curves[name] = 20 * np.log10([1.0, *(float(x) for x in distances)])
    return curves


def arms(path: Path) -> Curves:
    """Return the mean distance by layer in dB of the arms of a summary that `run_arms` wrote, on unseen problems."""
    summary = json.loads(path.read_text(encoding="utf-8"))
    return {
        f"{arm}, {len(found['conditions']['unseen']['distance'][0]['each'])} seeds": 20
        * np.log10([distance["mean"] for distance in found["conditions"]["unseen"]["distance"]])
        for arm, found in summary.items()
    }


def draw(panels: Mapping[str, Curves], path: Path) -> None:
    """Write a figure of any sets of curves side by side, one line a curve; curves from 0 dB start at layer 0."""
    figure = Figure(figsize=(5.2 * len(panels), 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (title, curves) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        for name, decibels in curves.items():
            first = 0 if abs(decibels[0]) < AT_START else 1
            axes.plot(np.arange(first, first + len(decibels)), decibels, ".-", label=name)
        axes.set(title=title, xlabel="layer", ylabel="dB")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7)
    figure.savefig(path, dpi=110)


def show(title: str, curves: Curves, other: Curves | None = None) -> None:
    """Print what is left after the last layer; `other` holds another average of the same."""
    print(title)
    for name, decibels in curves.items():
        beside = "" if other is None else f"   mean of dB {other[name][-1]:8.2f}"
        print(f"  {name:36} {decibels[-1]:8.2f}{beside}")


def all_networks(files: Sequence[Path]) -> dict[str, CodeNetwork]:
    """Return packaged networks by name, and those of files by the names of file and folder."""
    networks = {name: load(name, CodeNetwork) for name in available_models(CodeNetwork)}
    return networks | {f"{path.parent.name}/{path.stem}": load(path, CodeNetwork) for path in files}


def main(argv: Sequence[str] | None = None) -> None:
    """Print the tables; write JSON and figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with cs/bsd68; default: a photograph of scikit-image")
    parser.add_argument("--model", type=Path, action="append", default=[], metavar="FILE")
    parser.add_argument("--arms", type=Path, action="append", default=[], metavar="FILE")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads)
    cards = {name: load_card(name) for name in available_models(CodeNetwork)}
    cards |= {f"{path.parent.name}/{path.stem}": load_card(path) for path in arguments.model}
    panels: dict[str, Curves] = {}
    of_benchmark: dict[str, CodeNetwork] = {}
    of_patches: dict[str, CodeNetwork] = {}
    for name, network in all_networks(arguments.model).items():
        (of_patches if len(network.dictionary) == PIXELS else of_benchmark)[name] = network
    for snr in sorted({cards[name].get("snr_db") for name in of_benchmark}, key=lambda snr: -(snr or np.inf)):
        chosen = {name: network for name, network in of_benchmark.items() if cards[name].get("snr_db") == snr}
        title = "NMSE (pooled), " + ("no noise" if snr is None else f"{snr:g} dB SNR")
        pooled, mean = benchmark(chosen, snr)
        panels[title] = pooled
        show(title, pooled, mean)
    panels[DISTANCE] = patches(of_patches, arguments.data)
    show(DISTANCE, panels[DISTANCE])
    for path in arguments.arms:
        title = f"{path.parent.name}, mean over seeds"
        panels[title] = arms(path)
        show(title, panels[title])
    if arguments.json:
        content = {title: {name: c.round(3).tolist() for name, c in curves.items()} for title, curves in panels.items()}
        arguments.json.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    if arguments.figure:
        draw(panels, arguments.figure)


if __name__ == "__main__":
    main()

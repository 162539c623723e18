"""GIN minus GDM: table and figure from the JSON files of `examples/cs_benchmark.py`.

    python examples/cs_gain.py RESULTS.json ... [--figure FILE]

Runs that differ in the data step only are a pair when host, set, ratio and seed agree; the seed is in the card beside
a model, or 0. The table has mean and spread (standard deviation) over seeds; the figure has the gain against the size
of the host.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from molrecon.weights import load_card

Cell = tuple[str, str, int]  # host, set, ratio
Score = dict[str, float]


def read(paths: list[Path]) -> dict[tuple[Cell, int], dict[str, Score]]:
    """Return by cell and seed the scores of both data steps."""
    found: dict[tuple[Cell, int], dict[str, Score]] = defaultdict(dict)
    for path in paths:
        content = json.loads(path.read_text(encoding="utf-8"))
        for result in content.get("results", [content]):
            seed = int(load_card(result["model"]).get("seed", 0))
            score = {key: float(result[key]) for key in ("psnr", "ssim", "parameters")}
            cell, step = (result["host"], result["set"], int(result["ratio"])), result["data_step"]
            if step in found[cell, seed]:
                raise ValueError(f"{path}: a second {step} of {cell}, seed {seed}, expected one way of training")
            found[cell, seed][step] = score
    return found


def gains(found: dict[tuple[Cell, int], dict[str, Score]]) -> dict[Cell, np.ndarray]:
    """Return by cell (seeds, 4): PSNR of GDM, PSNR gain in dB, SSIM gain, parameters of GDM."""
    rows: dict[Cell, list[list[float]]] = defaultdict(list)
    for (cell, _), scores in sorted(found.items()):
        if {"gdm", "gin"} <= set(scores):
            gdm, gin = scores["gdm"], scores["gin"]
            rows[cell].append([gdm["psnr"], gin["psnr"] - gdm["psnr"], gin["ssim"] - gdm["ssim"], gdm["parameters"]])
    return {cell: np.array(values) for cell, values in rows.items()}


def draw(table: dict[Cell, np.ndarray], path: Path) -> None:
    """Write the figure: a line for each set and ratio, a point for each host."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    lines: dict[tuple[str, int], list[tuple[float, float, float]]] = defaultdict(list)
    hosts: dict[str, float] = {}
    for (host, name, ratio), values in table.items():
        hosts[host] = values[0, 3] / 1e6
        lines[name, ratio].append((hosts[host], values[:, 1].mean(), values[:, 1].std()))
    for (name, ratio), points in lines.items():
        size, gain, spread = zip(*sorted(points), strict=True)
        axes.errorbar(size, gain, spread, fmt="o-", capsize=3, label=f"{name} {ratio} %")
    axes.axhline(0, color="gray", linewidth=0.8)
    axes.set_xticks(list(hosts.values()), [f"{host}\n{size:.2f}" for host, size in hosts.items()])
    axes.set_xlabel("host, millions of parameters")
    axes.set_ylabel("PSNR of GIN minus GDM, dB")
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=110)


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table; write the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", nargs="+", type=Path, metavar="RESULTS.json")
    parser.add_argument("--figure", type=Path)
    arguments = parser.parse_args(argv)
    table = gains(read(arguments.results))
    print("| host | set | ratio | seeds | GDM, dB | GIN - GDM, dB | SSIM |")
    print("|---|---|---|---|---|---|---|")
    for (host, name, ratio), values in table.items():
        gdm, psnr, ssim, _ = values.mean(0)
        _, spread, ssim_spread, _ = values.std(0)
        change = f"{psnr:+.3f} ± {spread:.3f} | {ssim:+.4f} ± {ssim_spread:.4f}"
        print(f"| {host} | {name} | {ratio} % | {len(values)} | {gdm:.2f} | {change} |")
    if arguments.figure:
        draw(table, arguments.figure)


if __name__ == "__main__":
    main()

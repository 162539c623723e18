"""GIN minus GDM: table and figures from the JSON files of `examples/cs_benchmark.py`.

    python examples/cs_gain.py RESULTS.json ... [--figure FILE] [--curve FILE] [--json FILE]

Runs that differ in the data step only are a pair when host, set, ratio, seed and length agree; seed, steps, batch and
the validation score are in the card beside a model. The table has mean and spread (standard deviation) over seeds; the
figure has the gain against the size of the host, the curve PSNR and gain against the blocks that training has seen,
with what the authors' weights reach. --json writes the table as those of examples/results are.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # to run from a checkout that is not installed

from examples.cs_benchmark import PUBLISHED
from molrecon import __version__
from molrecon.weights import load_card

PUBLISHED_BLOCKS = 277_800 * 64
SET_TITLES = {"set11": "Set11", "bsd68": "BSD68", "bsd68_cropped": "BSD68, cropped"}
# Fine-tuned pairs: their measured gains are on the results page.
FROM_PUBLISHED = "ISTA-Net+, 300 steps from the authors' weights"
STORED = Path(__file__).parent / "results" / "compressed_sensing.json"

Score = dict[str, float]


class Cell(NamedTuple):
    """What a pair has in common besides the seed."""

    host: str
    set: str
    ratio: int
    steps: int
    batch: int


def read(paths: list[Path]) -> dict[tuple[Cell, int], dict[str, Score]]:
    """Return by cell and seed the scores of both data steps."""
    found: dict[tuple[Cell, int], dict[str, Score]] = defaultdict(dict)
    for path in paths:
        content = json.loads(path.read_text(encoding="utf-8"))
        for result in content.get("results", [content]):
            card = load_card(result["model"])
            score = {key: float(result[key]) for key in ("psnr", "ssim", "parameters")}
            score["validation"] = float(card["scores"]["validation_psnr_db"])
            cell = Cell(result["host"], result["set"], int(result["ratio"]), int(card["steps"]), int(card["batch"]))
            seed, step = int(card.get("seed", 0)), result["data_step"]
            if step in found[cell, seed]:
                raise ValueError(f"{path}: a second {step} of {cell}, seed {seed}, expected one way of training")
            found[cell, seed][step] = score
    return found


def gains(found: dict[tuple[Cell, int], dict[str, Score]]) -> dict[Cell, dict[str, np.ndarray]]:
    """Return by cell what GDM has, "psnr", "validation", "parameters", and the gains "+psnr", "+ssim", "+validation".

    Every array has an entry a seed.
    """
    rows: dict[Cell, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for (cell, _), scores in sorted(found.items()):
        if {"gdm", "gin"} <= set(scores):
            gdm, gin = scores["gdm"], scores["gin"]
            for key in ("psnr", "validation", "parameters"):
                rows[cell][key].append(gdm[key])
            for key in ("psnr", "ssim", "validation"):
                rows[cell][f"+{key}"].append(gin[key] - gdm[key])
    return {cell: {key: np.array(values) for key, values in row.items()} for cell, row in rows.items()}


def stored_table(table: dict[Cell, dict[str, np.ndarray]], command: str) -> dict[str, Any]:
    """Return the table as those of examples/results are, see docs/results_tables.py; of seeds mean and spread."""
    columns: list[dict[str, Any]] = [{"title": title} for title in ("host", "set", "ratio", "steps", "seeds")]
    for title in ("validation: `gdm`, dB", "validation: `gin - gdm`, dB", "`gdm`, dB", "`gin - gdm`, dB"):
        columns.append({"title": title, "decimals": 2, **({"signed": True} if "gin" in title else {})})
    columns.append({"title": "SSIM: `gin - gdm`", "decimals": 4, "signed": True})
    rows: list[list[Any]] = []
    for cell, values in table.items():
        row = [cell.host, SET_TITLES.get(cell.set, cell.set), f"{cell.ratio} %", cell.steps, len(values["psnr"])]
        for key, digits in (("validation", 3), ("+validation", 3), ("psnr", 3), ("+psnr", 3), ("+ssim", 5)):
            mean, spread = (round(float(x), digits) for x in (values[key].mean(), values[key].std()))
            row.append({"mean": mean, "spread": spread} if len(values[key]) > 1 and key[0] == "+" else mean)
        rows.append(row)
    about = {"version": __version__, "recorded": datetime.date.today().isoformat(), "machine": "one thread"}
    return {"command": command, **about, "columns": columns, "rows": rows}


def draw(table: dict[Cell, dict[str, np.ndarray]], path: Path) -> None:
    """Write the figure of hosts: a line for each set and ratio, a point for each host and length of training."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    lines: dict[tuple[str, int], list[tuple[float, float, float]]] = defaultdict(list)
    hosts: dict[str, float] = {}
    for cell, values in table.items():
        hosts[cell.host] = values["parameters"][0] / 1e6
        lines[cell.set, cell.ratio].append((hosts[cell.host], values["+psnr"].mean(), values["+psnr"].std()))
    for (name, ratio), points in lines.items():
        size, gain, spread = zip(*sorted(points), strict=True)
        axes.errorbar(size, gain, spread, fmt="o-", capsize=3, label=f"{name} {ratio} %")
    axes.axhline(0, color="gray", linewidth=0.8)
    axes.set_xticks(list(hosts.values()), [f"{host}\n{size:.2f}" for host, size in hosts.items()])
    axes.set_xlabel("host, millions of parameters")
    axes.set_ylabel("PSNR of GIN minus GDM, dB")
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=110)


def draw_curve(table: dict[Cell, dict[str, np.ndarray]], path: Path) -> None:
    """Write the figure of lengths: PSNR of both data steps and their gain, against the blocks seen in training."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    lines: dict[tuple[str, str, int], list[tuple[int, dict[str, np.ndarray]]]] = defaultdict(list)
    for cell, values in table.items():
        lines[cell.host, cell.set, cell.ratio].append((cell.steps * cell.batch, values))
    for number, ((host, name, ratio), points) in enumerate(lines.items()):
        points.sort(key=lambda point: point[0])
        blocks = [count for count, _ in points]
        gdm, gain, held_out = ([v[key].mean() for _, v in points] for key in ("psnr", "+psnr", "+validation"))
        title, colour = f"{host}, {SET_TITLES.get(name, name)} {ratio} %", f"C{number}"
        left.plot(blocks, gdm, "o--", color=colour, label=f"{title}, gdm")
        left.plot(blocks, np.add(gdm, gain), "o-", color=colour, label=f"{title}, gin")
        spread = [v["+psnr"].std() for _, v in points]
        right.errorbar(blocks, gain, spread, fmt="o-", capsize=3, color=colour, label=title)
        right.plot(blocks, held_out, "s:", color=colour, label=f"{host}, validation images, {ratio} %")
        if host == "ista-net-plus" and (name, ratio) in PUBLISHED:
            left.plot(PUBLISHED_BLOCKS, PUBLISHED[name, ratio][0], "*", color=colour, markersize=11)
    for label, height in stored_gains():
        right.plot(PUBLISHED_BLOCKS, height, "*k", markersize=9)
        right.annotate(label, (PUBLISHED_BLOCKS, height), xytext=(-28, 3), textcoords="offset points", fontsize=8)
    right.axhline(0, color="gray", linewidth=0.8)
    left.plot([], [], "*k", label="the authors' weights")
    right.plot([], [], "*k", label="300 steps from the authors' weights, Set11")
    left.set_ylabel("PSNR, dB")
    right.set_ylabel("PSNR of GIN minus GDM, dB")
    for axes in (left, right):
        axes.set_xscale("log")
        axes.set_xlabel("blocks seen in training")
        axes.legend(fontsize=7)
    figure.savefig(path, dpi=110)


def stored_gains() -> Iterator[tuple[str, float]]:
    """Yield ratio and gain on Set11 of the stored pairs that were trained on from the authors' weights."""
    for row in json.loads(STORED.read_text(encoding="utf-8"))["gain"]["rows"]:
        if row[0] == FROM_PUBLISHED:
            yield row[1], float(row[5])


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table; write figures and JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", nargs="+", type=Path, metavar="RESULTS.json")
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--curve", type=Path)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--command", default="python examples/cs_gain.py", help="what made the runs, for --json")
    arguments = parser.parse_args(argv)
    table = gains(read(arguments.results))
    print("| host | set | ratio | steps | seeds | GDM, dB | GIN - GDM, dB | SSIM | validation |")
    print("|---|---|---|---|---|---|---|---|---|")
    for (host, name, ratio, steps, _), values in table.items():
        psnr, ssim, held_out = (values[key] for key in ("+psnr", "+ssim", "+validation"))
        change = f"{psnr.mean():+.3f} ± {psnr.std():.3f} | {ssim.mean():+.4f} ± {ssim.std():.4f}"
        shown = f"{len(psnr)} | {values['psnr'].mean():.2f} | {change} | {held_out.mean():+.3f} ± {held_out.std():.3f}"
        print(f"| {host} | {name} | {ratio} % | {steps} | {shown} |")
    if arguments.figure:
        draw(table, arguments.figure)
    if arguments.curve:
        draw_curve(table, arguments.curve)
    if arguments.json:
        content = stored_table(table, arguments.command)
        arguments.json.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

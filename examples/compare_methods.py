"""2D methods that were trained equally, on whole slices that none was trained on: quality, worst case, memory, time.

    MOLRECON_DATA=DATA python examples/compare_methods.py --weights METHOD-SEED.safetensors ... [--json FILE]
        [--figure FILE] [--families NAME ...] [--worst-case]

METHOD is a name of `METHODS`; the files are those of `examples/train_prior.py`, and several seeds of one method give
its spread. The slices are the eleven families of `examples/validate.py`, prepared as there, and what counts is the
lead in dB over BART's `pics -S -l1 -i100` with the same maps at the weight that is best for the slice, of which it
keeps the scores. Equilibria are solved to the tolerance of their own settings: without a certificate it is one of the
residual, which a far image may meet. Training memory is the peak of one training step on the first slice, beside model
and data; the worst case is that of `molrecon robustness`, 5 % of the data of the first slice; both are those of the
first seed. FILE gets the tables, in which a number is a mean with its spread (standard deviation) over seeds;
FILE_slices.json gets what they are made of, and what that file holds of other weights stays, so that methods can be
measured one after the other.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # to run from a checkout that is not installed

from examples._bart import bart_l1
from examples._families import families
from examples.validate import BASELINES, Judge
from molrecon import __version__
from molrecon.guarantees.robustness import evaluate
from molrecon.reconstructors.learned import LearnedReconstructor
from molrecon.scans.metrics import psnr
from molrecon.training.step_memory import training_memory
from molrecon.weights import load, load_card, weights_hash

METHODS = {  # in the order of the table
    "unet": "U-Net",
    "varnet": "VarNet, 10 unrolls",
    "modl": "MoDL, 10 unrolls",
    "admm-net": "ADMM-Net, 10 unrolls",
    "de-grad": "DE-GRAD",
    "de-prox": "DE-PROX",
    "mol-penalised": "MOL penalised",
    "mol": "MOL strict",
    "mol-guided": "MOL strict, guided by that ADMM-Net",
}
WORST_CASE = 0.05
SHOWN = {  # family: number of the case that is drawn
    "8-coil brain": 0,
    "SIAT T2 brain": 2,
    "water-fat liver": 0,
}


def costs(model: LearnedReconstructor, judge: Judge, *, worst_case: bool) -> dict[str, Any]:
    """Return parameters, MB of a training step, and PSNR before and after the worst case, by how it is taken."""
    prepared = judge.prepared
    conditioning = model.condition(prepared.kspace, judge.operator, prepared.noise_level)
    # The second step's: a first one loads code and keeps buffers.
    used = [training_memory(model, prepared.kspace, judge.operator, conditioning) for _ in range(2)][-1]
    found: dict[str, Any] = {"parameters": sum(p.numel() for p in model.parameters())}
    if used is not None:
        found["training_mb"] = used / 1e6
    if worst_case:
        curves = evaluate(prepared, judge.reference, {"model": model.eval()}, (WORST_CASE,), draws=1).curves
        found["worst_case"] = {name: [trial.psnr for trial in curve.worst_case] for name, curve in curves.items()}
    return found


def measure_all(
    files: Sequence[Path], data: Path, chosen: Sequence[str] | None, *, worst_case: bool
) -> tuple[dict[str, Any], dict[str, dict[str, np.ndarray]]]:
    """Return what is to be known of every file of weights, and by family the images that are drawn."""
    models = {file.stem: load(str(file), LearnedReconstructor) for file in files}
    first = {method_of(stem): stem for stem in reversed(models)}  # seed of each method
    found: dict[str, Any] = {file.stem: _training(file) | {"scores": {}} for file in files}
    pictures: dict[str, dict[str, np.ndarray]] = {}
    for family in families(data):
        if chosen is not None and family.name not in chosen:
            continue
        for number, case in enumerate(family.cases()):
            judge = Judge(case)
            drawn = SHOWN.get(family.name) == number
            if drawn:
                weight = baselines().get(case.name, {}).get("BART weight", np.nan)
                pictures[case.name] = {"reference": judge.reference[0]}
                if np.isfinite(weight):
                    bart = bart_l1(judge.prepared.kspace, judge.operator, weight)
                    pictures[case.name]["BART l1"] = judge.prepared.magnitude(bart)[0]
            for stem, model in models.items():
                scores = found[stem]["scores"].setdefault(family.name, {})
                with torch.no_grad():
                    scores[case.name], image = judge.model(model)
                method = method_of(stem)
                if drawn and first[method] == stem:
                    pictures[case.name][METHODS[method]] = judge.prepared.magnitude(image)[0]
                if first[method] == stem and "parameters" not in found[stem]:
                    found[stem] |= costs(model, judge, worst_case=worst_case)
        print(f"{family.name}: done", flush=True)
    return found, pictures


def method_of(stem: str) -> str:
    """Return METHOD of the name METHOD-SEED."""
    return stem.rpartition("-")[0]


def _training(file: Path) -> dict[str, Any]:
    card = load_card(str(file))
    return {"sha256": weights_hash(str(file)), "steps": card.get("steps"), "rate": card.get("learning_rate")}


def baselines() -> dict[str, dict[str, float]]:
    """Return the scores of the classical methods by case."""
    return {key.split(" [")[0]: scores for key, scores in json.loads(BASELINES.read_text()).items()}


def leads(scores: dict[str, dict[str, dict[str, float]]], base: dict[str, dict[str, float]]) -> dict[str, list[float]]:
    """Return the leads over BART in dB of the slices of each family; `base` is that of `baselines`."""
    return {
        family: [case["psnr"] - base.get(name, {}).get("BART", np.nan) for name, case in cases.items()]
        for family, cases in scores.items()
    }


def over_seeds(values: Sequence[float], decimals: int = 4) -> float | dict[str, float]:
    """Return the mean and the spread of several numbers, or the one number."""
    mean = round(float(np.mean(values)), decimals)
    return mean if len(values) == 1 else {"mean": mean, "spread": round(float(np.std(values)), decimals)}


def command(found: dict[str, Any]) -> str:
    """Return what made the weights and these tables, by the cards of the weights."""
    seeds = "|".join(sorted({stem.rpartition("-")[2] for stem in found}))
    steps, rates = ("|".join(sorted({str(one[key]) for one in found.values()})) for key in ("steps", "rate"))
    return (
        f"python examples/train_prior.py --model METHOD --steps {steps} --seed {seeds} --learning-rate {rates} ...;"
        " python examples/compare_methods.py --weights METHOD-SEED.safetensors ... --worst-case --json FILE"
    )


def tables(found: dict[str, Any]) -> dict[str, Any]:
    """Return the tables "scores" and "families", in the form of docs/results_tables.py."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for stem in sorted(found, key=lambda s: (list(METHODS).index(method_of(s)), s)):
        groups.setdefault(method_of(stem), []).append(found[stem])
    names = list(next(iter(found.values()))["scores"])
    base = baselines()
    rows, by_family = [], []
    for method, seeds in groups.items():
        first = next(one for one in seeds if "parameters" in one)
        lead = [leads(one["scores"], base) for one in seeds]
        means = [{family: float(np.mean(of_slices)) for family, of_slices in one.items()} for one in lead]
        cases = [[case for family in one["scores"].values() for case in family.values()] for one in seeds]
        similar = [
            float(np.mean([np.mean([c["ssim"] for c in f.values()]) for f in one["scores"].values()])) for one in seeds
        ]
        rows.append(
            [
                METHODS[method],
                str(len(seeds)),
                over_seeds([float(np.mean(list(one.values()))) for one in means]),
                over_seeds([min(one.values()) for one in means]),
                over_seeds([min(map(min, one.values())) for one in lead]),
                over_seeds(similar),
                _worst_case(first),
                round(float(np.median([c["seconds"] for one in cases for c in one])), 2),
                round(first["training_mb"]) if "training_mb" in first else "",
                first["parameters"],
            ]
        )
        by_family.append([METHODS[method], *(over_seeds([one[name] for one in means]) for name in names)])
    made = {
        "command": command(found),
        "version": __version__,
        "recorded": datetime.date.today().isoformat(),
        "machine": "one thread of a busy machine",
    }
    shown = {"decimals": 2, "signed": True, "best": "max"}
    columns = [
        {"title": "method"},
        {"title": "seeds"},
        {"title": "lead over BART l1, mean of families, dB", **shown},
        {"title": "worst family, dB", **shown},
        {"title": "worst slice, dB", **shown},
        {"title": "SSIM", "decimals": 3, "best": "max"},
        {"title": "8 coils, worst case of 5 %, dB"},
        {"title": "seconds", "decimals": 1},
        {"title": "training, MB", "decimals": 0},
        {"title": "parameters", "decimals": 0},
    ]
    return {
        "scores": {**made, "columns": columns, "rows": rows},
        "families": {
            **made,
            "columns": [{"title": "lead over BART l1, dB"}, *({"title": name, **shown} for name in names)],
            "rows": by_family,
        },
    }


def _worst_case(one: dict[str, Any]) -> str:
    """Return PSNR before and after; of a guided method with its guide held, and through it."""
    curves = [f"{before:.2f} → {after:.2f}" for before, after in one.get("worst_case", {}).values()]
    return ", ".join(f"{curve}{', through its guide' if i else ''}" for i, curve in enumerate(curves))


def draw(pictures: dict[str, dict[str, np.ndarray]], path: Path) -> None:
    """Write the image of each case, and its error times five, for every method."""
    names = list(next(iter(pictures.values())))
    figure = Figure(figsize=(1.7 * len(names), 3.9 * len(pictures)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2 * len(pictures), len(names), squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for row, (title, images) in enumerate(pictures.items()):
        reference = images["reference"]
        peak = 0.8 * float(reference.max())
        for col, (name, image) in enumerate(images.items()):
            head = f"{title.split(', ')[0]}\n{name}"
            if col:
                head = f"{name.replace(', ', chr(10), 1)}\n{psnr(reference[None], image[None]):.1f} dB"
                axes[2 * row + 1, col].imshow(5 * abs(image - reference), cmap="gray", vmin=0, vmax=peak)
            axes[2 * row, col].imshow(image, cmap="gray", vmin=0, vmax=peak)
            axes[2 * row, col].set_title(head, fontsize=7)
    figure.savefig(path, dpi=75)


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("MOLRECON_DATA"), help="default: $MOLRECON_DATA")
    parser.add_argument("--weights", type=Path, nargs="+", required=True, help="METHOD-SEED.safetensors")
    parser.add_argument("--families", nargs="*", help="default: all")
    parser.add_argument("--worst-case", action="store_true", help="measure it as well: a minute or more a method")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args(argv)
    if arguments.data is None:
        parser.error("--data is not given and MOLRECON_DATA not set, expected the data folder")
    unknown = [file.name for file in arguments.weights if method_of(file.stem) not in METHODS]
    if unknown:
        parser.error(
            f"--weights {', '.join(unknown)}: expected METHOD-SEED.safetensors, METHOD of {', '.join(METHODS)}"
        )
    return arguments


def main(argv: Sequence[str] | None = None) -> None:
    """Print the tables; write JSON and figure."""
    arguments = parse(argv)
    torch.set_num_threads(arguments.threads)
    found, pictures = measure_all(
        arguments.weights, arguments.data, arguments.families, worst_case=arguments.worst_case
    )
    stored = arguments.json and arguments.json.with_stem(f"{arguments.json.stem}_slices")
    if stored and stored.is_file():
        found = json.loads(stored.read_text(encoding="utf-8")) | found
    made = tables(found)
    for table in made.values():
        print("\n" + " | ".join(column["title"] for column in table["columns"]))
        for row in table["rows"]:
            print(" | ".join(map(_text, row)))
    if stored:
        arguments.json.write_text(json.dumps(made, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        stored.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    if arguments.figure:
        draw(pictures, arguments.figure)


def _text(cell: Any) -> str:
    return f"{cell['mean']} ± {cell['spread']}" if isinstance(cell, dict) else str(cell)


if __name__ == "__main__":
    main()

"""Writes the measured tables of the README and of docs/ from examples/results: no number in them is typed by hand.

    python docs/results_tables.py           # bring every page up to date
    python docs/results_tables.py --check   # exit code 1 where a page is not

A page names a table between two comments,

    <!-- table: real_brain/scores -->
    <!-- end of table -->

and what stands between them is replaced: the table "scores" of examples/results/real_brain.json with the command that
made it, or what one of the functions in COMPUTED makes of files of another form. A stored table has `columns` and
`rows`; a column has a title, the decimals of its numbers, whether they carry a sign, and whether the largest or the
smallest is set in bold. A cell is a number, a mean with its spread, or text.
"""

from __future__ import annotations

import csv
import json
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import papers_claims  # type: ignore[import-not-found]

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "examples" / "results"
MARKED = re.compile(r"(<!-- table: ([\w/-]+) -->\n).*?(<!-- end of table -->)", re.DOTALL)

# Of examples/results/validation.json: the default model, what the files of models were called, what families are.
DEFAULT, GUIDED = "mol-guided", "mol-guided-2d"
MODELS = {
    "mol-guided": "`mol-guided-2d`",
    "admm-net-2d": "`admm-net-2d`, its guide, 7 unrolls",
    "modl-2d": "`modl-2d`, 10 unrolls, 3600 steps",
    "before": "`mol-guided-2d` before, trained on fewer bodies",
}
FAMILIES = {
    "8-coil brain": "real 8 coils, brain, 4x and 8x",
    "half field of view": "the same in half of its field of view, two sets of maps",
    "4-coil brain": "real 4 coils, brain, 4x",
    "SIAT T2 brain": "SIAT T2 brain, simulated coils",
    "ukat kidney": "kidneys, real phase, simulated coils",
    "water-fat liver": "water-fat liver, real phase, simulated coils",
    "thorax": "thorax, real phase, simulated coils",
    "liver diffusion": "liver diffusion, real phase, simulated coils",
    "MS brain": "MS brain, simulated phase and coils",
    "JLF T1 brain": "T1 brain, simulated phase and coils",
    "IXI T1 head": "T1 head, sagittal, simulated phase and coils",
}
VALIDATE = "MOLRECON_DATA=DATA python examples/validate.py --models mol-guided-2d admm-net-2d modl-2d --tol 3e-3"

Cell = str | float | dict[str, float]


def stored(file: str) -> Any:
    """Return the content of examples/results/FILE.json."""
    return json.loads((RESULTS / f"{file}.json").read_text(encoding="utf-8"))


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def text_of(cell: Cell, column: dict[str, Any]) -> str:
    """Return a cell as it is printed in its column."""
    if isinstance(cell, str):
        return cell
    decimals = column.get("decimals", 0)
    form = f"{'+' if column.get('signed') else ''},.{decimals}f"
    if isinstance(cell, dict):
        return f"{cell['mean']:{form}} ± {cell['spread']:.{decimals}f}"
    return f"{cell:{form}}"


def texts_of(cells: Sequence[Cell], column: dict[str, Any]) -> list[str]:
    """Return the cells of a column as they are printed, the best of its numbers in bold."""
    values = [cell["mean"] if isinstance(cell, dict) else cell for cell in cells]
    numbers = [value for value in values if not isinstance(value, str)]
    best = {"max": max, "min": min}[column["best"]](numbers) if "best" in column else None
    texts = [text_of(cell, column) for cell in cells]
    return [f"**{text}**" if value == best else text for text, value in zip(texts, values, strict=True)]


def stored_table(name: str) -> str:
    """Return the table FILE/TABLE with the line that says where it comes from."""
    file, key = name.split("/")
    table = stored(file)[key]
    columns = table["columns"]
    cells = [texts_of(cells, column) for cells, column in zip(zip(*table["rows"], strict=True), columns, strict=True)]
    body = markdown([column["title"] for column in columns], zip(*cells, strict=True))
    return f"{body}\n\n{provenance(table)}\nNumbers: `examples/results/{file}.json`."


def provenance(table: dict[str, str]) -> str:
    """Return command, version, day and machine of a stored table as sentences."""
    made = f"*Made by* `{table['command']}`" if table["command"] else "*No command was kept*"
    return f"{made}; version {table['version']}, recorded {table['recorded']}, machine: {table['machine']}."


def validation() -> str:
    """Return mean PSNR by family of the models of validation.json, in brackets their lead over BART at its best."""
    results = stored("validation")
    models = [name for name in next(iter(next(iter(results.values())).values())) if name != "baselines"]
    rows, worst = [], {model: (float("inf"), float("inf")) for model in models}
    for family, slices in results.items():
        cases = list(slices.values())
        means = {name: fmean(case["baselines"][name] for case in cases) for name in ("CG-SENSE", "BART")}
        means |= {model: fmean(case[model]["psnr"] for case in cases) for model in models}
        best = max(means.values())
        shown = {name: f"**{mean:.2f}**" if mean == best else f"{mean:.2f}" for name, mean in means.items()}
        for model in models:
            lead = means[model] - means["BART"]
            shown[model] += f" ({lead:+.2f})"
            slice_lead = min(case[model]["psnr"] - case["baselines"]["BART"] for case in cases)
            worst[model] = (min(worst[model][0], lead), min(worst[model][1], slice_lead))
        rows.append([f"{FAMILIES.get(family, family)} ({len(cases)} slices)", *shown.values()])
    rows.append(["worst family / worst slice", "", "", *(f"{a:+.2f} / {b:+.2f}" for a, b in worst.values())])
    titles = ["PSNR, dB", "CG-SENSE", "BART l1", *(MODELS.get(model, model) for model in models)]
    body = f"{markdown(titles, rows)}\n\n*Made by* `{VALIDATE}`.\nNumbers: `examples/results/validation.json`."
    return f"{body}{measured_again(results)}"


def measured_again(results: dict[str, Any]) -> str:
    """Return a paragraph on slices whose BART score is another in validation_baselines.json; empty where none is."""
    latest = {name.split(" [")[0]: case["BART"] for name, case in stored("validation_baselines").items()}
    changed = [
        f"{name} (now {latest[name]:.2f}, here {case['baselines']['BART']:.2f})"
        for slices in results.values()
        for name, case in slices.items()
        if name in latest and abs(latest[name] - case["baselines"]["BART"]) > 0.005
    ]
    if not changed:
        return ""
    return f"\n\n**Out of date**: BART has been measured again since, the models have not, on {'; '.join(changed)} dB."


def validation_weights() -> str:
    """Return what the classical methods reach on each validation slice, and the weights that are best for it."""
    head = ["slice", "zero-filled, dB", "CG-SENSE, dB", "its weight", "BART l1, dB", "its weight"]
    rows = [
        [
            name.split(" [")[0],
            *(f"{case['zero-filled']:.2f} {case['CG-SENSE']:.2f} {case['CG weight']:.2g}".split()),
            *(f"{case['BART']:.2f} {case['BART weight']:.2g}".split()),
        ]
        for name, case in stored("validation_baselines").items()
    ]
    return f"{markdown(head, rows)}\n\n*Made by* `{VALIDATE}`.\nNumbers: `examples/results/validation_baselines.json`."


def training_logs() -> str:
    """Return the validation scores that the logs of the default model's two trainings hold."""
    rows = []
    for stage in ("strict", "guided"):
        with (RESULTS / f"train_{stage}.csv").open(encoding="utf-8", newline="") as file:
            for line in csv.DictReader(file):
                if line["validation"]:
                    shown = f"{float(line['validation']):.2f}", f"{float(line['seconds']):.1f}"
                    rows.append([stage, line["step"], *shown, line["forward_steps"], line["backward_steps"]])
    head = ["training", "step", "validation PSNR, dB", "seconds a step", "forward iterations", "backward iterations"]
    return f"{markdown(head, rows)}\n\nNumbers: `examples/results/train_strict.csv`, `train_guided.csv`."


def end_to_end() -> str:
    """Return processor seconds, PSNR and network evaluations from k-space to the image, by method and case."""
    results = stored("end_to_end")
    cases = results["cases"]
    head = ["", *(f"{case}: {title}" for case in cases for title in ("seconds", "PSNR, dB", "evaluations"))]
    rows = [
        [
            method,
            *(
                cell
                for case in cases.values()
                for cell in (
                    f"{case[method]['cpu_seconds']:.1f}",
                    f"{case[method]['psnr']:.2f}",
                    str(case[method]["network_evaluations"] or "-"),
                )
            ),
        ]
        for method in next(iter(cases.values()))
    ]
    return f"{markdown(head, rows)}\n\n{provenance(results)}\nNumbers: `examples/results/end_to_end.json`."


def headline() -> str:
    """Return the results in five lines, for the README."""
    families = {
        family: fmean(case[DEFAULT]["psnr"] - case["baselines"]["BART"] for case in slices.values())
        for family, slices in stored("validation").items()
    }
    best, worst = max(families, key=families.__getitem__), min(families, key=families.__getitem__)
    memory = {row[0]: row[-1] for row in stored("memory")["training_step"]["rows"]}
    solvers = {row[0].split(":")[0]: row[1].strip("*") for row in stored("solvers")["evaluations"]["rows"]}
    normal = {row[0]: row[1:] for row in stored("operator_timings")["normal"]["rows"]}
    floor, ours, sigpy, deepinv, _ = (cell.strip("*").split("*")[0].split()[0] for cell in next(iter(normal.values())))
    results = papers_claims.Results(stored, text_of)

    def attacked(column: str, method: str) -> str:
        return f"{float(results.cell('robustness/guided', column, method)):.1f}"

    worst_case, held, admm = "worst 5 %", f"`{GUIDED}`", "`admm-net-2d`"
    lines = (
        f"**Image quality**: {families[best]:+.1f} dB against BART's best l1-wavelet on {FAMILIES[best]}, but"
        f" {families[worst]:+.1f} dB on {FAMILIES[worst]}; the goal, 1 dB ahead in every family, is"
        f" {'met' if families[worst] >= 1 else 'missed'}."
        " `python examples/validate.py --models mol-guided-2d`",
        f"**Worst case** (5 % of the data): {attacked('0 %', held)} to {attacked(worst_case, held)} dB with the guide"
        f" held, as the bound has it, to {attacked(worst_case, f'{held}, through its guide')} through the guide;"
        f" unrolled ADMM-Net falls from {attacked('0 %', admm)} to {attacked(worst_case, admm)}."
        " `molrecon robustness full.h5`",
        f"**Solver**: {solvers['ours'].split(' / ')[0]} network evaluations to 1e-3 of the equilibrium, plain iteration"
        f" {solvers['plain forward-backward, alpha = 1'].split(' / ')[0]}. `python examples/compare_solvers.py`",
        f"**Training memory** at 50 iterations: {memory['equilibrium, 224 x 224']} MB, unrolled"
        f" {memory['unrolled (MoDL), 224 x 224']} MB. `python tests/benchmarks/memory.py`",
        f"**Normal operator**, 15 coils 640 x 368: {ours} ms; two bare FFTs {floor}, sigpy {sigpy}, deepinv {deepinv}."
        " `python tests/benchmarks/operators.py`",
    )
    return "\n".join(f"- {line}" for line in lines)


def claims() -> str:
    """Return what the three papers claim, and what was found here."""
    rows = papers_claims.rows(papers_claims.Results(stored, text_of))
    files = (
        "compressed_sensing, compare_methods, memory, certificates, robustness, volumes, sparse_coding, descent_arms,"
        " inpainting"
    )
    named = ", ".join(f"`{file}.json`" for file in files.split(", "))
    return f"{markdown(['claim', 'found here', 'why'], rows)}\n\nNumbers: `examples/results/`, {named}."


COMPUTED: dict[str, Callable[[], str]] = {
    "claims": claims,
    "end_to_end": end_to_end,
    "validation": validation,
    "validation_weights": validation_weights,
    "training_logs": training_logs,
    "headline": headline,
}


def filled(page: str) -> str:
    """Return the text of a page with every marked table made anew."""

    def table(found: re.Match[str]) -> str:
        body = COMPUTED[found[2]]() if found[2] in COMPUTED else stored_table(found[2])
        return f"{found[1]}\n{body}\n\n{found[3]}"

    return MARKED.sub(table, page)


def pages() -> list[Path]:
    """Return the pages that may hold tables."""
    return [
        ROOT / "README.md",
        *sorted((ROOT / "docs").glob("*.md")),
        *sorted((ROOT / "docs" / "results").glob("*.md")),
    ]


def main(arguments: Sequence[str]) -> int:
    """Bring all pages up to date, or say which are not."""
    stale = []
    for page in pages():
        text = page.read_text(encoding="utf-8")
        if (new := filled(text)) != text:
            stale.append(page)
            if "--check" not in arguments:
                page.write_text(new, encoding="utf-8")
    for page in stale:
        print(f"{page.relative_to(ROOT)}: {'out of date' if '--check' in arguments else 'brought up to date'}")
    return 1 if stale and "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""How close to its equilibrium an image has to be: the default model at several bounds, against its exact equilibrium.

    MOLRECON_DATA=DATA python tests/benchmarks/tolerance.py [--model NAME] [--json FILE]

Three slices of `examples/validate.py`, two measured brains and a simulated scan. The guide is found once and held. The
exact equilibrium is solved for in double precision, to a bound of 2e-6. For each bound asked for: the largest change
of a pixel on the way from there to the equilibrium, relative to the noise of a sample of k-space, which is that of a
pixel; the true distance relative to the bound; iterations.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import replace
from pathlib import Path

# This script's folder is searched first, and has a file of the name of the package.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch

from examples._families import Case, families
from molrecon.reconstructors.defaults import DEFAULT_MODEL
from molrecon.reconstructors.mol import MOL
from molrecon.scans.comparison import undersample
from molrecon.scans.preparation import prepare
from molrecon.weights import load

FAMILIES = ("8-coil brain", "4-coil brain", "SIAT T2 brain")
TOLERANCES = (1e-2, 5e-3, 2e-3, 1e-3, 5e-4, 2e-4, 1e-4)
EXACT = 2e-6


@torch.no_grad()
def measure(name: str, case: Case) -> list[dict[str, float]]:
    """Return a row for each bound asked for."""
    model, double = load(name, MOL), load(name, MOL).double()
    prepared = prepare(undersample(case.full, case.sampling_mask, case.added_noise, [case.seed]))
    operator, kspace = prepared.operator([0]), prepared.kspace
    conditioning = model.condition(kspace, operator, prepared.noise_level)
    exact = double(
        kspace.to(torch.complex128), operator, conditioning=conditioning, solver=replace(double.solver, tol=EXACT)
    ).value
    rows = []
    for tol in TOLERANCES:
        solution = model(kspace, operator, conditioning=conditioning, solver=replace(model.solver, tol=tol))
        off = solution.value - exact
        rows.append(
            {
                "tol": tol,
                "largest change / noise": float(off.abs().max()) / prepared.noise_level,
                "distance / bound": float(off.norm() / exact.norm() / solution.error_bound),
                "iterations": int(solution.n_steps),
            }
        )
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    cases = {f.name: next(iter(f.cases())) for f in families(Path(os.environ["MOLRECON_DATA"])) if f.name in FAMILIES}
    found = {case.name: measure(arguments.model, case) for case in cases.values()}
    for name, rows in found.items():
        print(name)
        for row in rows:
            print("   ", "  ".join(f"{key} {value:.3g}" for key, value in row.items()))
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")

"""Solvers of the MOL equilibrium side by side on the real 8-coil T1 brain, 1D random 4x.

    python examples/compare_solvers.py [--data DATA] [--json FILE] [--out FIGURE] [--rows N] [--most N]

For the default model and for the published MOL weights: network evaluations, normal operators and seconds until the
image is within 1e-3 and 1e-5 of the equilibrium (true relative distance, to one found beforehand to 1e-9), and until
the error bound `|r(x)| / (m |x|)` is. Everything is in double precision and starts at one image: that of the guide,
found before and not counted, or the zero-filled one where there is no guide. What is recorded on the way is neither
counted nor timed. An iteration is one network evaluation (two where ours rejects a trial step). The published weights
have no certified m, hence no bound.

    plain      forward-backward, alpha = 1, conjugate gradients to 1e-6 of the residual
    ours       MOL as it is: safeguarded Anderson, conjugate gradients tied to the residual
    Anderson   torchdeq's, its default options, on the map T of plain
    Broyden    torchdeq's, memory of 30, on the same map
    authors    alpha = 0.01, 5 conjugate gradient steps started at x, as in the authors' code (but for its factor
               1.001 on the identity, which moves the fixed point)

DATA is the folder that MOLRECON_DATA names by default. `--rows` takes that many of the 230 readout positions: the
readout is fully sampled, so they are a complete problem.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from real_brain import BRAIN, undersampled_brain  # type: ignore[import-not-found]
from torch import Tensor
from torchdeq.solver import get_solver

from molrecon.io import read_npy
from molrecon.networks import Denoiser
from molrecon.networks.denoiser import from_channels, to_channels
from molrecon.reconstructors.conditioning import Conditioning
from molrecon.reconstructors.defaults import DEFAULT_MODEL
from molrecon.reconstructors.guiding import first_of_guide
from molrecon.reconstructors.mol import MOL
from molrecon.solvers.batched import norm
from molrecon.solvers.conjugate_gradient import conjugate_gradient
from molrecon.weights import load
from molrecon.weights.published import load_published_mol
from operators import LinearOperator, Sense
from operators.hybrid import crop_readout

GOALS = (1e-3, 1e-5)
TIGHT = 1e-6  # relative residual of the conjugate gradients where a method asks for the exact inverse
BROYDEN_MEMORY = 30
AUTHORS_STEP, AUTHORS_INNER_STEPS = 0.01, 5


class EnoughError(Exception):
    """Raised by the record to end a method that has reached every goal, left the finite numbers, or takes too long."""


@dataclass
class Record:
    """Distance, error bound, normal operators and seconds at every network evaluation of one method."""

    most: int
    goals: tuple[str, ...]
    normals: int = 0
    started: float = field(default_factory=time.perf_counter)
    paused: float = 0.0
    trace: dict[str, list[float]] = field(
        default_factory=lambda: {"distance": [], "bound": [], "normals": [], "seconds": []}
    )

    def add(self, distance: float, bound: float, now: float) -> None:
        """Note one evaluation that began at `now`; what this takes is no part of the method's time."""
        if not math.isfinite(distance):
            distance = bound = math.inf
        values = (distance, bound, self.normals, now - self.started - self.paused)
        for row, value in zip(self.trace.values(), values, strict=True):
            row.append(value)
        self.paused += time.perf_counter() - now
        reached = all(min(self.trace[goal]) <= GOALS[-1] for goal in self.goals)
        if reached or not math.isfinite(distance) or len(self.trace["distance"]) >= self.most:
            raise EnoughError

    def until(self, goal: str, value: float) -> dict[str, float] | None:
        """Return evaluations, normals and seconds at the first iterate that is within `value`; None if none is."""
        for k, found in enumerate(self.trace[goal]):
            if found <= value:
                return {
                    "evaluations": k + 1,
                    "normals": int(self.trace["normals"][k]),
                    "seconds": round(self.trace["seconds"][k], 3),
                }
        return None


class CountedNetwork(Denoiser):
    """A network that hands its input and output on real channels to `watch`."""

    def __init__(self, network: Denoiser, watch: Callable[[Tensor, Tensor, float], None]) -> None:
        super().__init__()
        self.network, self.watch = network, watch
        self.monotonicity, self.strict, self.ndim = network.monotonicity, network.strict, network.ndim
        self.guide_channels = network.guide_channels
        self.train(network.training)

    def denoiser(self, noise_level: Tensor, guide: Tensor | None = None) -> Callable[[Tensor], Tensor]:
        """Return H with the record kept."""
        denoise = self.network.denoiser(noise_level, guide)

        def counted(x: Tensor) -> Tensor:
            now = time.perf_counter()
            output = denoise(x)
            self.watch(x, output, now)
            return output

        return counted

    def lipschitz_bound(self) -> float:
        """Return the network's own."""
        return self.network.lipschitz_bound()


class CountedOperator(LinearOperator):
    """An operator that counts its normal operators in a record."""

    def __init__(self, operator: LinearOperator, record: Record) -> None:
        super().__init__()
        self.operator, self.record = operator, record

    def forward(self, x: Tensor) -> Tensor:
        """Return `A x`."""
        return self.operator(x)

    def adjoint(self, y: Tensor) -> Tensor:
        """Return `A^H y`."""
        return self.operator.adjoint(y)

    def normal(self, x: Tensor) -> Tensor:
        """Return `A^H A x`."""
        self.record.normals += 1
        return self.operator.normal(x)


class SolverCase:
    """One scan and one model in double precision, with the equilibrium; every image is divided by the scale."""

    def __init__(self, model: MOL, kspace: Tensor, operator: Sense, noise_level: float) -> None:
        self.model = model.double()
        self.kspace, self.operator = kspace, operator
        conditioning: Conditioning = model.condition(kspace, operator, noise_level)
        self.conditioning = model.guided(kspace, operator, conditioning)
        self.weight = model.data_weight(self.conditioning.noise_level)
        self.zero_filled = operator.adjoint(kspace) / self.conditioning.scale
        self.start = self.zero_filled
        if self.conditioning.guide is not None:
            self.start = first_of_guide(self.conditioning.guide, model.network.ndim) * self.conditioning.phase
        self.model.solver = replace(self.model.solver, tol=1e-9, max_steps=3000)
        self.solution = self.model(kspace, operator, conditioning=self.conditioning)
        self.equilibrium = self.solution.value / self.conditioning.scale
        self.model.solver = replace(self.model.solver, tol=0.1 * GOALS[-1])

    def run(self, method: Callable[[SolverCase, MOL, LinearOperator], None], most: int) -> Record:
        """Run one method until it has reached every goal or has evaluated the network `most` times."""
        certified = self.model.network.certified
        record = Record(most, ("distance", "bound") if certified else ("distance",))
        operator = CountedOperator(self.operator, record)

        def watch(x: Tensor, output: Tensor, now: float) -> None:
            image, denoised = (from_channels(part) * self.conditioning.phase for part in (x, output))
            residual = denoised + self.weight * (self.zero_filled - self.operator.normal(image)) - image
            distance = float(norm(image - self.equilibrium) / norm(self.equilibrium))
            record.add(distance, float(norm(residual) / norm(image)) / self.model.network.monotonicity, now)

        network = self.model.network
        self.model.network = CountedNetwork(network, watch)
        try:
            method(self, self.model, operator)
        except EnoughError:
            pass
        finally:
            self.model.network = network
        return record


def ours(problem: SolverCase, model: MOL, operator: LinearOperator) -> None:
    """Run MOL as it is."""
    model(problem.kspace, operator, conditioning=problem.conditioning)


def plain_map(problem: SolverCase, model: MOL, operator: LinearOperator) -> Callable[[Tensor], Tensor]:
    """Return `T(x) = x + (I + lambda A^H A)^-1 r(x)`, tightly solved."""
    denoise = problem.conditioning.denoiser(model.network)

    def regularised(x: Tensor) -> Tensor:
        return x + problem.weight * operator.normal(x)

    def step(x: Tensor) -> Tensor:
        residual = denoise(x) + problem.weight * problem.zero_filled - regularised(x)
        return x + conjugate_gradient(regularised, residual, tol=TIGHT, max_steps=500, verify=False).value

    return step


def plain(problem: SolverCase, model: MOL, operator: LinearOperator) -> None:
    """Iterate T."""
    step, x = plain_map(problem, model, operator), problem.start
    while True:
        x = step(x)


def from_torchdeq(name: str, options: dict[str, Any]) -> Callable[[SolverCase, MOL, LinearOperator], None]:
    """Return one of torchdeq's solvers, on the real channels of T."""

    def run(problem: SolverCase, model: MOL, operator: LinearOperator) -> None:
        step = plain_map(problem, model, operator)
        get_solver(name)(
            lambda x: to_channels(step(from_channels(x))),
            to_channels(problem.start).contiguous(),
            max_iter=10**4,
            tol=0.0,
            stop_mode="rel",
            **options,
        )

    return run


def authors(problem: SolverCase, model: MOL, operator: LinearOperator) -> None:
    """Iterate `x <- CG_5[(I + alpha lambda A^H A)^-1 ((1 - alpha) x + alpha H(x) + alpha lambda A^H b)]`."""
    denoise, x = problem.conditioning.denoiser(model.network), problem.start
    weight = AUTHORS_STEP * problem.weight
    while True:
        right_side = (1 - AUTHORS_STEP) * x + AUTHORS_STEP * denoise(x) + weight * problem.zero_filled
        x = conjugate_gradient(
            lambda z: z + weight * operator.normal(z),
            right_side,
            start=x,
            tol=0.0,
            max_steps=AUTHORS_INNER_STEPS,
            verify=False,
        ).value


METHODS: dict[str, Callable[[SolverCase, MOL, LinearOperator], None]] = {
    "ours": ours,
    "plain": plain,
    "Anderson": from_torchdeq("anderson", {}),
    "Broyden": from_torchdeq("broyden", {"LBFGS_thres": BROYDEN_MEMORY}),
    "authors": authors,
}


def brain(data: Path, rows: int | None) -> tuple[Tensor, Sense, float]:
    """Return k-space, operator and noise level of the brain, mask 0, complex128; of the middle rows only if asked."""
    scan = undersampled_brain(read_npy(data / BRAIN), 0)
    kspace, maps = scan.kspace.to(torch.complex128), scan.sensitivity_maps[:, 0].to(torch.complex128)
    if rows is not None and rows < maps.shape[-2]:
        kspace = crop_readout(kspace, rows)
        first = maps.shape[-2] // 2 - rows // 2
        maps = maps[..., first : first + rows, :].contiguous()
    return kspace, Sense(maps, scan.sampling_mask), scan.noise_level


def print_table(name: str, records: dict[str, Record], most: int) -> None:
    """Print one line a method: evaluations / normal operators / seconds to each goal."""
    goals = [(goal, value) for goal in records["ours"].goals for value in GOALS]
    print(f"\n{name}: network evaluations / normal operators / seconds until")
    print(f"{'':10s}" + "".join(f"{f'{goal} {value:g}':>26s}" for goal, value in goals))
    for method, record in records.items():
        cells = []
        for goal, value in goals:
            found = record.until(goal, value)
            last = record.trace["distance"][-1]
            missed = f">{most}" if math.isfinite(last) else "diverged"
            cells.append(missed if found is None else "{evaluations} / {normals} / {seconds:.2f}".format(**found))
        print(f"{method:10s}" + "".join(f"{cell:>26s}" for cell in cells), flush=True)


def draw(results: dict[str, dict[str, Record]], path: Path) -> None:
    """Write the distance to the equilibrium against network evaluations, one panel a model."""
    figure = Figure(figsize=(5.5 * len(results), 4.2))
    FigureCanvasAgg(figure)
    for axis, (name, records) in zip(figure.subplots(1, len(results), squeeze=False)[0], results.items(), strict=True):
        for method, record in records.items():
            distances = record.trace["distance"]
            width = 2.5 if method == "ours" else 1.3
            axis.loglog(range(1, len(distances) + 1), distances, label=method, linewidth=width)
        axis.set_ylim(0.5 * GOALS[-1], 2)
        axis.set_title(name)
        axis.set_xlabel("network evaluations")
        axis.set_ylabel("distance to the equilibrium")
        axis.grid(alpha=0.3)
        axis.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=100)


def main() -> None:
    """Run every method on every model; print the tables, write JSON and figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("MOLRECON_DATA"))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--out", type=Path, help="the figure, .png or .pdf")
    parser.add_argument("--rows", type=int, help="only so many readout positions from the middle")
    parser.add_argument("--most", type=int, default=3000, help="network evaluations after which a method is stopped")
    parser.add_argument("--only", choices=("default", "published"), help="one of the two models")
    arguments = parser.parse_args()
    if arguments.data is None:
        parser.error("no --data, and MOLRECON_DATA is not set")
    torch.set_num_threads(1)
    data = Path(arguments.data)
    models: dict[str, Callable[[], MOL]] = {
        DEFAULT_MODEL: lambda: load(DEFAULT_MODEL, MOL),
        "published MOL": lambda: load_published_mol(data / "published" / "mol" / "mol.pth.tar"),
    }
    if arguments.only:
        kept = DEFAULT_MODEL if arguments.only == "default" else "published MOL"
        models = {kept: models[kept]}
    scan = brain(data, arguments.rows)
    results: dict[str, dict[str, Record]] = {}
    report: dict[str, Any] = {}
    with torch.no_grad():
        for name, build in models.items():
            problem = SolverCase(build(), *scan)
            print(f"{name}: equilibrium within {float(problem.solution.error_bound):.1e}", flush=True)
            results[name] = {method: problem.run(run, arguments.most) for method, run in METHODS.items()}
            print_table(name, results[name], arguments.most)
            report[name] = {method: described(record) for method, record in results[name].items()}
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")
    if arguments.out:
        draw(results, arguments.out)


def described(record: Record) -> dict[str, Any]:
    """Return a record for the JSON: what each goal took (null: not reached), and the distances on the way."""
    until = {f"{goal} {value:g}": record.until(goal, value) for goal in record.goals for value in GOALS}
    distances = [value if math.isfinite(value) else None for value in record.trace["distance"]]
    return {"until": until, "distance": distances}


if __name__ == "__main__":
    main()

"""Peak memory of one training step against the number of iterations: an equilibrium model and an unrolled network.

    python tests/benchmarks/memory.py [--json FILE] [--figure FILE] [--iterations 5 10 20 50]

The same strictly monotone network of 16 features, 8 coils, one sample: MOL solved for exactly that many iterations,
backward as well as forward, with the implicit gradient; and MoDL with as many unrolls. 2D is 224 x 224 (4 levels, 2
cycles), 3D is 12 x 48 x 48 (3 levels, 1 cycle). Each measurement is a process of its own: it imports, makes data and
model, runs one step of the same model on a small problem, gives freed memory back, and then takes the step that is
measured. The number is the highest resident set during that step minus the resident set right before it; so Python,
torch, weights, k-space, maps and conditioning are not counted, gradients and all that is held for them are. The C
library is told to give every freed tensor back (MALLOC_MMAP_THRESHOLD_), since what it would keep varies from run to
run. Where there is a GPU the same is read from torch's allocator.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

# This script's folder is searched first, and has a file of the name of the package.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from torch import Tensor

from molrecon.networks import ResidualNetwork
from molrecon.reconstructors.base import Reconstructor
from molrecon.reconstructors.conditioning import condition
from molrecon.reconstructors.modl import MoDL
from molrecon.reconstructors.mol import MOL
from molrecon.simulation.phantom import coil_maps, phantom_volume
from molrecon.training.step_memory import training_memory
from operators import Sense

COILS, FEATURES, NOISE = 8, 16, 0.01
SHAPES: dict[str, tuple[int, ...]] = {"2D": (224, 224), "3D": (12, 48, 48)}
MODELS = ("MOL", "MoDL")
ITERATIONS = (5, 10, 20, 50)
Results = dict[str, dict[str, dict[int, float]]]  # MB by problem, model and iterations


def make_model(name: str, ndim: int, iterations: int) -> Reconstructor:
    """Return the model that iterates exactly so many times, if its residual goes on falling."""
    levels, cycles = (4, 2) if ndim == 2 else (3, 1)
    network = ResidualNetwork(ndim=ndim, features=FEATURES, levels=levels, cycles=cycles, monotonicity=0.01)
    if name == "MoDL":
        return MoDL(network, n_unrolls=iterations)
    model = MOL(network)
    model.solver = replace(model.solver, tol=0.0, backward_tol=0.0, max_steps=iterations)
    return model


def make_problem(shape: tuple[int, ...], device: str) -> tuple[Tensor, Sense]:
    """Return noisy k-space of the analytic head, undersampled along all axes but the first, and its operator."""
    slices, plane = (1, shape) if len(shape) == 2 else (shape[0], shape[1:])
    size = (plane[0], plane[1])
    generator = torch.Generator().manual_seed(0)
    image = torch.from_numpy(phantom_volume(slices, size)).reshape(1, *shape)
    maps = torch.from_numpy(coil_maps(slices, COILS, size)).transpose(0, 1).reshape(1, COILS, *shape)
    mask = torch.rand(1, 1, *shape[1:], generator=generator) < 0.35
    mask[..., shape[-1] // 2 - 4 : shape[-1] // 2 + 4] = True
    operator = Sense(maps / torch.linalg.vector_norm(maps, dim=1, keepdim=True), mask).to(device)
    kspace = operator(image.to(device))
    noise = NOISE * torch.randn(kspace.shape, dtype=kspace.dtype, generator=generator).to(device)
    return operator.sampling(kspace + noise), operator


def measure(problem: str, name: str, iterations: int) -> float | None:
    """Return the megabytes of one step, in this process."""
    logging.getLogger("molrecon").setLevel(logging.ERROR)  # gradients that miss their tolerance do not matter here
    device = "cuda" if torch.cuda.is_available() else "cpu"
    shape = SHAPES[problem]
    model = make_model(name, len(shape), iterations).to(device)
    used = None
    for size in ((16,) * len(shape), shape):
        kspace, operator = make_problem(size, device)
        used = training_memory(model, kspace, operator, condition(kspace, operator, NOISE))
    return None if used is None else round(used / 1e6, 1)


def measure_all(iterations: list[int]) -> Results:
    """Return the numbers of one process each."""
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(2**18)}
    results: Results = {}
    for problem in SHAPES:
        results[problem] = {name: {} for name in MODELS}
        for name in MODELS:
            for count in iterations:
                command = [sys.executable, __file__, "--one", problem, name, str(count)]
                used = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, env=environment).stdout)
                if used is None:
                    raise OSError("memory: neither CUDA nor /proc/self/clear_refs is there to measure with")
                results[problem][name][count] = used
                print(f"{problem} {name} {count}: {used} MB", file=sys.stderr, flush=True)
    return results


def table(results: Results) -> str:
    """Return the numbers as a markdown table."""
    iterations = list(next(iter(results.values()))["MOL"])
    lines = [
        "| training step, MB | " + " | ".join(f"{n} iterations" for n in iterations) + " |",
        "|---|" + "---:|" * len(iterations),
    ]
    for problem, models in results.items():
        size = " x ".join(map(str, SHAPES[problem]))
        for name, used in models.items():
            lines.append(f"| {name}, {size} | " + " | ".join(f"{used[n]:.0f}" for n in iterations) + " |")
        ratios = (models["MoDL"][n] / models["MOL"][n] for n in iterations)
        lines.append(f"| ratio, {size} | " + " | ".join(f"{ratio:.1f}" for ratio in ratios) + " |")
    return "\n".join(lines)


def draw(results: Results, path: Path) -> None:
    """Write the figure."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (problem, models) in zip(figure.subplots(1, len(results)), results.items(), strict=True):
        for name, used in models.items():
            label = {"MOL": "MOL, equilibrium", "MoDL": "MoDL, unrolled"}[name]
            axes.plot(list(used), list(used.values()), "o-", label=label)
        axes.set_title(f"{problem}, {' x '.join(map(str, SHAPES[problem]))}, {COILS} coils", fontsize=10)
        axes.set_xlabel("iterations")
        axes.set_ylabel("memory of a training step, MB")
        axes.set_ylim(bottom=0)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
    figure.savefig(path, dpi=120)


def main() -> None:
    """Run the processes, or be one of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--iterations", type=int, nargs="+", default=list(ITERATIONS))
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.one:
        problem, name, count = arguments.one
        return print(json.dumps(measure(problem, name, int(count))))
    results = measure_all(arguments.iterations)
    print(table(results))
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    if arguments.figure:
        draw(results, arguments.figure)


if __name__ == "__main__":
    main()

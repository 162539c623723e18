"""The Cartesian normal operator against the bare FFTs, sigpy, deepinv and BART; and CG-SENSE against `bart pics`.

    python tests/benchmarks/operators.py [--only WORD] [--seconds 10] [--threads 2] [--json FILE]

One process, the libraries in turn on the same data, medians and minima. The floor is two bare batched FFTs along the
undersampled axes of the coil images. BART's time of one normal operator is the difference of two `bart pics -l2` runs
with few and with many conjugate gradient iterations, divided by the iterations: its files lie in memory and its start
cancels. "cg" cases are 30 iterations: BART's time is that of the whole process with its files, ours that of reading the
same files and solving; `bart_iterations_ms` and `molrecon_tensors_ms` leave files and start out on both sides. Peak
memory is that of a child process, less what it held after its imports. Libraries that are missing give null.
"""

from __future__ import annotations

import argparse
import importlib.abc
import importlib.machinery
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

# This script has the name of the package it measures, and its folder is searched first.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import torch
from torch import Tensor

from molrecon.io import read_cfl, write_cfl
from molrecon.reconstructors.classical import CGSense
from molrecon.simulation.phantom import coil_maps, phantom_volume
from molrecon.solvers.solver_settings import SolverSettings
from operators import Sense, centred_fft, coil_chunks, random_mask
from operators.hybrid import hybrid

REGULARISATION, CG_STEPS = 0.01, 30
NAMES = ("floor", "molrecon", "sigpy", "deepinv", "bart")
Run = Callable[[], object]
Result = dict[str, float | None]


class Placeholders(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Stands in for torchvision, which deepinv imports throughout and its MRI operators never use.

    The torchvision of the package index brings its own torch, which would replace the one under test.
    """

    def find_spec(self, name: str, path: object = None, target: object = None) -> importlib.machinery.ModuleSpec | None:
        ours = name.partition(".")[0] == "torchvision"
        return importlib.machinery.ModuleSpec(name, self, is_package=True) if ours else None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        return Placeholder(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        pass


class Placeholder(types.ModuleType):
    """A module with an empty class for every name."""

    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {"NEAREST": None})


def import_deepinv() -> Any:
    """Return deepinv, with placeholders for torchvision when that is missing; None without deepinv."""
    if importlib.util.find_spec("torchvision") is None:
        sys.meta_path.append(Placeholders())
    try:
        import deepinv
    except ImportError:
        return None
    return deepinv


def make_slice(shape: tuple[int, int], coils: int = 15) -> tuple[Tensor, Sense]:
    """Return the k-space (1, coil, rows, cols) of a noisy phantom, 1D random 4x, and its operator."""
    image = torch.from_numpy(phantom_volume(1, shape))
    maps = torch.from_numpy(coil_maps(1, coils, shape))
    maps = maps / torch.linalg.vector_norm(maps, dim=1, keepdim=True)
    mask = torch.from_numpy(random_mask(shape[1], 4, 0.08, 0))[None, None]
    coil_images = maps * image[:, None]
    generator = torch.Generator().manual_seed(0)
    noise = 0.005 * torch.randn(coil_images.shape, dtype=torch.complex64, generator=generator)
    operator = Sense(maps, mask)
    return operator.sampling(centred_fft(coil_images + noise, (-2, -1))), operator


def make_volume(shape: tuple[int, int, int], coils: int = 12) -> tuple[Tensor, Sense]:
    """Return a random image (1, *shape) and an operator with maps of norm one and 2D undersampling by 4."""
    generator = torch.Generator().manual_seed(0)
    maps = torch.empty(1, coils, *shape, dtype=torch.complex64)
    for coil in range(coils):
        maps[0, coil] = torch.randn(shape, dtype=torch.complex64, generator=generator) / coils**0.5
    mask = torch.rand(1, 1, *shape[1:], generator=generator) < 0.25
    return torch.randn(1, *shape, dtype=torch.complex64, generator=generator), Sense(maps, mask)


def in_turn(runs: dict[str, Run], seconds: float) -> dict[str, list[float]]:
    """Return the times in ms of each run, all runs once per round until the time is over, three rounds at least.

    A run that takes longer than a tenth of the time sits out after its third round: quick ones get enough rounds.
    """
    times: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run()
    stop = time.perf_counter() + seconds
    rounds = 0
    while rounds < 3 or time.perf_counter() < stop:
        for name, run in runs.items():
            if rounds >= 3 and statistics.median(times[name]) > 100 * seconds:
                continue
            start = time.perf_counter()
            run()
            times[name].append(1e3 * (time.perf_counter() - start))
        rounds += 1
    return times


def summary(times: dict[str, list[float]]) -> Result:
    """Return median and minimum per name, null for what was not run."""
    result: Result = {f"{name}_ms": None for name in NAMES}
    for name, values in times.items():
        result[f"{name}_ms"] = round(statistics.median(values), 3)
        result[f"{name}_min_ms"] = round(min(values), 3)
    return result


def normal_case(image: Tensor, operator: Sense, steps: tuple[int, int], seconds: float) -> Result:
    """Time one normal operator of each library on an image (1, *spatial)."""
    maps, axes = operator.sensitivity_maps, operator.undersampled
    mask = operator.sampling_mask.expand(1, *maps.shape[2:])
    expected = operator.normal(image)[0]
    coil_images = maps * image[:, None]
    runs: dict[str, Run] = {
        "floor": lambda: torch.fft.ifftn(torch.fft.fftn(coil_images, dim=axes), dim=axes),
        "molrecon": lambda: operator.normal(image),
    }
    if importlib.util.find_spec("sigpy"):
        from sigpy.mri.linop import Sense as SigpySense

        theirs = SigpySense(maps[0].numpy(), weights=mask[0].float().numpy())
        array = image[0].numpy()
        runs["sigpy"] = lambda: theirs.N * array
        agree("sigpy", torch.from_numpy(theirs.N * array), expected)
    if deepinv := import_deepinv():
        physics = deepinv.physics.MultiCoilMRI(mask=mask[:, None].float(), coil_maps=maps, three_d=mask.ndim == 4)
        real = torch.view_as_real(image).movedim(-1, 1).contiguous()
        runs["deepinv"] = lambda: physics.A_adjoint_A(real)
        agree("deepinv", torch.view_as_complex(physics.A_adjoint_A(real)[0].movedim(0, -1).contiguous()), expected)
    times = in_turn(runs, seconds)
    if shutil.which("bart"):
        with memory_folder() as name:
            folder = Path(name)
            write_bart(folder, operator(image), maps)
            few, many = steps
            walls = in_turn({"few": lambda: bart_pics(folder, few), "many": lambda: bart_pics(folder, many)}, seconds)
            pairs = zip(walls["many"], walls["few"], strict=False)
            times["bart"] = [(long - short) / (many - few) for long, short in pairs]
    return summary(times)


def cg_case(kspace: Tensor, operator: Sense, seconds: float) -> Result:
    """Time 30 iterations of CG-SENSE from files in memory, and give the residual of the normal equations for both."""
    mask = operator.sampling_mask
    solver = CGSense(REGULARISATION, solver=SolverSettings(tol=0.0, max_steps=CG_STEPS))
    with memory_folder() as name:
        folder = Path(name)
        write_bart(folder, kspace, operator.sensitivity_maps)

        def from_files() -> Tensor:
            k, s = (np.ascontiguousarray(read_cfl(folder / n)[:, :, 0].transpose(2, 0, 1))[None] for n in "ks")
            return solver(torch.from_numpy(k), Sense(torch.from_numpy(s), mask)).value

        runs: dict[str, Run] = {"molrecon": from_files, "molrecon_tensors": lambda: solver(kspace, operator)}
        extra: Result = {"molrecon_residual": residual(from_files(), kspace, operator)}
        if shutil.which("bart"):
            runs["bart"] = lambda: bart_pics(folder, CG_STEPS)
            runs["bart_twice"] = lambda: bart_pics(folder, 2 * CG_STEPS)
            bart_pics(folder, CG_STEPS)
            theirs = torch.from_numpy(read_cfl(folder / "x").reshape(kspace.shape[2:], order="A").copy())[None]
            extra["bart_residual"] = residual(theirs, kspace, operator)
        times = in_turn(runs, seconds)
    if twice := times.pop("bart_twice", None):
        extra["bart_iterations_ms"] = round(statistics.median(twice) - statistics.median(times["bart"]), 3)
    return {**summary(times), **extra}


def residual(image: Tensor, kspace: Tensor, operator: Sense) -> float:
    """Return `|A^H (A x - b) + mu x| / |A^H b|`."""
    right = operator.adjoint(kspace)
    left = operator.adjoint(operator(image)) + REGULARISATION * image
    return float(torch.linalg.vector_norm(left - right) / torch.linalg.vector_norm(right))


def agree(who: str, theirs: Tensor, ours: Tensor) -> None:
    """Raise unless both libraries computed the same."""
    gap = float(torch.linalg.vector_norm(theirs - ours) / torch.linalg.vector_norm(ours))
    if gap > 1e-5:
        raise RuntimeError(f"{who}: normal operator differs by {gap:.1e}, expected rounding")


def memory_folder() -> tempfile.TemporaryDirectory[str]:
    """Return a temporary folder in memory, where there is such a place."""
    return tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None)


def write_bart(folder: Path, kspace: Tensor, maps: Tensor) -> None:
    """Write k-space and maps (1, coil, *spatial) with BART's axes (x, y, z, coil)."""
    for name, tensor in (("k", kspace), ("s", maps)):
        array = tensor[0].movedim(0, -1).numpy()
        write_cfl(folder / name, array if array.ndim == 4 else array[:, :, None])


def bart_pics(folder: Path, steps: int) -> None:
    """Run `bart pics -l2` without scaling, so that it minimises what ours does."""
    command = ["bart", "pics", "-S", "-w1", "-l2", f"-r{REGULARISATION}", f"-i{steps}", "k", "s", "x"]
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)


def peak_of_child(shape: Sequence[int], coils: int) -> Result:
    """Return the peak memory of building and applying the volume's operator, and what is allowed: see the module."""
    command = [sys.executable, __file__, "--peak", *map(str, (*shape, coils))]
    used = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    image = int(np.prod(shape)) * 8
    chunk = max(coil_chunks.CHUNK_BYTES, image // shape[0] * coils)
    return {"molrecon_peak_mb": round(used, 1), "allowed_peak_mb": round((image * (coils + 3) + chunk) / 1e6, 1)}


def print_peak(shape: Sequence[int], coils: int) -> None:
    """Print by how many MB the peak memory of this process grows while it applies the normal operator."""
    torch.fft.ifftn(torch.fft.fftn(torch.ones(4, 4, dtype=torch.complex64)))
    before = peak_mb()
    image, operator = make_volume((shape[0], shape[1], shape[2]), coils)
    operator.normal(image)
    print(peak_mb() - before)


def peak_mb() -> float:
    """Return the peak memory of this process."""
    status = Path("/proc/self/status")
    if status.is_file():  # on Linux the ru_maxrss of a child starts at what its parent held
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if "VmHWM" in line) * 1024 / 1e6
    scale = 1e6 if platform.system() == "Darwin" else 1e6 / 1024  # bytes there, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / scale


def table(results: dict[str, Result]) -> str:
    """Return the medians, and the minima in brackets, one case a row."""
    lines = [f"{'ms, median (minimum)':28s}" + "".join(f"{name:>20s}" for name in NAMES)]
    for case, result in results.items():
        cells = []
        for name in NAMES:
            median, least = result[f"{name}_ms"], result.get(f"{name}_min_ms")
            cells.append("-" if median is None else f"{median:.4g} ({least:.4g})")
        lines.append(f"{case:28s}" + "".join(f"{cell:>20s}" for cell in cells))
        others = {k: v for k, v in result.items() if k.removesuffix("_ms").removesuffix("_min") not in NAMES}
        lines += [f"    {key} {value:.4g}" for key, value in others.items() if value is not None]
    return "\n".join(lines)


def main() -> None:
    """Run the cases."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="cases whose name contains this word: 2d, 3d, cg")
    parser.add_argument("--seconds", type=float, default=10.0, help="per case and group of libraries")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--peak", type=int, nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.peak:
        return print_peak(arguments.peak[:3], arguments.peak[3])
    seconds = arguments.seconds
    volume, coils = (192, 192, 128), 12

    def flat(shape: tuple[int, int]) -> Result:
        kspace, operator = make_slice(shape)
        return normal_case(operator.adjoint(kspace), operator, (10, 60), seconds)

    def cropped(shape: tuple[int, int], rows: int) -> Result:
        kspace, operator = make_slice(shape)
        problem = hybrid(kspace, operator, rows)
        crop = in_turn({"hybrid": lambda: hybrid(kspace, operator, rows)}, seconds / 5)
        assert isinstance(problem.operator, Sense)
        return {
            **cg_case(problem.kspace, problem.operator, seconds),
            "hybrid_ms": round(statistics.median(crop["hybrid"]), 3),
        }

    cases: dict[str, Callable[[], Result]] = {
        "2d 15x640x368": lambda: flat((640, 368)),
        "2d 15x320x320": lambda: flat((320, 320)),
        "cg 15x640x368": lambda: cg_case(*make_slice((640, 368)), seconds),
        "cg 15x640x368, 320 rows": lambda: cropped((640, 368), 320),
        "3d 12x192x192x128": lambda: {
            **normal_case(*make_volume(volume, coils), (2, 6), seconds),
            **peak_of_child(volume, coils),
        },
    }
    with torch.no_grad():
        results = {name: case() for name, case in cases.items() if arguments.only in name}
    print(table(results))
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()

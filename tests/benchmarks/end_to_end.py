"""From measured k-space to the image: molrecon at three tolerances, unrolled networks, sigpy and BART, side by side.

    MOLRECON_DATA=DATA python tests/benchmarks/end_to_end.py [--only WORD] [--rounds 3] [--threads 1] [--json FILE]
        [--figure FILE]

Two slices: the real 8-coil brain, 230 x 180, at 1D random 4x with 24 calibration lines (left out without
MOLRECON_DATA), and the packaged head refined to 640 x 368, seen by 15 simulated coils, at the same sampling. One
process, set up as the `molrecon` command sets itself up, whose only children are BART's, takes the methods in turn.
`seconds` is the median over the rounds, coil maps and noise level included: molrecon's own for all but BART, which has
those of `bart ecalib -m1`. BART's time holds the start of its programs and its files, which lie in memory; molrecon's
starts from arrays. `cpu_seconds` is the processor time of process and children, which other programs on the machine
change less. BART's weights are those with the best PSNR on the slice in question, of a grid in steps of two.

PSNR is against the fully sampled scan, combined by molrecon's maps (the real brain), or the noise-free object as its
coils see it (the simulated slice), over the pixels that the maps of both packages cover. The file:
{case: {method: {"seconds", "seconds_minimum", "solve_seconds", "cpu_seconds", "psnr", "network_evaluations", ...}}}.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

# This script's folder is searched first, and has a file of the name of the package.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from molrecon.io import RawVolume, read_cfl, read_npy, write_cfl
from molrecon.networks import Denoiser
from molrecon.reconstructors.base import Reconstructor
from molrecon.reconstructors.classical import CGSense, L1Wavelet
from molrecon.reconstructors.defaults import DEFAULT_MODEL
from molrecon.scans.comparison import reference_image, undersample
from molrecon.scans.memory.allocator import keep_freed_memory
from molrecon.scans.metrics import psnr
from molrecon.scans.preparation import PreparedVolume, prepare
from molrecon.scans.scan import Scan
from molrecon.simulation.sample import NOISE_LEVEL, sample_image, sample_maps
from molrecon.solvers.solution import Solution
from molrecon.weights import load
from operators import centred_fft, random_mask

BRAIN = "mri/brain_mprage_8ch_230x180_ksp_c64.npy"
TOLERANCES = (1e-2, 1e-3, 1e-4)
UNROLLED = {"ADMM-Net": "admm-net-2d", "MoDL": "modl-2d", "VarNet": "varnet-brain-2d"}
BART_STEPS = (30, 100)
LINES = ("molrecon", "BART")  # in the figure: one method at several efforts
ACCELERATION, CALIBRATION, SEED = 4, 24, 0


@dataclass(frozen=True, eq=False)
class Case:
    """An undersampled scan of one slice, what it shows without undersampling, (1, rows, cols), and BART's weight."""

    volume: RawVolume
    reference: np.ndarray
    bart_weight: float


@dataclass(frozen=True, eq=False)
class Result:
    """An image (1, rows, cols), how long the reconstruction took without the maps, and the solution, if it has one."""

    image: np.ndarray
    solve_seconds: float
    solution: Solution | None = None


Method = Callable[[RawVolume], Result]


def real_brain() -> Case:
    """Return the measured 8-coil brain."""
    full = read_npy(Path(os.environ["MOLRECON_DATA"]) / BRAIN)
    volume = _undersampled(full)
    return Case(volume, reference_image(full, prepare(volume).first_set()), bart_weight=2e-3)


def simulated_slice(shape: tuple[int, int] = (640, 368), coils: int = 15) -> Case:
    """Return the middle slice of the packaged head on a finer grid."""
    image, maps = _refined(sample_image(1)[0], shape), _refined(sample_maps(1, coils)[0], shape)
    noise = np.random.default_rng(SEED).standard_normal((2, *maps.shape), np.float32) * np.float32(NOISE_LEVEL / 2**0.5)
    kspace = centred_fft(torch.from_numpy(maps * image), (-2, -1)).numpy() + noise[0] + 1j * noise[1]
    full = Scan.from_arrays(kspace[None]).frames[0].volume
    return Case(_undersampled(full), np.linalg.norm(maps * image, axis=0)[None], bart_weight=8e-3)


def _refined(image: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Return a complex image (..., rows, cols) on another grid over the same field of view."""
    factors = (*[1] * (image.ndim - 2), shape[0] / image.shape[-2], shape[1] / image.shape[-1])
    real, imaginary = (ndimage.zoom(part, factors, order=1) for part in (image.real, image.imag))
    return np.asarray(real + 1j * imaginary, np.complex64)


def _undersampled(full: RawVolume) -> RawVolume:
    cols = full.kspace.shape[-1]
    return undersample(full, random_mask(cols, ACCELERATION, CALIBRATION / cols, SEED), 0.0, [SEED])


def ours(model: Reconstructor, tol: float | None = None) -> Method:
    """Return a method of this package, from the scan to the magnitude."""
    solver = None if tol is None or model.solver is None else replace(model.solver, tol=tol)

    @torch.no_grad()
    def run(volume: RawVolume) -> Result:
        prepared = prepare(volume)
        prepared = prepared if model.takes_sets else prepared.first_set()
        start = time.perf_counter()
        solution = model(prepared.kspace, prepared.operator([0]), prepared.noise_level, solver=solver)
        seconds = time.perf_counter() - start
        return Result(prepared.magnitude(solution.value), seconds, solution)

    return run


def bart(folder: Path, weight: float, steps: int) -> Method:
    """Return BART's maps and L1-wavelet, with its files in a folder."""

    def run(volume: RawVolume) -> Result:
        write_cfl(folder / "k", volume.kspace[0].transpose(1, 2, 0)[:, :, None])
        _bart(folder, "ecalib", "-m1", "k", "s")
        start = time.perf_counter()
        _bart(folder, "pics", "-S", "-l1", f"-r{weight}", f"-i{steps}", "k", "s", "x")
        seconds = time.perf_counter() - start
        return Result(np.abs(read_cfl(folder / "x")).reshape(volume.kspace.shape[2:], order="A")[None], seconds)

    return run


def _bart(folder: Path, *arguments: str) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    subprocess.run(["bart", *arguments], cwd=folder, env=environment, check=True, capture_output=True)


def all_methods(case: Case, folder: Path) -> dict[str, Method]:
    """Return the methods by name; BART's files lie in the folder."""
    model = load(DEFAULT_MODEL, Reconstructor)
    methods = {f"molrecon {tol:.0e}": ours(model, tol) for tol in TOLERANCES}
    methods |= {name: ours(load(stored, Reconstructor)) for name, stored in UNROLLED.items()}
    methods |= {"CG-SENSE": ours(CGSense()), "sigpy L1": ours(L1Wavelet())}
    if shutil.which("bart"):
        methods |= {f"BART l1 -i{steps}": bart(folder, case.bart_weight, steps) for steps in BART_STEPS}
    return methods


def score(case: Case, support: np.ndarray, image: np.ndarray) -> float:
    """Return the PSNR over the pixels that all maps cover; the others count as zero error."""
    return psnr(case.reference * support, image * support)


def common_support(volume: RawVolume, prepared: PreparedVolume, folder: Path) -> np.ndarray:
    """Return where the maps of both packages are not zero, (1, rows, cols) bool."""
    covered: Tensor = prepared.sensitivity_maps[0].abs().amax((0, 1)) > 0
    if not shutil.which("bart"):
        return covered.numpy()[None]
    write_cfl(folder / "k", volume.kspace[0].transpose(1, 2, 0)[:, :, None])
    _bart(folder, "ecalib", "-m1", "k", "s")
    theirs: np.ndarray = np.abs(read_cfl(folder / "s")[:, :, 0]).reshape(*volume.kspace.shape[2:], -1).max(-1) > 0
    return (covered.numpy() & theirs)[None]


@contextmanager
def counted_evaluations() -> Iterator[list[int]]:
    """Count the evaluations of every denoiser meanwhile; the only entry of the list is their number."""
    count = [0]
    originals = {cls: cls.__dict__["denoiser"] for cls in _subclasses(Denoiser) if "denoiser" in cls.__dict__}

    def counting(original: Callable[..., Callable[[Tensor], Tensor]]) -> Callable[..., Callable[[Tensor], Tensor]]:
        def denoiser(*arguments: Any, **named: Any) -> Callable[[Tensor], Tensor]:
            denoise = original(*arguments, **named)

            def counted(image: Tensor) -> Tensor:
                count[0] += 1
                return denoise(image)

            return counted

        return denoiser

    try:
        for cls, original in originals.items():
            cls.denoiser = counting(original)
        yield count
    finally:
        for cls, original in originals.items():
            cls.denoiser = original


def _subclasses(cls: type[Any]) -> list[type[Any]]:
    return [found for direct in cls.__subclasses__() for found in (direct, *_subclasses(direct))]


def measure(case: Case, rounds: int) -> dict[str, dict[str, Any]]:
    """Return the report of a case, by method."""
    report: dict[str, dict[str, Any]] = {}
    times: dict[str, list[tuple[float, float, float]]] = {}
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as temporary:
        folder = Path(temporary)
        support = common_support(case.volume, prepare(case.volume), folder)
        methods = all_methods(case, folder)
        for _ in range(rounds):
            for name, method in methods.items():
                with counted_evaluations() as count:
                    start, busy = time.perf_counter(), cpu_seconds()
                    result = method(case.volume)
                    taken = (time.perf_counter() - start, cpu_seconds() - busy, result.solve_seconds)
                times.setdefault(name, []).append(taken)
                report[name] = {
                    "psnr": round(score(case, support, result.image), 3),
                    "network_evaluations": count[0],
                    **_convergence(result.solution),
                }
    for name, rows in times.items():
        for key, values in zip(("seconds", "cpu_seconds", "solve_seconds"), zip(*rows, strict=True), strict=True):
            report[name] |= {key: round(statistics.median(values), 3), f"{key}_minimum": round(min(values), 3)}
    return report


def _convergence(solution: Solution | None) -> dict[str, Any]:
    if solution is None or solution.kind == "none":
        return {}
    return {"error_bound": float(solution.error_bound[0]), "n_steps": int(solution.n_steps[0])}


def cpu_seconds() -> float:
    """Return the processor time so far of this process and of the children that have ended."""
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def table(report: dict[str, dict[str, Any]]) -> str:
    """Return medians and minima in seconds, and PSNR, a method a row."""
    lines = [f"{'':16s}{'seconds':>18s}{'of it solving':>18s}{'CPU':>18s}{'PSNR':>8s}{'evaluations':>13s}{'steps':>7s}"]
    for name, row in report.items():
        cells = [f"{row[key]:.2f} ({row[f'{key}_minimum']:.2f})" for key in ("seconds", "solve_seconds", "cpu_seconds")]
        counts = f"{row['psnr']:8.2f}{row['network_evaluations']:13d}{row.get('n_steps', '-'):>7}"
        lines.append(f"{name:16s}" + "".join(f"{cell:>18s}" for cell in cells) + counts)
    return "\n".join(lines)


def draw(results: dict[str, dict[str, dict[str, Any]]], path: Path) -> None:
    """Write the figure: PSNR against seconds, a case a panel."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter

    figure = Figure(figsize=(5.2 * len(results), 4))
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(results), squeeze=False)[0]
    for axis, (case, report) in zip(panels, results.items(), strict=True):
        for family, colour in (("molrecon", "C3"), ("BART", "C0"), (None, "C7")):
            members = [name for name in report if (name.split()[0] if name.split()[0] in LINES else None) == family]
            if not members:
                continue
            points = [(report[name]["seconds"], report[name]["psnr"]) for name in members]
            axis.plot(*zip(*points, strict=True), "o-" if family else "o", color=colour)
            if family:  # the points of a line lie close together: one label, above its last one
                efforts = ", ".join(name.split()[-1] for name in members)
                place = {"xytext": (0, 8), "ha": "center"}
                axis.annotate(f"{family} {efforts}", points[-1], textcoords="offset points", fontsize=7, **place)
                continue
            for name, point in zip(members, points, strict=True):
                axis.annotate(name, point, xytext=(3, 3), textcoords="offset points", fontsize=7)
        axis.set(xscale="log", xlabel="seconds, coil maps included", title=case)
        axis.margins(x=0.25, y=0.25)
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter("{x:g}")
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.grid(alpha=0.3)
    panels[0].set_ylabel("PSNR (dB)")
    figure.tight_layout()
    figure.savefig(path)


def main() -> None:
    """Run the cases."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="cases whose name contains this word: brain, slice")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--figure", type=Path, help=".svg or .png")
    arguments = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(arguments.threads)
    cases: dict[str, Callable[[], Case]] = {
        "8-coil brain 230x180": real_brain,
        "15-coil slice 640x368": simulated_slice,
    }
    if "MOLRECON_DATA" not in os.environ:
        print("the 8-coil brain is left out: MOLRECON_DATA does not name its folder", file=sys.stderr)
        del cases["8-coil brain 230x180"]
    results = {}
    for name, build in cases.items():
        if arguments.only in name:
            results[name] = measure(build(), arguments.rounds)
            print(f"{name}, {arguments.threads} threads\n{table(results[name])}", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n")
    if arguments.figure:
        draw(results, arguments.figure)


if __name__ == "__main__":
    main()

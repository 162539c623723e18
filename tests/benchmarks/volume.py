"""A large volume reconstructed inside a memory budget, in a process that the kernel holds to it.

    python tests/benchmarks/volume.py FOLDER [--memory 8GiB] [--model NAME_OR_FILE] [--max-steps 100] [--tol 1e-3]

By default 256 x 256 x 128 voxels, 12 coils, one in six lines measured (variable-density Poisson disc in slices and
columns), noise of 0.01 of the fat's intensity. One process writes the scan to FOLDER, coil by coil, unless it is there
already. Another reads it, plans its memory, and reconstructs; its private memory is limited to the budget
by the kernel (RLIMIT_DATA), so that exceeding it is an error. Printed, as JSON: the plan, the peak resident set of
that whole process, seconds, iterations, error bound, and the magnitude's PSNR against the noise-free image.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

from molrecon.weights import load

# This script's folder is searched first, and has a file of the name of the package.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import torch
import torch.nn.functional as nnf
from torch import Tensor

from molrecon.networks import ResidualNetwork
from molrecon.reconstructors.mol import MOL
from molrecon.scans.memory import fit_to_memory, parse_size, plan_memory
from molrecon.scans.metrics import psnr
from molrecon.simulation.phantom import coil_maps, phantom_volume
from operators import Sense, centred_fft, poisson_disc_mask

ACCELERATION, CALIBRATION, NOISE = 6.0, (16, 16), 0.01
MAP_GRID = 4  # the receive fields, which are smooth, are computed on a grid this much coarser


def make_scan(folder: Path, shape: tuple[int, int, int], coils: int) -> None:
    """Write reference, mask, maps and k-space, axes (row, slice, column), never holding more than a coil of them."""
    rows, slices, cols = shape
    image = torch.from_numpy(phantom_volume(slices, (rows, cols))).transpose(0, 1)
    fields = coil_maps(slices // MAP_GRID, coils, (rows // MAP_GRID, cols // MAP_GRID))  # slice, coil, row, column
    combined = sum(_fine(fields[:, c], shape).abs().square() for c in range(coils)) ** 0.5
    assert isinstance(combined, Tensor)
    mask = torch.from_numpy(poisson_disc_mask((slices, cols), ACCELERATION, 0, CALIBRATION))
    image = image * combined
    generator = torch.Generator().manual_seed(0)
    folder.mkdir(parents=True, exist_ok=True)
    files = [
        np.lib.format.open_memmap(folder / f"{name}.npy", mode="w+", dtype=np.complex64, shape=(coils, *shape))
        for name in ("maps", "kspace")
    ]
    for c in range(coils):
        maps = _fine(fields[:, c], shape) / combined
        noise = NOISE * torch.randn(shape, dtype=torch.complex64, generator=generator)
        files[0][c] = maps.numpy()
        files[1][c] = torch.where(mask, centred_fft(maps * image, (0, 1, 2)) + noise, 0).numpy()
    np.save(folder / "mask.npy", mask.numpy())
    np.save(folder / "reference.npy", image.abs().numpy())  # last: its presence says that all is written


def _fine(field: np.ndarray, shape: tuple[int, int, int]) -> Tensor:
    """Return a field (slice, row, column) on the fine grid, as (row, slice, column)."""
    parts = torch.view_as_real(torch.from_numpy(field).transpose(0, 1).contiguous()).movedim(-1, 0)[None]
    fine = nnf.interpolate(parts, size=shape, mode="trilinear")[0]
    return torch.view_as_complex(fine.movedim(0, -1).contiguous())


@torch.no_grad()
def reconstruct(folder: Path, memory: str, model: str | None, max_steps: int, tol: float) -> None:
    """Reconstruct the scan inside the budget, write image.npy and print the report."""
    budget = parse_size(memory)
    resource.setrlimit(resource.RLIMIT_DATA, (budget, budget))
    mol = load(model, MOL) if model else MOL(ResidualNetwork(ndim=3, levels=2, layer="sll")).eval()
    mol.solver = replace(mol.solver, tol=tol, max_steps=max_steps)
    kspace, maps = (torch.from_numpy(np.load(folder / f"{name}.npy"))[None] for name in ("kspace", "maps"))
    mask = torch.from_numpy(np.load(folder / "mask.npy"))
    plan = plan_memory(budget, mol.network, kspace.shape[2:], kspace.shape[1], window=mol.solver.window)
    print(plan.describe(), file=sys.stderr, flush=True)
    mol = fit_to_memory(mol, plan)
    started = time.perf_counter()
    solution = mol(kspace, Sense(maps, mask[None, None]), NOISE)
    seconds = time.perf_counter() - started
    np.save(folder / "image.npy", solution.value[0].abs().numpy())
    report = {
        "plan": plan.describe(),
        "estimated_gib": plan.total / 2**30,
        "peak_gib": peak_kib() / 2**20,
        "seconds": seconds,
        "cpu_seconds": sum(resource.getrusage(resource.RUSAGE_SELF)[:2]),
        "n_steps": int(solution.n_steps),
        "error_bound": float(solution.error_bound),
        "bounds": [float(bound) for bound in solution.residuals[:, 0]],
    }
    print(json.dumps(report))


def peak_kib() -> int:
    """Return the peak resident set of this process alone: ru_maxrss starts at what the parent held."""
    return next(int(line.split()[1]) for line in open("/proc/self/status") if "VmHWM" in line)


def main() -> None:
    """Run the processes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="of the scan, about 2 GB")
    parser.add_argument("--memory", default="8GiB")
    parser.add_argument("--model", help="packaged 3D model or weights file; default: an untrained one")
    parser.add_argument("--max-steps", type=int, default=100)
    parser.add_argument("--tol", type=float, default=1e-3, help="of the error bound")
    parser.add_argument("--shape", type=int, nargs=3, default=(256, 128, 256), metavar=("ROWS", "SLICES", "COLS"))
    parser.add_argument("--coils", type=int, default=12)
    parser.add_argument("--stage", choices=("make", "reconstruct"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.stage == "make":
        return make_scan(arguments.folder, tuple(arguments.shape), arguments.coils)
    if arguments.stage == "reconstruct":
        return reconstruct(arguments.folder, arguments.memory, arguments.model, arguments.max_steps, arguments.tol)
    command = [sys.executable, __file__, *sys.argv[1:]]
    if not (arguments.folder / "reference.npy").is_file():
        subprocess.run([*command, "--stage", "make"], check=True)
    done = subprocess.run([*command, "--stage", "reconstruct"], check=True, stdout=subprocess.PIPE, text=True)
    report = json.loads(done.stdout)
    reference, image = (np.load(arguments.folder / f"{name}.npy") for name in ("reference", "image"))
    print(json.dumps({**report, "psnr": psnr(reference, image)}, indent=2))


if __name__ == "__main__":
    main()

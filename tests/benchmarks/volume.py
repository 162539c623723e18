"""A large 3D volume reconstructed by the command inside a memory budget, from a file made here.

    python tests/benchmarks/volume.py FOLDER [--memory 8GiB] [--model auto] [--tol 1e-3] [--shape ROWS SLICES COLS]

By default 256 x 256 x 128 voxels, 12 coils, one in six lines measured (variable-density Poisson disc in slices and
columns), noise of 0.01 of the fat's intensity. One process writes the scan as ISMRMRD to FOLDER/volume.h5, unless it is
there already. Another is `molrecon reconstruct` with that budget; when it has ended, the kernel says what
it held at most. A third is CG-SENSE by the same command. Printed, as JSON: the command, seconds, the peak resident set,
what the sidecar says of plan, iterations and error bound, and PSNR against the noise-free root sum of squares.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

# This script's folder is searched first, and has a file of the name of the package.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import h5py
import ismrmrd
import numpy as np
import torch
import torch.nn.functional as nnf
from torch import Tensor

from molrecon.scans.metrics import psnr
from molrecon.simulation.phantom import coil_maps, phantom_volume, voxel_size
from operators import centred_fft, poisson_disc_mask

ACCELERATION, CALIBRATION, NOISE = 6.0, (24, 24), 0.01
MAP_GRID = 4  # the receive fields, which are smooth, are computed on a grid this much coarser


def make_scan(folder: Path, shape: tuple[int, int, int], coils: int) -> None:
    """Write volume.h5 and reference.npy, axes (row, slice, column), never holding more than a coil of k-space."""
    rows, slices, cols = shape
    image = torch.from_numpy(phantom_volume(slices, (rows, cols))).transpose(0, 1)
    fields = coil_maps(slices // MAP_GRID, coils, (rows // MAP_GRID, cols // MAP_GRID))  # slice, coil, row, column
    mask = torch.from_numpy(poisson_disc_mask((slices, cols), ACCELERATION, 0, CALIBRATION))
    generator = torch.Generator().manual_seed(0)
    folder.mkdir(parents=True, exist_ok=True)
    lines = np.empty((int(mask.sum()), coils, rows), np.complex64)
    energy = torch.zeros(shape)
    for c in range(coils):
        coil_image = _fine(fields[:, c], shape) * image
        energy += coil_image.abs().square()
        noise = NOISE * torch.randn(shape, dtype=torch.complex64, generator=generator)
        lines[:, c] = (centred_fft(coil_image, (0, 1, 2)) + noise)[:, mask].T.numpy()
    _write_mrd(folder / "volume.h5", lines, mask.numpy(), shape)
    np.save(folder / "reference.npy", energy.sqrt().numpy())  # last: its presence says that all is written


def _write_mrd(path: Path, lines: np.ndarray, mask: np.ndarray, shape: tuple[int, int, int]) -> None:
    rows, slices, cols = shape
    row_mm, col_mm, slice_mm = voxel_size(slices, (rows, cols))

    def space(name: str) -> str:
        return (
            f"<{name}><matrixSize><x>{rows}</x><y>{cols}</y><z>{slices}</z></matrixSize><fieldOfView_mm>"
            f"<x>{rows * row_mm}</x><y>{cols * col_mm}</y><z>{slices * slice_mm}</z></fieldOfView_mm></{name}>"
        )

    def limits(name: str, n: int) -> str:
        return f"<{name}><minimum>0</minimum><maximum>{n - 1}</maximum><center>{n // 2}</center></{name}>"

    header = (
        '<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD"><experimentalConditions><H1resonanceFrequency_Hz>127729200'
        f"</H1resonanceFrequency_Hz></experimentalConditions><encoding>{space('encodedSpace')}{space('reconSpace')}"
        f"<encodingLimits>{limits('kspace_encoding_step_1', cols)}{limits('kspace_encoding_step_2', slices)}"
        "</encodingLimits><trajectory>cartesian</trajectory></encoding></ismrmrdHeader>"
    )
    path.unlink(missing_ok=True)
    with ismrmrd.Dataset(str(path), "dataset", create_if_needed=True) as dataset:
        dataset.write_xml_header(header.encode())
        for samples, (partition, column) in zip(lines, np.argwhere(mask), strict=True):
            acquisition = ismrmrd.Acquisition.from_array(samples)
            acquisition.center_sample = rows // 2
            acquisition.idx.kspace_encode_step_1, acquisition.idx.kspace_encode_step_2 = int(column), int(partition)
            acquisition.read_dir[:], acquisition.phase_dir[:] = (0, 1, 0), (-1, 0, 0)
            acquisition.slice_dir[:] = (0, 0, 1)
            dataset.append_acquisition(acquisition)


def _fine(field: np.ndarray, shape: tuple[int, int, int]) -> Tensor:
    """Return a field (slice, row, column) on the fine grid, as (row, slice, column)."""
    parts = torch.view_as_real(torch.from_numpy(field).transpose(0, 1).contiguous()).movedim(-1, 0)[None]
    fine = nnf.interpolate(parts, size=shape, mode="trilinear")[0]
    return torch.view_as_complex(fine.movedim(0, -1).contiguous())


def reconstruct(folder: Path, name: str, options: list[str]) -> dict[str, Any]:
    """Run the command on the scan, and return what became of it."""
    out = folder / name
    command = ["-m", "molrecon", "reconstruct", str(folder / "volume.h5"), "--out", str(out), *options]
    started = time.perf_counter()
    process = subprocess.Popen([sys.executable, *command])
    _, status, usage = os.wait4(process.pid, 0)  # of this process alone, and not what its parent held
    process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - started
    sidecar = json.loads((out / "volume.json").read_text(encoding="utf-8"))
    with h5py.File(out / "volume.h5", "r") as file:
        image = file["reconstruction"][()]  # (readout, phase, partition)
    reference = np.load(folder / "reference.npy").transpose(0, 2, 1)
    return {
        "command": " ".join(["molrecon", *command[2:]]),
        "exit_code": process.returncode,
        "seconds": seconds,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "peak_gib": usage.ru_maxrss / 2**20,
        "memory": sidecar.get("memory"),
        "model": sidecar["model"]["name"],
        "choice": sidecar["model_choice"],
        "summary": sidecar["summary"],
        "solver": sidecar["solver"],
        "n_steps": [min(steps), max(steps)] if (steps := [one["n_steps"] for one in sidecar["slices"]]) else None,
        "psnr": psnr(reference, image),
    }


def main() -> None:
    """Run the processes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="of the scan")
    parser.add_argument("--memory", default="8GiB")
    parser.add_argument("--model", default="auto")
    parser.add_argument("--max-steps", default="100")
    parser.add_argument("--tol", default="1e-3", help="of the error bound")
    parser.add_argument("--shape", type=int, nargs=3, default=(256, 128, 256), metavar=("ROWS", "SLICES", "COLS"))
    parser.add_argument("--coils", type=int, default=12)
    parser.add_argument("--no-cg", action="store_true", help="leave CG-SENSE out")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if not (arguments.folder / "reference.npy").is_file():
        make_scan(arguments.folder, tuple(arguments.shape), arguments.coils)
    solver = ["--tol", arguments.tol, "--max-steps", arguments.max_steps]
    budget = ["--memory", arguments.memory]
    report = reconstruct(arguments.folder, "model", ["--model", arguments.model, *budget, *solver])
    print(json.dumps(report, indent=2), flush=True)
    if not arguments.no_cg:
        print(json.dumps(reconstruct(arguments.folder, "cg-sense", ["--model", "cg-sense", *budget]), indent=2))


if __name__ == "__main__":
    main()

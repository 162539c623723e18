"""CG-SENSE against `bart pics -l2` on the same slice, regularisation and machine, in turn.

    python tests/benchmarks/cg_sense.py [--repeats 7] [--json FILE]

The slice is synthetic: 15 coils 640 x 368, 1D random 4x. BART's wall time is that of the whole process, which
reads and writes files in memory (/dev/shm where there is one). Ours is that of reading the same files and solving,
and beside it that of the call on tensors alone. The residual is `|A^H (A x - b) + mu x| / |A^H b|`,
computed here for both.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from molrecon.classical import CGSense
from molrecon.io import read_cfl, write_cfl
from molrecon.io.phantom import coil_maps, phantom_volume
from operators import Sense, centred_fft, random_mask

SHAPE, COILS, REGULARISATION = (640, 368), 15, 0.01


def make_slice() -> tuple[Tensor, Sense]:
    """Return k-space (1, coil, rows, cols) and its operator."""
    image = torch.from_numpy(phantom_volume(1, SHAPE))
    maps = torch.from_numpy(coil_maps(1, COILS, SHAPE))
    maps = maps / torch.linalg.vector_norm(maps, dim=1, keepdim=True)
    mask = torch.from_numpy(random_mask(SHAPE[1], 4, 0.08, 0))[None, None]
    generator = torch.Generator().manual_seed(0)
    coil_images = maps * image[:, None]
    noise = 0.005 * torch.randn(coil_images.shape, dtype=torch.complex64, generator=generator)
    operator = Sense(maps, mask)
    return operator.sampling(centred_fft(coil_images + noise, (-2, -1))), operator


def residual(image: Tensor, kspace: Tensor, operator: Sense) -> float:
    """Return the relative residual of the regularised normal equations."""
    right = operator.adjoint(kspace)
    left = operator.adjoint(operator(image)) + REGULARISATION * image
    return float(torch.linalg.vector_norm(left - right) / torch.linalg.vector_norm(right))


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--steps", type=int, default=30, help="our iterations (BART runs 30)")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    bart = shutil.which("bart")
    kspace, operator = make_slice()
    memory = Path("/dev/shm") if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(dir=memory) as name:
        folder = Path(name)
        write_cfl(folder / "k", kspace[0].permute(1, 2, 0)[:, :, None].numpy())
        write_cfl(folder / "s", operator.sensitivity_maps[0].permute(1, 2, 0)[:, :, None].numpy())
        bart_command = ["pics", "-S", "-w1", "-l2", f"-r{REGULARISATION}", "-i30", "k", "s", "x"]
        environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
        times: dict[str, list[float]] = {"molrecon": [], "bart": []}
        for _ in range(arguments.repeats):
            if bart:
                start = time.perf_counter()
                subprocess.run([bart, *bart_command], cwd=folder, env=environment, check=True, capture_output=True)
                times["bart"].append(time.perf_counter() - start)
            start = time.perf_counter()
            k = torch.from_numpy(np.ascontiguousarray(read_cfl(folder / "k")[:, :, 0].transpose(2, 0, 1)))[None]
            s = torch.from_numpy(np.ascontiguousarray(read_cfl(folder / "s")[:, :, 0].transpose(2, 0, 1)))[None]
            read = time.perf_counter()
            solution = CGSense(REGULARISATION, tol=0.0, max_steps=arguments.steps)(k, Sense(s, operator.sampling_mask))
            times["molrecon"].append(time.perf_counter() - start)
            times.setdefault("molrecon, tensors", []).append(time.perf_counter() - read)
        result: dict[str, float] = {f"{name}_s": float(np.median(values)) for name, values in times.items() if values}
        result["molrecon_residual"] = residual(solution.value, kspace, operator)
        if bart:
            image = torch.from_numpy(read_cfl(folder / "x").reshape(SHAPE, order="A"))[None]
            result["bart_residual"] = residual(image, kspace, operator)
            result["ratio"] = result["bart_s"] / result["molrecon_s"]
    for key, value in result.items():
        print(f"{key:22s} {value:.4g}")
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()

"""Where the time of an equilibrium goes: the parts of a solve, and the network against its plain form.

    python tests/benchmarks/equilibrium.py [--weights mol-guided-2d] [--tol 1e-3] [--rounds 3] [--json FILE]

One thread, CPU seconds of this process (other processes load the machine), minima of the rounds, for a phantom of
230 x 180 pixels and 8 coils and of 640 x 368 and 15 coils. Parts: the network, conjugate gradients (normal operators in
the network's precision), normal operators in double precision, Anderson, and the rest. Beside them the floor of a
normal operator, two bare transforms of the coil images along the undersampled axis in chunks that fit the cache.

The plain form of the network is that without what `Clip` and `paired` do: thresholds as the guide makes them, clamped
into new memory, and transposed convolutions. Both forms run in turn, and their largest difference is shown.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

# This script's folder is searched first, and has a file of the name of the package.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from torch import Tensor

from molrecon.networks import ResidualNetwork
from molrecon.networks.clip import Clip
from molrecon.reconstructors.conditioning import Conditioning
from molrecon.reconstructors.mol import MOL
from molrecon.simulation.phantom import coil_maps, phantom_volume
from molrecon.solvers.fixed_point import _Memory
from molrecon.weights import load
from operators import Sense, centred_fft, random_mask

CASES = {"230 x 180, 8 coils": ((230, 180), 8), "640 x 368, 15 coils": ((640, 368), 15)}
CHUNK_ROWS = 48


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default="mol-guided-2d")
    parser.add_argument("--tol", type=float, default=1e-3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cases", nargs="*", choices=tuple(CASES), default=tuple(CASES))
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model = load(arguments.weights, MOL).eval()
    results = {}
    for case in arguments.cases:
        kspace, operator = make_slice(*CASES[case])
        conditioning = model.guided(kspace, operator, model.condition(kspace, operator))
        rounds = [parts(model, kspace, operator, conditioning, arguments.tol) for _ in range(arguments.rounds)]
        results[case] = {name: min(found[name] for found in rounds) for name in rounds[0]}
        results[case] |= forms(model, conditioning, arguments.rounds)
        results[case]["floor of a normal operator, ms"] = floor(*CASES[case], arguments.rounds)
        print(case)
        for name, number in results[case].items():
            print(f"  {name:44s} {number:10.4g}")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(results, indent=1) + "\n")


def make_slice(shape: tuple[int, int], coils: int) -> tuple[Tensor, Sense]:
    """Return the k-space (1, coil, rows, cols) of a noisy phantom, 1D random 4x, and its operator."""
    maps = torch.from_numpy(coil_maps(1, coils, shape))
    maps = maps / torch.linalg.vector_norm(maps, dim=1, keepdim=True)
    coil_images = maps * torch.from_numpy(phantom_volume(1, shape))[:, None]
    noise = torch.randn(coil_images.shape, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    operator = Sense(maps, torch.from_numpy(random_mask(shape[1], 4, 0.08, 0))[None, None])
    return operator.sampling(centred_fft(coil_images + 0.005 * noise, (-2, -1))), operator


def parts(model: MOL, kspace: Tensor, operator: Sense, conditioning: Conditioning, tol: float) -> dict[str, float]:
    """Return the CPU seconds of one solve, its guide found before, by part, and how often each part ran."""
    seconds: dict[str, float] = {}
    calls: dict[str, int] = {}

    def timed(name: Callable[..., str], function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any) -> Any:
            start = time.process_time()
            value = function(*args)
            key = name(*args)
            seconds[key] = seconds.get(key, 0.0) + time.process_time() - start
            calls[key] = calls.get(key, 0) + 1
            return value

        return run

    def precision(_: Sense, x: Tensor) -> str:
        return "normal operator, double" if x.dtype == torch.complex128 else "normal operator, single"

    watched = (
        (ResidualNetwork, "_evaluate", lambda *_: "network"),
        (Sense, "normal", precision),
        (_Memory, "extrapolate", lambda *_: "Anderson"),
    )
    with torch.no_grad(), ExitStack() as stack:
        for owner, name, label in watched:
            stack.enter_context(patch.object(owner, name, timed(label, getattr(owner, name))))
        start = time.process_time()
        solution = model(kspace, operator, conditioning=conditioning, solver=replace(model.solver, tol=tol))
        total = time.process_time() - start
    found = {f"{name}, s": number for name, number in seconds.items()}
    found |= {f"{name}, calls": float(number) for name, number in calls.items()}
    return found | {"all, s": total, "rest, s": total - sum(seconds.values()), "steps": float(solution.n_steps[0])}


def forms(model: MOL, conditioning: Conditioning, rounds: int) -> dict[str, float]:
    """Return the CPU milliseconds of one evaluation of the network, of its plain form, and their largest gap."""
    conditioning = conditioning.in_precision(torch.complex64)
    x = torch.randn(conditioning.phase.shape, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    best = {"network": float("inf"), "plain network": float("inf")}
    images = {}
    with torch.no_grad():
        with _plain():
            plain = conditioning.denoiser(model.network)
        run = {"network": conditioning.denoiser(model.network), "plain network": plain}
        for name in [*best] * (rounds + 1):
            with ExitStack() as stack:
                if name == "plain network":
                    stack.enter_context(_plain())
                start = time.process_time()
                images[name] = run[name](x)
                best[name] = min(best[name], 1e3 * (time.process_time() - start))
    gap = float((images["network"] - images["plain network"]).abs().max())
    return {**{f"{name}, ms": number for name, number in best.items()}, "their gap": gap}


@contextmanager
def _plain() -> Iterator[None]:
    """Let layers be built, and evaluated, without what makes them fast."""

    def remember(self: Clip, threshold: Tensor) -> None:
        self.threshold = threshold

    def clip(self: Clip, u: Tensor) -> Tensor:
        return torch.clamp(u, -self.threshold, self.threshold)

    with (
        patch.object(Clip, "__init__", remember),
        patch.object(Clip, "__call__", clip),
        patch("molrecon.networks.convolution.fills_registers", lambda _: False),
    ):
        yield


def floor(shape: tuple[int, int], coils: int, rounds: int) -> float:
    """Return the CPU milliseconds of two transforms of all coil images along the columns, in chunks of rows."""
    chunk = torch.randn(1, coils, CHUNK_ROWS, shape[1], dtype=torch.complex64)
    best = float("inf")
    for _ in range(3 * rounds):
        start = time.process_time()
        for _ in range(shape[0] // CHUNK_ROWS):
            torch.fft.fft(torch.fft.fft(chunk))
        best = min(best, 1e3 * (time.process_time() - start) / (shape[0] // CHUNK_ROWS * CHUNK_ROWS) * shape[0])
    return best


if __name__ == "__main__":
    main()

"""Go on with the trainings of the packaged models, in order of worth, for some minutes: a lent GPU's queue.

    python examples/train_all.py --data DATA --out runs --device cuda --minutes 8

Every run has a share of the time; what a finished one leaves goes to the others. Runs resume from their checkpoints in
OUT/NAME, so that the queue goes on where it was stopped, on any machine: carry OUT there and back. A run whose time is
over is told to stop (SIGTERM) and loses the steps since its last checkpoint, at most `CHECKPOINT_EVERY`. One that fails
does not stop the others; its log is OUT/NAME/output.txt, and the exit code says that there was one.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

import torch

EXAMPLES = Path(__file__).resolve().parent
GUIDED = EXAMPLES.parent / "molrecon" / "weights" / "equilibrium" / "mol-guided-2d.safetensors"
CHECKPOINT_EVERY = 100
STOPPING_SECONDS = 20.0  # for a run to end after it was told to


@final
@dataclass(frozen=True)
class Run:
    """A training of the queue.

    Attributes:
        name: its folder in OUT.
        share: of the time, relative to that of the runs after it.
        arguments: script and options, without data, folder, device and threads.
    """

    name: str
    share: float
    arguments: tuple[str, ...]


def queue(steps: int) -> list[Run]:
    """Return the trainings of equal steps, what is worth most first."""
    prior = ("train_prior.py", "--steps", str(steps), "--checkpoint-every", str(CHECKPOINT_EVERY))
    unrolled = [Run(name, 1, (*prior, "--model", name, "--seed", "1")) for name in ("admm-net", "modl", "varnet")]
    guided = Run("mol-guided", 4, (*prior, "--start", str(GUIDED), "--learning-rate", "1.5e-3", "--seed", "4"))
    volumes = [Run(kind, 1, ("train_volume.py", "--kind", kind, "--steps", str(steps))) for kind in ("3d", "dynamic")]
    strict = Run("mol-strict", 2, (*prior, "--model", "mol", "--rows", "224", "--seed", "2"))
    return [guided, *unrolled, *volumes, strict]


def train_in_turn(runs: Sequence[Run], common: Sequence[str], out: Path, seconds: float) -> list[str]:
    """Run the queue for so many seconds in all, and return the names of the runs that failed.

    Args:
        runs: in order.
        common: options of all.
        out: folder of their folders.
        seconds: for all together; a run gets its share of what is left, of those that are left.
    """
    failed = []
    end = time.monotonic() + seconds
    for index, run in enumerate(runs):
        left = end - time.monotonic()
        share = run.share / sum(r.share for r in runs[index:])
        if left * share <= 0:
            break
        folder = out / run.name
        folder.mkdir(parents=True, exist_ok=True)
        script, *options = run.arguments
        command = [sys.executable, str(EXAMPLES / script), *options, *common, "--out", str(folder)]
        with (folder / "output.txt").open("ab") as output:
            process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
            code = _stopped_after(process, left * share)
        print(f"{run.name}: {'finished' if code == 0 else 'time is over' if code is None else f'failed ({code})'}")
        if code:
            failed.append(run.name)
    return failed


def _stopped_after(process: subprocess.Popen[bytes], seconds: float) -> int | None:
    """Return the exit code of a process; None if it had to be stopped."""
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.terminate()
    try:
        process.wait(STOPPING_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    return None


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("MOLRECON_DATA"), help="default: $MOLRECON_DATA")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=8.0, help="for all runs together (default: %(default)g)")
    parser.add_argument("--steps", type=int, default=20000, help="of every run (default: %(default)d)")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="runs, of the queue")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    if arguments.data is None:
        parser.error("--data is not given and MOLRECON_DATA not set, expected the data folder")
    runs = queue(arguments.steps)
    if unknown := set(arguments.only or ()) - {run.name for run in runs}:
        parser.error(f"--only {', '.join(sorted(unknown))}, expected some of {', '.join(run.name for run in runs)}")
    runs = [run for run in runs if arguments.only is None or run.name in arguments.only]
    common = ["--data", str(arguments.data), "--device", arguments.device, "--threads", str(arguments.threads)]
    if failed := train_in_turn(runs, common, arguments.out, 60 * arguments.minutes):
        raise SystemExit(f"{', '.join(failed)}: failed, see output.txt in the folders of {arguments.out}")


if __name__ == "__main__":
    main()

"""What a cohort costs beside its reconstructions, and whether it survives: shards and workers killed at random.

    python tests/benchmarks/cohort.py FOLDER [--volumes 10000] [--shards 4] [--workers 2] [--kills 20]

makes tiny volumes in FOLDER/in, has them "reconstructed" into FOLDER/out by a function that only reads them and writes
a small sidecar, kills workers and one whole shard with SIGKILL, starts that shard again, and counts the records. The
tests run it with 60 volumes (tests/molrecon/scans/cohort/test_parallel.py). Linux only: it looks processes up in /proc.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

# This script's folder is searched first, and has a file of the name of the package.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from molrecon.reconstructors.base import Reconstructor
from molrecon.scans.cohort import reconstruct_cohort
from molrecon.scans.cohort.one_volume import conclude
from molrecon.scans.cohort.parallel import InWorkers
from molrecon.scans.cohort.recipe import Item, Outcome, Recipe
from molrecon.scans.cohort.worklist import Shard, parse_shard
from molrecon.scans.manifest import OK, Entry
from molrecon.scans.methods import load_method
from molrecon.scans.settings import Settings
from molrecon.scans.sidecar import write_json

ROOT = Path(__file__).parents[2]
POISON = "poison"  # the volume at which every process dies


def null(item: Item, model: Reconstructor, recipe: Recipe) -> Outcome:
    """Read the volume, write a sidecar of a few bytes, and the record."""
    if item.name == POISON:
        os.kill(os.getpid(), signal.SIGKILL)
    assert recipe.out is not None
    started = time.perf_counter()
    sidecar = recipe.out / f"{item.name}.json"
    digest = hashlib.sha256(item.path.read_bytes()).hexdigest()
    kept = recipe.resume and sidecar.exists()
    if not kept:
        write_json(sidecar, {"sha256": digest})
        time.sleep(float(os.environ.get("NULL_SECONDS", "0")))
    seconds = f"{time.perf_counter() - started}"
    return conclude(item, recipe, Entry(str(item.path), OK, seconds, [str(sidecar)], skipped=kept))


def run_shard(folder: Path, shard: Shard, workers: int) -> None:
    """Do one shard in this process, or in workers of it, and print what it cost beside the null reconstructions.

    `overhead_ms` a volume: from the first result to the manifest, times the workers, less the reconstructions' time.
    The time to the first result, `start_s`, is that of the workers' imports.
    """
    inputs = sorted((folder / "in").iterdir())
    model, source = load_method("zero-filled")
    started = time.perf_counter()
    execute = InWorkers(workers, carry_out=null) if workers else _here
    seen: list[float] = []
    entries = reconstruct_cohort(
        inputs,
        folder / "out",
        model,
        source,
        Settings(),
        resume=True,
        shard=shard,
        execute=execute,
        report=lambda entry: seen.append(time.perf_counter()),
    )
    total = time.perf_counter() - seen[0]
    inside = sum(float(entry.message) for entry in entries if entry.status == OK)
    overhead = 1e3 * (total * max(workers, 1) - inside) / len(entries)
    print(
        json.dumps({"volumes": len(entries), "start_s": seen[0] - started, "seconds": total, "overhead_ms": overhead}),
        flush=True,
    )


def _here(model: Reconstructor, recipe: Recipe, items: Sequence[Item]):
    return (null(item, model, recipe) for item in items)


@dataclass
class Killer:
    """Kills what is found below the processes of the shards."""

    random: random.Random

    def worker(self, shards: Sequence[subprocess.Popen[str]]) -> bool:
        """Kill one worker that is at work; False where there is none."""
        found = [child for shard in shards if shard.poll() is None for child in workers_of(shard.pid)]
        if not found:
            return False
        os.kill(self.random.choice(found), signal.SIGKILL)
        return True


def workers_of(process: int) -> list[int]:
    """Return the processes that a shard spawned to work."""
    try:
        children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
        lines = {int(child): Path(f"/proc/{child}/cmdline").read_bytes() for child in children}
    except OSError:
        return []
    return [child for child, line in lines.items() if b"spawn_main" in line]


def start_shard(folder: Path, shard: Shard, workers: int) -> subprocess.Popen[str]:
    """Start a shard as a process with a session of its own, so that it can be killed as a whole."""
    command = [sys.executable, "-m", "tests.benchmarks.cohort", str(folder), "--only", f"{shard.index}/{shard.count}"]
    return subprocess.Popen(
        [*command, "--workers", str(workers)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def make_volumes(folder: Path, volumes: int) -> None:
    """Write so many files of a few bytes, the last of them the one that kills."""
    (folder / "in").mkdir(parents=True)
    for k in range(volumes - 1):
        (folder / "in" / f"volume{k:05d}.npy").write_bytes(b"%d" % k)
    (folder / "in" / f"{POISON}.npy").write_bytes(b"poison")


def survive(folder: Path, shards: int, workers: int, kills: int, pause: float, seed: int = 0) -> list[str]:
    """Run all shards, kill workers and one shard as a whole, start that again; return what the shards printed."""
    killer = Killer(random.Random(seed))
    running = [start_shard(folder, Shard(k + 1, shards), workers) for k in range(shards)]
    lost = killer.random.randrange(shards)
    killed, restarted = 0, False
    while killed < kills and any(shard.poll() is None for shard in running):
        time.sleep(pause * killer.random.random())
        killed += killer.worker(running)
        if not restarted and killed >= kills // 2 and running[lost].poll() is None:
            os.killpg(running[lost].pid, signal.SIGKILL)
            running[lost].communicate()
            running[lost] = start_shard(folder, Shard(lost + 1, shards), workers)
            restarted = True
    printed = []
    for shard in running:
        out, errors = shard.communicate()
        if shard.returncode:
            raise RuntimeError(f"a shard ended with {shard.returncode}: {errors}")
        printed.append(out)
    return [f"{killed} workers killed, shard {lost + 1} {'' if restarted else 'not '}killed and restarted", *printed]


def check(folder: Path, volumes: int) -> None:
    """Raise unless every volume has exactly one whole record, the manifest lists them, and one failed."""
    records = [json.loads(path.read_text()) for path in (folder / "out" / "records").glob("[!.]*.json")]
    expected = sorted(path.stem for path in (folder / "in").iterdir())
    if sorted(record["name"] for record in records) != expected or len(expected) != volumes:
        raise RuntimeError(f"{len(records)} records of {volumes} volumes")
    failed = [record["name"] for record in records if record["status"] != OK]
    if failed != [POISON]:
        raise RuntimeError(f"{failed} failed, expected {POISON} alone")
    for name in set(expected) - {POISON}:
        json.loads((folder / "out" / f"{name}.json").read_text())
    manifest = json.loads((folder / "out" / "manifest.json").read_text())
    if manifest["inputs"] != volumes or manifest["missing"] or manifest["counts"]["failed"] != 1:
        raise RuntimeError(f"the manifest lists {manifest['inputs']} of {volumes}: {manifest['counts']}")


def main() -> None:
    """Run the benchmark, or one shard of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--volumes", type=int, default=10_000)
    parser.add_argument("--shards", type=int, default=4)
    parser.add_argument("--workers", type=int, default=2, help="0: in the process of the shard")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--only", metavar="K/N", help="do this shard, in this process")
    args = parser.parse_args()
    if args.only:
        logging.basicConfig(level=logging.ERROR)
        run_shard(args.folder, parse_shard(args.only), args.workers)
        return
    make_volumes(args.folder, args.volumes)
    started = time.perf_counter()
    for line in survive(args.folder, args.shards, args.workers, args.kills, pause=2.0):
        print(line.strip())
    print(f"{time.perf_counter() - started:.1f} s")
    check(args.folder, args.volumes)
    print("every volume has exactly one record")


if __name__ == "__main__":
    main()

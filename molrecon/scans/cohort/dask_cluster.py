"""A cohort on a Dask cluster: of this machine, or one that is running already, such as dask-jobqueue starts.

Imports `distributed`, which the extra `dask` installs: import this module where it is needed.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import socket
import threading
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast, final

import dask
import torch
from distributed import Client, Future, LocalCluster, Security, as_completed, get_worker
from distributed.diagnostics.plugin import WorkerPlugin
from distributed.scheduler import KilledWorker

from molrecon.reconstructors.base import Reconstructor
from molrecon.scans.cohort.one_volume import carry_out, conclude
from molrecon.scans.cohort.parallel import CarryOut, load_same
from molrecon.scans.cohort.recipe import Item, Outcome, Recipe
from molrecon.scans.manifest import FAILED, Entry
from molrecon.scans.outputs import temporary_prefix
from molrecon.scans.sidecar import versions

LOCAL = "local"
PROTOCOLS = ("tcp://", "tls://", "ws://", "wss://")
ANSWER_SECONDS = 20  # after which a scheduler counts as absent


@final
@dataclass(frozen=True)
class InDask:
    """Carries out items on a Dask cluster, with the function that one process carries them out with.

    A worker that dies loses no volume: its volume is tried again, on any worker, once (on a running cluster: as often
    as its `distributed.scheduler.allowed-failures` says). Since Dask blames all that waits at a dead worker, what
    failed so is tried over again when nothing else is under way, and then fails alone.

    Attributes:
        address: of a scheduler, such as "tcp://node7:8786" or "tls://node7:8786", with the credentials of Dask's
            configuration; "local": processes of this machine are started, which talk over TLS.
        workers: of "local", how many; None: one a core.
        devices: of the workers of "local" in turn; none: all have that of the settings.
        carry_out: what is done with each item; a function of a module, which is called in the workers.

    The workers of a running cluster need the same molrecon and the same file system; each does one volume at a time,
    however many threads it has.

    Raises:
        ValueError: another address; workers or devices for a cluster that is running already.
    """

    address: str = LOCAL
    workers: int | None = None
    devices: Sequence[torch.device | str] = ()
    carry_out: CarryOut = carry_out

    def __post_init__(self) -> None:
        """Check that a running cluster is taken as it is."""
        if self.address != LOCAL and (self.workers is not None or self.devices):
            raise ValueError(
                f"InDask: workers or devices beside the address {self.address}, expected a cluster that is running"
                " already to bring its own"
            )
        if self.address != LOCAL and not self.address.startswith(PROTOCOLS):
            raise ValueError(
                f"InDask: {self.address}, expected local, or the address of a Dask scheduler, such as tcp://node7:8786"
            )

    def __call__(self, model: Reconstructor, recipe: Recipe, items: Sequence[Item]) -> Iterator[Outcome]:
        """Yield what becomes of each item, as it comes.

        Raises:
            OSError: no scheduler answers.
            Exception: whatever the workers raise that does not belong to a volume, such as a model that is not there.
        """
        if not items:
            return
        plugin = _Work(f"molrecon-{uuid.uuid4().hex}", self.carry_out, recipe, tuple(self.devices))
        with self._client(len(items)) as client:
            client.forward_logging("molrecon", logging.getLogger("molrecon").getEffectiveLevel())
            client.register_plugin(plugin, name=plugin.name)
            try:
                blamed: list[Item] = []
                for item, outcome in _gathered(client, plugin.name, items):
                    if outcome is None:
                        blamed.append(item)
                    else:
                        yield outcome
                for item in blamed:
                    for _, outcome in _gathered(client, plugin.name, [item]):
                        yield outcome or _failed(item, recipe)
            finally:
                _remove_unfinished(client, plugin.name, recipe.out)
                client.unregister_worker_plugin(plugin.name)

    @contextlib.contextmanager
    def _client(self, items: int) -> Iterator[Client]:
        if self.address != LOCAL:
            with Client(self.address, timeout=ANSWER_SECONDS, set_as_default=False) as client:
                yield client
            return
        count = max(1, min(self.workers or os.cpu_count() or 1, items))
        threads = os.environ.get("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // count)))
        settings: dict[str, Any] = {
            "distributed.scheduler.allowed-failures": 1,
            "distributed.scheduler.http.routes": [],  # no pages about what runs, for whoever reaches the port
            "distributed.worker.http.routes": [],
        }
        with (
            dask.config.set(settings),
            LocalCluster(
                n_workers=count,
                threads_per_worker=1,
                processes=True,
                memory_limit=0,  # a volume may take what the machine has, as with --workers
                security=Security.temporary(),  # who else has an account here cannot use the workers
                dashboard_address=None,
                silence_logs=logging.ERROR,
                env={"OMP_NUM_THREADS": threads},
            ) as cluster,
            Client(cluster, set_as_default=False) as client,
        ):
            yield client


def _gathered(client: Client, plugin: str, items: Sequence[Item]) -> Iterator[tuple[Item, Outcome | None]]:
    """Yield each item with what became of it, None where its workers died."""
    futures: dict[Future, Item] = {
        client.submit(_carry_out, plugin, item, key=f"{plugin}-{uuid.uuid4().hex}"): item for item in items
    }
    try:
        for future in as_completed(list(futures), loop=client.loop):
            item = futures.pop(future)
            try:
                yield item, future.result()
            except KilledWorker:
                yield item, None
    finally:
        client.cancel(list(futures))


def _carry_out(plugin: str, item: Item) -> Outcome:
    """Do in a worker what its plugin prepared."""
    return cast("_Work", get_worker().plugins[plugin]).carry_out_item(item)


class _Work(WorkerPlugin):
    """What every worker of the cluster gets, also those that come later or take the place of a dead one."""

    def __init__(self, name: str, carry_out: CarryOut, recipe: Recipe, devices: tuple[torch.device | str, ...]) -> None:
        self.name = name
        self.carry_out, self.recipe, self.devices = carry_out, recipe, devices
        self.folder, self.version = os.getcwd(), versions()["molrecon"]

    def setup(self, worker: Any) -> None:
        """Say which process this is, and remember which device is its own; the first volume loads the model."""
        worker.log_event(self.name, _process())
        self.loaded: Reconstructor | None = None
        self.lock = threading.Lock()
        settings = replace(self.recipe.settings, progress=False)
        if self.devices:  # the workers of LocalCluster are called 0, 1, ..., also when they are started again
            settings = replace(settings, device=self.devices[int(worker.name) % len(self.devices)])
        self.recipe = replace(self.recipe, settings=settings)

    def carry_out_item(self, item: Item) -> Outcome:
        """Carry out an item with the paths as they are where the command was started."""
        with self.lock, _in_folder(self.folder):
            if self.loaded is None:
                if (version := versions()["molrecon"]) != self.version:
                    raise ValueError(f"reconstruct: a Dask worker has molrecon {version}, expected {self.version}")
                self.loaded = load_same(self.recipe)
            return self.carry_out(item, self.loaded, self.recipe)


@contextlib.contextmanager
def _in_folder(folder: str) -> Iterator[None]:
    before = os.getcwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def _process() -> list[Any]:
    return [socket.gethostname(), os.getpid()]


def _failed(item: Item, recipe: Recipe) -> Outcome:
    message = "every Dask worker that worked on it died (for instance when memory runs out)"
    return conclude(item, recipe, Entry(str(item.path), FAILED, message, []))


def _remove_unfinished(client: Client, name: str, out: Path | None) -> None:
    """Remove what workers that died were about to write."""
    if out is None:
        return
    alive = client.run(_process, on_error="ignore").values()  # also of workers that end at this moment
    for _, process in client.get_events(name):
        if process not in alive:
            for folder in out.glob(f"{temporary_prefix(*process)}*"):
                shutil.rmtree(folder, ignore_errors=True)

"""A small scan with its reconstruction, and a browser without a network where there is one."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from molrecon.io import read_volume
from molrecon.networks import ResidualNetwork
from molrecon.reconstructors.mol import MOL
from molrecon.scans.comparison import undersample
from molrecon.scans.preparation import PreparedVolume, prepare
from molrecon.scans.reconstruction import Reconstruction, reconstruct_prepared
from molrecon.scans.sidecar import ModelSource, make_sidecar
from molrecon.simulation.phantom import write_phantom
from operators import random_mask

SHAPE = (32, 32)


@dataclass(frozen=True)
class Solved:
    """What `volume_page` wants."""

    prepared: PreparedVolume
    result: Reconstruction
    sidecar: dict[str, Any]


@pytest.fixture(scope="session")
def solved(tmp_path_factory: pytest.TempPathFactory) -> Solved:
    path = write_phantom(tmp_path_factory.mktemp("sample") / "head.h5", slices=3, coils=4, shape=SHAPE)
    volume = undersample(read_volume(path), random_mask(SHAPE[1], 2, 0.25, 0), 0.0, [0])
    prepared = prepare(volume)
    model = MOL(ResidualNetwork(monotonicity=0.2, channels=2, features=4, levels=1, cycles=1)).eval()
    result = reconstruct_prepared(prepared, model, keep_residual=True)
    source = ModelSource("/home/someone/weights/own.safetensors", "ab" * 32)
    return Solved(prepared, result, {**make_sidecar(prepared, result, source), "settings_sha256": "cd" * 32})


@dataclass
class Window:
    """A page in the browser, with what it logged and what it asked for."""

    page: Any
    logged: list[str] = field(default_factory=list)
    requested: list[str] = field(default_factory=list)

    def open(self, path: Path, wait_for: str) -> None:
        self.page.goto(path.as_uri())
        self.page.wait_for_selector(wait_for)

    @property
    def foreign(self) -> list[str]:
        """Requests for anything but the page itself and the images written out in it."""
        return [url for url in self.requested if not url.startswith("data:") and url != self.page.url]


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no chromium on this machine")
    with playwright.sync_playwright() as started:
        running = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture
def window(browser: Any) -> Iterator[Window]:
    context = browser.new_context(offline=True, viewport={"width": 1280, "height": 900})
    found = Window(context.new_page())
    found.page.on("console", lambda message: found.logged.append(message.text))
    found.page.on("pageerror", lambda error: found.logged.append(str(error)))
    found.page.on("request", lambda request: found.requested.append(request.url))
    yield found
    context.close()

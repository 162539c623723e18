"""index.html of 200 volumes in a real browser that is offline."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from molrecon.scans.manifest import write_list, write_manifest, write_record
from molrecon.scans.page.cohort import INDEX, write_index, write_thumbnail
from molrecon.scans.page.rows import thumbnail_path

SHOWN = (
    "() => [...document.querySelectorAll('tbody tr')].filter(r => !r.hidden).map(r => r.cells[1].textContent.trim())"
)
WARNING = {"slice": 0, "check": "single lines", "value": 3.0, "threshold": 2.2, "advice": "Look."}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, solved: Any) -> Path:
    """Outputs of 200 volumes: three failed, two have not converged, one is far noisier, one is not done."""
    out, random = tmp_path_factory.mktemp("cohort"), np.random.default_rng(0)
    write_thumbnail(out, "v0", solved.result)
    picture = thumbnail_path(out, "v0").read_bytes()
    write_list(out, {"v200": "v200.h5"})
    for k in range(200):
        name, status = f"v{k}", "failed" if k in (3, 30, 130) else "not converged" if k in (5, 6) else "ok"
        noise = 0.5 if k == 7 else math.exp(random.normal(-4, 0.1))
        figures = {"kind": "certified", "slices": 9, "error_bound": 5e-5, "noise": noise, "seconds": 9.0, "n_steps": 20}
        write_record(
            out,
            {
                "name": name,
                "input": f"{name}.h5",
                "status": status,
                "message": "too few lines",
                "outputs": [f"{name}.html"],
                "warnings": [WARNING] if k == 8 else [],
                "figures": figures,
                "no_paths": False,
            },
        )
        if status != "failed":
            (out / f"{name}.html").write_text(f"<title>{name}</title>")
            thumbnail_path(out, name).write_bytes(picture)
    write_index(out, write_manifest(out))
    return out


@pytest.fixture
def index(folder: Path, window: Any) -> Any:
    window.open(folder / INDEX, "#volumes")
    return window


def violations(page: Any) -> list[str]:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    return [f"{found['id']}: {found['help']}" for found in axe.Axe().run(page).response["violations"]]


def test_it_opens_in_less_than_two_seconds(folder: Path, window: Any) -> None:
    seconds = []
    for _ in range(3):  # the machine may do something else meanwhile
        start = time.perf_counter()
        window.open(folder / INDEX, "#volumes tbody tr:nth-child(201)")
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 2


def test_nothing_is_said_and_nothing_requested(index: Any) -> None:
    for key in ("1", "2", "3", "4", "5", "6", "/", "v", "Escape", "ArrowDown", "ArrowUp"):
        index.page.keyboard.press(key)
    for head in index.page.locator(".sort").all():
        head.click()
        head.click()
    assert index.logged == [] and index.foreign == []


def test_the_keyboard_filters(index: Any) -> None:
    page = index.page
    assert page.locator("#count").text_content() == "201 of 201 shown"
    page.keyboard.press("2")
    assert page.evaluate(SHOWN) == ["v3", "v5", "v6", "v30", "v130"]
    assert page.locator("#count").text_content() == "5 of 201 shown"
    assert page.locator("[data-choice=bad]").get_attribute("aria-pressed") == "true"
    page.keyboard.press("/")
    page.keyboard.type("failed LINES")
    assert page.evaluate(SHOWN) == ["v3", "v30", "v130"]
    page.keyboard.press("Escape")
    assert len(page.evaluate(SHOWN)) == 201 and page.locator("#filter").input_value() == ""
    for key, names in (("3", ["v8"]), ("4", ["v7"]), ("6", ["v200"])):
        page.keyboard.press(key)
        assert page.evaluate(SHOWN) == names
    assert page.locator("tbody tr:has(.outlier) .wrap").text_content().startswith("high noise / maximum (z ")


def test_the_keyboard_sorts(index: Any) -> None:
    page = index.page
    head = page.locator(".sort[data-key=noise]")
    head.focus()
    page.keyboard.press("Enter")
    names = page.evaluate(SHOWN)
    assert names[0] == "v7" and set(names[-4:]) == {"v3", "v30", "v130", "v200"}  # those without a value
    assert page.locator("th[aria-sort=descending]").text_content() == "noise / maximum"
    page.keyboard.press("Enter")
    names = page.evaluate(SHOWN)
    assert names[196] == "v7" and set(names[-4:]) == {"v3", "v30", "v130", "v200"}
    page.locator(".sort[data-key=state]").focus()
    page.keyboard.press("Space")
    assert page.evaluate(SHOWN)[:5] == ["v3", "v5", "v6", "v30", "v130"]
    page.locator(".sort[data-key=name]").focus()
    page.keyboard.press("Enter")
    assert page.evaluate(SHOWN)[:3] == ["v0", "v1", "v2"]
    assert page.locator("th[aria-sort]").count() == 1


def test_the_keyboard_goes_to_the_page_of_a_volume(index: Any) -> None:
    page = index.page
    page.keyboard.press("2")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Enter")
    page.wait_for_url("**/v5.html")
    assert page.title() == "v5"


def test_those_who_do_not_see_are_told(index: Any) -> None:
    assert violations(index.page) == []
    assert index.page.locator("img:not([alt])").count() == 0 and index.page.locator("img").count() == 197
    assert "outliers: v7" in index.page.locator("svg[aria-label*='noise']").get_attribute("aria-label")
    assert index.page.locator("#count").get_attribute("aria-live") == "polite"


def test_a_narrow_window_scrolls_the_table_alone(index: Any) -> None:
    index.page.set_viewport_size({"width": 400, "height": 800})
    assert index.page.evaluate("document.documentElement.scrollWidth") <= 400
    assert violations(index.page) == []

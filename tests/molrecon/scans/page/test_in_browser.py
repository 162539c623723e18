"""The pages in a real browser that is offline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from molrecon.scans.page.pictures import white_level
from molrecon.scans.page.volume import volume_page

READ = """() => {
  const canvas = document.getElementById("picture");
  const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  return { rows: canvas.height, cols: canvas.width, pixels: Array.from(pixels) };
}"""


@pytest.fixture
def shown(solved: Any, window: Any, tmp_path: Path) -> Any:
    path = tmp_path / "head.html"
    path.write_text(volume_page("head", solved.prepared, solved.result, solved.sidecar), encoding="utf-8")
    window.open(path, "canvas[data-shown='image 1']")
    return window


def read(page: Any) -> np.ndarray:
    """Return the canvas as (rows, cols) greys."""
    found = page.evaluate(READ)
    rgba = np.array(found["pixels"]).reshape(found["rows"], found["cols"], 4)
    assert (rgba[..., 3] == 255).all() and (rgba[..., 0] == rgba[..., 1]).all() and (rgba[..., 0] == rgba[..., 2]).all()
    return rgba[..., 0]


def violations(page: Any) -> list[str]:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    return [f"{found['id']}: {found['help']}" for found in axe.Axe().run(page).response["violations"]]


def test_nothing_is_said_and_nothing_requested(shown: Any) -> None:
    for key in ("ArrowRight", "1", "2", "3", "4", "5", "6", "7", "[", "]", "r", "Home", "End", " "):
        shown.page.keyboard.press(key)
    shown.page.locator("#reset").click()
    shown.page.locator(".jump").first.click()
    shown.page.wait_for_selector("canvas[data-shown$=' 0']")
    assert shown.logged == [] and shown.foreign == []


def test_the_pixels_are_those_of_the_slice(shown: Any, solved: Any) -> None:
    image = solved.result.image.astype(float)
    white = white_level(solved.result.image)
    grey = np.rint(255 * np.clip(image / white, 0, 1))
    assert np.array_equal(read(shown.page), grey[1])
    shown.page.keyboard.press("ArrowRight")
    shown.page.wait_for_selector("canvas[data-shown='image 2']")
    assert np.array_equal(read(shown.page), grey[2])
    shown.page.locator("#high").fill("100")
    shown.page.locator("#low").fill("20")
    windowed = np.clip(255 * (grey[2] - 20) / 80, 0, 255)
    assert np.abs(read(shown.page) - windowed).max() <= 0.5 + 1e-9


def test_the_keyboard_does_it_all(shown: Any) -> None:
    page = shown.page
    for key, expected in (
        ("End", "image 2"),
        ("Home", "image 0"),
        ("ArrowLeft", "image 0"),
        ("3", "difference 0"),
        ("ArrowRight", "difference 1"),
        (" ", "image 1"),
        (" ", "difference 1"),
        ("6", "last-residual 1"),
        ("7", "maps 1"),
    ):
        page.keyboard.press(key)
        page.wait_for_selector(f"canvas[data-shown='{expected}']")
    assert page.locator("[data-view='6']").get_attribute("aria-pressed") == "true"
    assert page.locator("tr.current").get_attribute("data-slice") == "1"
    assert page.locator("polyline.current").get_attribute("data-slice") == "1"
    page.keyboard.press("1")
    before = page.locator("#high-text").text_content()
    page.keyboard.press("[")
    assert page.locator("#high-text").text_content() != before
    page.keyboard.press("r")
    assert page.locator("#high-text").text_content() == before


def test_views_of_the_same_kind_share_their_window(shown: Any) -> None:
    page = shown.page
    page.locator("#high").fill("90")
    page.keyboard.press("2")
    page.wait_for_selector("canvas[data-shown='zero-filled 1']")
    assert page.locator("#high").input_value() == "90"
    page.keyboard.press("3")
    page.wait_for_selector("canvas[data-shown='difference 1']")
    assert page.locator("#high").input_value() not in ("90", "255")


def test_those_who_do_not_see_are_told(shown: Any) -> None:
    label = shown.page.locator("#picture").get_attribute("aria-label")
    assert label.startswith("Image of slice 1 of 3, magnitude by MOL, window 0 to ")
    assert "error bound" in label
    assert violations(shown.page) == []


def test_a_hostile_name_runs_nothing(solved: Any, window: Any, tmp_path: Path) -> None:
    name = "</title></script><script>document.title = 'ran'</script><img src=x onerror=\"document.title = 'ran'\">"
    path = tmp_path / "head.html"
    path.write_text(volume_page(name, solved.prepared, solved.result, solved.sidecar), encoding="utf-8")
    window.open(path, "canvas[data-shown='image 1']")
    assert window.page.title() == f"{name} - molrecon" and window.page.locator("h1").text_content() == name
    assert window.logged == [] and window.foreign == []

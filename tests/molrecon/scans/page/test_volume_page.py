"""NAME.html without a browser: its policy, escaping, size, and what it must not say."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from molrecon.scans.data_warnings import DataWarning
from molrecon.scans.page.pictures import grey_view, halved, mosaic, to_grey, white_level
from molrecon.scans.page.views import Side, make_views
from molrecon.scans.page.volume import volume_page

HOSTILE = "</script><script>alert(1)</script><!--\"'&\u2028<img src=x onerror=alert(2)>"


class Elements(HTMLParser):
    """All elements of a page with their attributes, and the text of scripts and styles."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.code: dict[str, list[str]] = {"script": [], "style": []}
        self.inside = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        self.inside = tag

    def handle_data(self, data: str) -> None:
        if self.inside in self.code:
            self.code[self.inside].append(data)

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""


def digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def centred_fft(image: np.ndarray) -> np.ndarray:
    axes = (-2, -1)
    shifted = np.fft.ifftshift(image, axes)
    return np.fft.fftshift(np.fft.fft2(shifted, norm="ortho"), axes).astype(np.complex64)


def make(solved: Any, name: str = "head", **changes: Any) -> str:
    return volume_page(name, solved.prepared, replace(solved.result, **changes), solved.sidecar)


def test_the_policy_names_style_and_script_and_forbids_the_rest(solved: Any) -> None:
    elements = Elements(make(solved))
    (style,) = elements.code["style"]
    data, script = elements.code["script"]
    (policy,) = [a["content"] for tag, a in elements.found if tag == "meta" and a.get("http-equiv")]
    assert policy is not None and "unsafe" not in policy
    assert dict(directive.split(" ", 1) for directive in policy.split("; ")) == {
        "default-src": "'none'",
        "img-src": "data:",
        "style-src": digest(style),
        "script-src": digest(script),
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    assert len(json.loads(data)["views"][0]["images"]) == 3
    for tag, attributes in elements.found:
        assert not {"style"} & attributes.keys() and not any(key.startswith("on") for key in attributes), tag
        for key in ("src", "href"):
            assert (attributes.get(key) or "data:").startswith("data:")
        if tag == "img":
            assert attributes.get("alt")


def test_strings_stay_in_their_places(solved: Any) -> None:
    plain = Elements(make(solved, warnings=[DataWarning(1, "a", 2.0, 1.0, "b")]))
    warnings = [DataWarning(1, HOSTILE, 2.0, 1.0, HOSTILE)]
    page = make(solved, HOSTILE, method=HOSTILE, warnings=warnings)
    assert [tag for tag, _ in Elements(page).found] == [tag for tag, _ in plain.found]
    assert json.loads(Elements(page).code["script"][0])["views"][0]["note"] == f"magnitude by {HOSTILE}"


def test_no_path_and_nothing_of_a_person(solved: Any) -> None:
    page = make(solved)
    volume = solved.prepared.volume
    for secret in (str(volume.path), str(volume.path.parent), "/home/someone", str(volume.attributes["patient_id"])):
        assert secret not in page
    assert "own.safetensors" in page and volume.sha256 in page and "ab" * 32 in page and "cd" * 32 in page
    assert "RESEARCH ONLY" in page


def test_twenty_slices_of_320_stay_below_two_megabytes(solved: Any) -> None:
    # An object that fills most of the image, with as much noise as images have that are still looked at.
    slices, size = 5, (5, 1, 320, 320)
    noise = np.random.default_rng(0).normal(size=(*size, 2)).astype(np.float32).view(np.complex64)[..., 0]
    y, x = np.mgrid[-1:1:320j, -1:1:320j]
    head = (1 + 0.5 * np.cos(9 * x) * np.sin(7 * y)) * (x**2 / 0.7 + y**2 / 0.9 < 1)
    image = np.abs(head + 0.04 * noise[:, 0]).astype(np.float32)
    kspace = centred_fft(head + 0.06 * noise)
    volume = replace(
        solved.prepared.volume,
        kspace=kspace,
        sampling_mask=np.ones((1, 1, 320), bool),
        recon_shape=size[2:],
        reference=np.abs(head + 0.02 * noise[::-1, 0]).astype(np.float32),
    )
    prepared = replace(
        solved.prepared,
        volume=volume,
        kspace=torch.from_numpy(kspace),
        sampling_mask=torch.ones(1, 1, 320, dtype=torch.bool),
        sensitivity_maps=torch.ones((slices, 1, *size[1:]), dtype=torch.complex64),
        empty=np.zeros(slices, bool),
    )
    result = replace(
        solved.result,
        image=image,
        error_bound=np.full(slices, 1e-5),
        converged=np.ones(slices, bool),
        n_steps=np.full(slices, 3),
        empty=np.zeros(slices, bool),
        scale=np.ones(slices),
        residuals=[np.logspace(0, -5, 200)] * slices,
        last_residual=1e-5 * np.abs(noise[:, 0]),
    )
    page = volume_page("noise", prepared, result, solved.sidecar)
    assert 4 * len(page.encode()) < 2_000_000  # the parts that do not grow with the slices count four times here


def test_what_fits_is_kept_exactly() -> None:
    smooth = np.broadcast_to(np.linspace(0, 1, 320, dtype=np.float32), (20, 320, 320))
    assert grey_view("image", "", "", smooth, 0, 1, bytes_per_pixel=0.45, exact=True).coding == "lossless"
    assert grey_view("image", "", "", smooth, 0, 1, bytes_per_pixel=0.45).coding == "WebP, quality 90"


def test_greys_are_those_of_the_image(solved: Any) -> None:
    image, *_ = make_views(solved.prepared, solved.result)
    white = white_level(solved.result.image)
    assert (image.low, image.high, image.coding) == (0, white, "lossless")
    encoded = base64.b64decode(image.images[1].split(",")[1])
    grey = np.asarray(Image.open(io.BytesIO(encoded)).convert("L"))
    expected = np.rint(255 * np.clip(solved.result.image[1].astype(float) / white, 0, 1))
    assert np.array_equal(grey, expected)
    assert to_grey(np.array([-1.0, 0, 0.5, 2]), -1, 1).tolist() == [0, 128, 191, 255]


def test_views_of_a_scan_with_and_without_a_reference(solved: Any) -> None:
    keys = [view.key for view in make_views(solved.prepared, solved.result)]
    assert keys == ["image", "zero-filled", "difference", "reference", "error", "last-residual", "maps"]
    bare = replace(solved.prepared, volume=replace(solved.prepared.volume, reference=None))
    keys = [view.key for view in make_views(bare, solved.result)]
    assert keys == ["image", "zero-filled", "difference", "last-residual", "maps"]
    keys = [view.key for view in make_views(bare, replace(solved.result, last_residual=None))]
    assert keys == ["image", "zero-filled", "difference", "maps"]


def test_the_last_residual_has_its_own_white(solved: Any) -> None:
    *_, view, _ = make_views(solved.prepared, solved.result)
    assert view.key == view.group == "last-residual" and view.low == 0
    assert view.high == white_level(solved.result.last_residual) < 1e-2 * white_level(solved.result.image)
    assert "no map of the error" in view.note


def test_images_of_noise_are_shown_in_coarser_pixels(solved: Any) -> None:
    noise = np.random.default_rng(0).random((3, 256, 256), dtype=np.float32)
    side = Side("last-residual", "Last residual", "what is left", noise, 0, 1, "last-residual")
    view = side.encoded(0.02)
    with Image.open(io.BytesIO(base64.b64decode(view.images[0].split(",")[1]))) as shown:
        assert shown.size == (64, 64)
    assert view.note == "what is left, 4 x 4 pixels in one"
    assert side.encoded(10).note == "what is left"
    assert np.array_equal(halved(np.arange(15.0).reshape(1, 3, 5)), [[[3, 5]]])


def test_maps_of_every_set_are_shown(solved: Any) -> None:
    maps = solved.prepared.sensitivity_maps
    two = replace(solved.prepared, sensitivity_maps=torch.cat([maps, maps.flip(-1)], dim=1))
    assert make_views(two, solved.result)[-1].note.startswith("magnitude of 8 sensitivity maps")


def test_a_grid_of_images() -> None:
    images = np.arange(2 * 3 * 4 * 6, dtype=np.float32).reshape(2, 3, 4, 6)
    grid = mosaic(images, 100)
    assert grid.shape == (2, 8, 12)
    assert np.array_equal(grid[1, :4, 6:], images[1, 1]) and np.array_equal(grid[0, 4:, :6], images[0, 2])
    assert not grid[:, 4:, 6:].any()
    assert mosaic(images, 6).shape == (2, 4, 6)


def test_every_slice_has_its_row_and_its_curve(solved: Any) -> None:
    page = make(solved)
    assert len(re.findall(r"<tr data-slice=", page)) == len(re.findall(r"<polyline [^>]*points=\"\d", page)) == 3
    assert f"{solved.result.error_bound[2]:.2e}" in page and "tolerance 0.0001" in page


@pytest.mark.parametrize("empty", [[0], [0, 1, 2]])
def test_slices_without_data(solved: Any, empty: list[int]) -> None:
    flags = np.zeros(3, bool)
    flags[empty] = True
    image = solved.result.image * ~flags[:, None, None]
    residuals = [np.zeros(0) if flags[k] else one for k, one in enumerate(solved.result.residuals)]
    prepared = replace(solved.prepared, empty=flags)
    page = volume_page(
        "head", prepared, replace(solved.result, image=image, empty=flags, residuals=residuals), solved.sidecar
    )
    assert page.count("<td>no data</td>") == len(empty)


def test_warnings_alike_are_told_once(solved: Any) -> None:
    warnings = [DataWarning(k, "calibration misfit", 0.1 * k, 0.05, "Look at the maps.") for k in (0, 1, 2)]
    page = make(solved, warnings=[DataWarning(None, "remark", None, None, "A remark."), *warnings])
    assert page.count("Look at the maps.") == 1
    assert "(slices 0 to 2): 0.2 at worst, at most 0.05 is sound" in page and "(whole volume)" in page

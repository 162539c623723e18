from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import matplotlib
import numpy as np
import pytest

from molrecon.io import RawVolume, read_volume
from molrecon.networks import ResidualNetwork
from molrecon.reconstructors.mol import MOL
from molrecon.scans.comparison import undersample
from molrecon.scans.preparation import PreparedVolume, prepare
from molrecon.scans.quality_page import make_preview, quality_page, summary, write_png
from molrecon.scans.reconstruction import Reconstruction, reconstruct_prepared
from molrecon.simulation.phantom import write_phantom
from operators import random_mask

SHAPE = (32, 32)


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> RawVolume:
    path = write_phantom(tmp_path_factory.mktemp("sample") / "head.h5", slices=3, coils=4, shape=SHAPE)
    return undersample(read_volume(path), random_mask(SHAPE[1], 2, 0.25, 0), 0.0, [0])


def reconstruct(volume: RawVolume) -> tuple[PreparedVolume, Reconstruction]:
    prepared = prepare(volume)
    model = MOL(ResidualNetwork(monotonicity=0.2, channels=2, features=4, levels=1, cycles=1)).eval()
    return prepared, reconstruct_prepared(prepared, model)


def test_the_preview_shows_the_middle_slice_by_three_methods(scan: RawVolume):
    prepared, result = reconstruct(scan)
    preview = make_preview(prepared, result)
    assert preview.index == 1
    assert list(preview.images) == ["zero-filled", "CG-SENSE", "MOL"]
    assert all(image.shape == SHAPE for image in preview.images.values())
    assert preview.reference is not None and scan.reference is not None
    assert np.array_equal(preview.reference, scan.reference[1])


def test_the_page_has_error_maps_only_with_a_reference(scan: RawVolume):
    prepared, result = reconstruct(scan)
    page = quality_page(make_preview(prepared, result), prepared, result, "head")
    titles = [axes.get_title() for axes in page.axes]
    assert titles[:2] == ["zero-filled", "5 x error, " + titles[1].split(", ")[1]]
    assert "reference (rss)" in titles
    assert len(titles) == 3 + 3 + 1 + 2
    bare = replace(scan, reference=None, reference_kind=None)
    prepared, result = reconstruct(bare)
    page = quality_page(make_preview(prepared, result), prepared, result, "head")
    assert len(page.axes) == 3 + 2


def test_the_convergence_curve_has_one_line_a_slice_and_the_tolerance(scan: RawVolume):
    prepared, result = reconstruct(scan)
    page = quality_page(make_preview(prepared, result), prepared, result, "head")
    (axes,) = [axes for axes in page.axes if axes.get_title().startswith("convergence")]
    assert len(axes.get_lines()) == 3 + 1
    for line, history in zip(axes.get_lines(), result.residuals, strict=False):
        assert np.array_equal(line.get_ydata(), history)


def test_a_page_of_a_scan_with_empty_slices_says_so(scan: RawVolume):
    kspace = scan.kspace.copy()
    kspace[:2] = 0
    prepared, result = reconstruct(replace(scan, kspace=kspace))
    preview = make_preview(prepared, result)
    assert preview.index == 2
    assert "slices 0, 1: delivered as zeros" in summary(prepared, result)
    quality_page(preview, prepared, result, "head")


def test_the_summary_names_certificate_noise_and_convergence(scan: RawVolume):
    prepared, result = reconstruct(scan)
    text = summary(prepared, result)
    assert f"certificate   {result.certificate.kind}" in text
    assert "(estimated)" in text
    assert "3 of 3 slices" in text
    assert str(scan.attributes["patient_id"]) not in text


def test_the_png_is_whole_or_not_there_and_pyplot_stays_out(scan: RawVolume, tmp_path: Path):
    backend = matplotlib.get_backend()
    prepared, result = reconstruct(scan)
    page = quality_page(make_preview(prepared, result), prepared, result, "head")
    write_png(tmp_path / "page.png", page)
    assert (tmp_path / "page.png").read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in tmp_path.iterdir()] == ["page.png"]
    with pytest.raises(OSError, match="missing"):
        write_png(tmp_path / "missing" / "page.png", page)
    assert matplotlib.get_backend() == backend

"""The table of docs/clinical_research.md: its commands are run as they stand there, and real programs judge."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from molrecon.command.parser import main
from molrecon.io import Geometry
from tests.molrecon.io.test_bids import bids_errors
from tests.molrecon.stream.conftest import multicoil_kspace, write_scan

pydicom = pytest.importorskip("pydicom")

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "clinical_research.md"
HERE = "tests/test_clinical_research.py"
SLICES, ROWS, COLS = 2, 48, 40
PLACE = Geometry((-39.0, -48.0, 10.0), (0.0, 0.0, 5.0), (0.0, 2.0, 0.0), (2.0, 0.0, 0.0), 4.0)  # of the exam
PATIENT = ("Template^Patient", "T1", "1.2.3.4")


def table() -> list[dict[str, str]]:
    """Return the rows of the page's table by the names of its columns."""
    section = PAGE.read_text(encoding="utf-8").split("## What goes in, what comes out")[1].split("\n## ")[0]
    lines = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("|")]
    names = [cell.strip() for cell in lines[0]]
    return [dict(zip(names, (cell.strip().strip("`") for cell in line), strict=True)) for line in lines[2:]]


def here() -> list[str]:
    """Return the commands that are run in this file."""
    return [row["command"] for row in table() if row["test"] == HERE]


def truth() -> np.ndarray:
    """(SLICES, ROWS, COLS), the root sum of squares of the fully sampled coil images."""
    kspace = multicoil_kspace(SLICES, ROWS, COLS)
    coils = np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(kspace, (-2, -1)), norm="ortho"), (-2, -1))
    return np.sqrt((np.abs(coils) ** 2).sum(1))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the column `input` names: an axial scan with positions, the same without, and the series of an exam."""
    from molrecon.io.dicom import Origin, Template, write_dicom

    folder = tmp_path_factory.mktemp("study")
    write_scan(folder / "scan.mrd", ROWS, COLS, SLICES)
    kspace = multicoil_kspace(SLICES, ROWS, COLS)
    kspace[..., [c for c in range(COLS) if c % 2 and abs(c - COLS // 2) > 10]] = 0
    np.save(folder / "scan.npy", kspace)
    identity = pydicom.Dataset()
    identity.PatientName, identity.PatientID, identity.StudyInstanceUID = PATIENT
    made = Origin("ab" * 32, "scanner", None, "ef" * 32, "0")
    write_dicom(folder / "exam", truth(), PLACE, made, template=Template(identity))
    return folder


def same_image(found: np.ndarray) -> None:
    """Raise unless an image (SLICES, ROWS, COLS) is that of the scan, and no mirror image of it."""

    def agreement(axes: tuple[int, ...]) -> float:
        return float(np.corrcoef(np.flip(found, axes).ravel(), truth().ravel())[0, 1])

    assert found.shape == (SLICES, ROWS, COLS)
    mirrored = max(agreement(axes) for axes in ((0,), (1,), (2,), (1, 2)))
    assert agreement(()) > 0.97 and agreement(()) > mirrored + 0.01


def on_the_grid_of_the_scan(image: Any) -> np.ndarray:
    """Return the values of a NIfTI image at the voxels of the scan, from the positions that its header gives them."""
    values = np.asarray(image.dataobj)
    places = nib.affines.apply_affine(image.affine, np.argwhere(np.ones(values.shape, bool))) * (-1, -1, 1)  # LPS
    # Readout along y in steps of 2 mm, phase along x in steps of 3 mm, about (1, 2); slices 5 mm apart.
    index = np.stack([places[:, 2] / 5, (places[:, 1] - 2) / 2 + ROWS // 2, (places[:, 0] - 1) / 3 + COLS // 2], 1)
    assert np.abs(index - index.round()).max() < 1e-3
    found = np.full((SLICES, ROWS, COLS), np.nan)
    found[tuple(index.round().astype(int).T)] = values.ravel()
    assert np.isfinite(found).all()
    return found


def judge_nifti(folder: Path) -> None:
    same_image(on_the_grid_of_the_scan(nib.load(folder / "images" / "scan.nii.gz")))


def dicom_errors(files: list[Path]) -> list[str]:
    if shutil.which("dciodvfy") is None:
        pytest.skip("dciodvfy (dicom3tools) is not installed")
    found = []
    for path in files:
        done = subprocess.run(["dciodvfy", path], capture_output=True, text=True, check=False)
        assert "MRImage" in done.stdout + done.stderr  # it recognised what the file is
        found += [line for line in (done.stdout + done.stderr).splitlines() if line.startswith(("Error", "Abort"))]
    return found


def judge_by_dcm2niix(dicom: Path, scratch: Path) -> None:
    """Have dcm2niix read a folder, and compare every voxel's place and value with the scan and with our NIfTI."""
    dcm2niix = pytest.importorskip("dcm2niix")
    scratch.mkdir()
    subprocess.run(
        [dcm2niix.bin, "-b", "n", "-z", "n", "-f", "x", "-o", scratch, dicom], check=True, capture_output=True
    )
    (theirs,) = (cast(Any, nib.load(path)) for path in scratch.iterdir())
    found = on_the_grid_of_the_scan(theirs)
    same_image(found)
    ours = on_the_grid_of_the_scan(nib.load(dicom.parent / "scan.nii.gz"))
    np.testing.assert_allclose(found, ours, atol=ours.max() / 65535)


def judge_classic(folder: Path) -> None:
    files = sorted((folder / "images" / "scan.dicom").iterdir())
    assert len(files) == SLICES and dicom_errors(files) == []
    judge_by_dcm2niix(folder / "images" / "scan.dicom", folder / "classic")
    judge_archive(folder, files)


def judge_archive(folder: Path, files: list[Path]) -> None:
    """Have Orthanc store the files twice and show them: once each, and as radiologists look at axial slices."""
    from tests.molrecon.io.dicom.test_archive import SESSION, missing

    if missing():
        return
    session = folder / "session"
    session.mkdir()
    command = ["unshare", "-rn", sys.executable, str(SESSION), str(session), *map(str, files)]
    subprocess.run(command, check=True, timeout=300)
    found = json.loads((session / "session.json").read_text())
    assert found["counts"] == [SLICES, SLICES] and [len(one["Instances"]) for one in found["series"]] == [SLICES]
    image: Any = nib.load(folder / "images" / "scan.nii.gz")
    shown = nib.as_closest_canonical(image).get_fdata()[::-1, ::-1]  # right on the left, anterior above
    for path in session.glob("preview-*.png"):
        with Image.open(path) as preview:
            pixels = np.asarray(preview.convert("L"), float)
        likeness = [np.corrcoef(pixels.ravel(), shown[..., k].T.ravel())[0, 1] for k in range(SLICES)]
        assert max(likeness) > 0.99


def judge_enhanced(folder: Path) -> None:
    path = folder / "images" / "scan.dcm"
    assert dicom_errors([path]) == []
    alone = folder / "images" / "alone"
    alone.mkdir()
    shutil.copy(path, alone)
    judge_by_dcm2niix(alone, folder / "enhanced")


def judge_template(folder: Path) -> None:
    from molrecon.io import read_placed_image

    files = sorted((folder / "images" / "scan.dicom").iterdir())
    assert len(files) == SLICES and dicom_errors(files) == []
    for file in files:
        data = pydicom.dcmread(file)
        assert (data.PatientName, data.PatientID, data.StudyInstanceUID) == PATIENT
    ours, theirs = (read_placed_image(path) for path in (folder / "images" / "scan.dicom", folder / "exam"))
    np.testing.assert_allclose(ours.geometry.affine_lps(), theirs.geometry.affine_lps(), atol=1e-3)
    assert np.corrcoef(ours.values.ravel(), theirs.values.ravel())[0, 1] > 0.97


def judge_bids(folder: Path) -> None:
    assert bids_errors(folder / "derivatives") == []
    image: Any = nib.load(folder / "derivatives/sub-01/anat/sub-01_rec-molrecon_T1w.nii.gz")
    same_image(on_the_grid_of_the_scan(image))


JUDGES: dict[str, Callable[[Path], None]] = {
    "": judge_nifti,
    "--dicom": judge_classic,
    "--dicom enhanced": judge_enhanced,
    "--dicom --dicom-template exam": judge_template,
    "--bids derivatives --subject 01 --suffix T1w": judge_bids,
}


@pytest.mark.parametrize("command", here())
def test_row(command: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("molrecon.scans.quality_page.RESOLUTION", 10)
    monkeypatch.chdir(folder)
    program, *arguments = shlex.split(command)
    assert program == "molrecon" and main(arguments) == 0
    output = next(row["output"] for row in table() if row["command"] == command)
    assert (folder / output).exists()
    JUDGES[command.partition("--out images")[2].strip()](folder)


def test_every_row_has_a_test_that_is_there() -> None:
    rows = table()
    assert len(rows) >= 11 and len(here()) == len(JUDGES)
    for row in rows:
        source = (ROOT / row["test"]).read_text(encoding="utf-8")
        assert re.search(r"^def test_", source, re.MULTILINE)

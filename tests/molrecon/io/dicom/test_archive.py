"""Sent over the network: storescp receives the files, and Orthanc stores, finds and shows them, once each."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from molrecon.io.dicom import DicomSeries, Origin, write_dicom, write_enhanced_dicom
from molrecon.simulation.phantom import phantom_volume

from .conftest import GEOMETRIES

pydicom = pytest.importorskip("pydicom")
SESSION = Path(__file__).with_name("archive_session.py")
PROGRAMS = ("storescp", "storescu", "Orthanc", "unshare", "ip")


def missing() -> str:
    """Return what keeps the session from running, empty where nothing does."""
    absent = [name for name in PROGRAMS if shutil.which(name) is None]
    if absent:
        return f"not installed: {', '.join(absent)}"
    works = subprocess.run(["unshare", "-rn", "ip", "link", "set", "lo", "up"], capture_output=True, check=False)
    return "" if works.returncode == 0 else "no network namespace can be made here"


def test_a_study_is_sent_stored_found_and_shown(tmp_path: Path) -> None:
    if reason := missing():
        pytest.skip(reason)
    image = np.abs(phantom_volume(3, (96, 64))).astype(np.float32)
    image[:, :8, :8] = image.max()
    origin = Origin("ab" * 32, "mol-2d", "cd" * 32, "ef" * 32, "0.2.0")
    # Rows run from the patient's left to the right, columns from posterior to anterior.
    place = GEOMETRIES["readout left to right"]
    files = write_dicom(tmp_path / "classic", image, place, origin)
    files.append(write_enhanced_dicom(tmp_path / "all.dcm", image, place, origin))
    files += write_dicom(
        tmp_path / "second", 0.5 * image, place, origin, series=DicomSeries("second contrast", 9002, 1)
    )
    session = tmp_path / "session"
    session.mkdir()
    command = ["unshare", "-rn", sys.executable, str(SESSION), str(session), *map(str, files)]
    subprocess.run(command, check=True, timeout=120)

    sent = {data.SOPInstanceUID: data for data in map(pydicom.dcmread, files)}
    received = [pydicom.dcmread(path) for path in (session / "received").iterdir()]
    assert {data.SOPInstanceUID for data in received} == set(sent)
    for data in received:
        assert data.PixelData == sent[data.SOPInstanceUID].PixelData
    found = json.loads((session / "session.json").read_text())
    assert found["counts"] == [7, 7]  # sent again, nothing new
    assert sorted(len(series["Instances"]) for series in found["series"]) == [1, 3, 3]
    assert all("RESEARCH ONLY" in series["MainDicomTags"]["SeriesDescription"] for series in found["series"])
    assert [patient["PatientID"] for patient in found["patients"]] == ["ANON"]
    previews = sorted(session.glob("preview-*.png"))
    assert len(previews) == 7
    for path in previews:
        with Image.open(path) as preview:
            pixels = np.asarray(preview.convert("L"))
        # Read as radiologists do: the marked corner, (row 0, col 0), is the patient's left and posterior: lower right.
        assert pixels.shape == (64, 96)
        assert pixels[-8:, -8:].min() > 200
        assert pixels[:8, :8].max() < 50

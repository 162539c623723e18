"""What `describe_scan` says of a file, and what it never says."""

from __future__ import annotations

import json
from pathlib import Path

import ismrmrd
import numpy as np
import pytest

from molrecon.command.parser import main
from molrecon.io import UnreadableInput
from molrecon.scans.info import describe_scan, scan_text

COILS, ROWS, COLS = 3, 32, 24
IDENTITY = ("Doe^Jane", "PAT-4711", "1970-01-02", "General Hospital", "Dr. Miller", "left knee pain", "ACC-99")


def write(path: Path, *, repetitions: int = 2, directions: bool = True) -> Path:
    name, number, birth, hospital, doctor, remark, accession = IDENTITY

    def space(tag: str, x: int) -> str:
        return (
            f"<{tag}><matrixSize><x>{x}</x><y>{COLS}</y><z>1</z></matrixSize><fieldOfView_mm><x>{2 * x}</x>"
            f"<y>{2 * COLS}</y><z>4</z></fieldOfView_mm></{tag}>"
        )

    header = (
        '<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD">'
        f"<subjectInformation><patientName>{name}</patientName><patientID>{number}</patientID><patientBirthdate>{birth}"
        f"</patientBirthdate></subjectInformation><studyInformation><accessionNumber>{accession}</accessionNumber>"
        f"<referringPhysicianName>{doctor}</referringPhysicianName><studyDescription>{remark}</studyDescription>"
        f"</studyInformation><measurementInformation><measurementID>{number}</measurementID><protocolName>{remark}"
        f"</protocolName></measurementInformation><acquisitionSystemInformation><systemVendor>{hospital}</systemVendor>"
        f"<institutionName>{hospital}</institutionName></acquisitionSystemInformation><encoding>"
        f"{space('encodedSpace', ROWS)}{space('reconSpace', ROWS // 2)}<trajectory>cartesian</trajectory></encoding>"
        f"<userParameters><userParameterString><name>{name}</name><value>{doctor}</value></userParameterString>"
        "</userParameters></ismrmrdHeader>"
    )
    rng = np.random.default_rng(0)
    with ismrmrd.Dataset(str(path), "dataset", create_if_needed=True) as dataset:
        dataset.write_xml_header(header.encode())
        noise = ismrmrd.Acquisition.from_array(_random(rng, COILS, 500))
        noise.set_flag(ismrmrd.ACQ_IS_NOISE_MEASUREMENT)
        dataset.append_acquisition(noise)
        for repetition in range(repetitions):
            for column in (*range(0, COLS, 2), 9, 11, 13):
                line = ismrmrd.Acquisition.from_array(_random(rng, COILS, ROWS))
                line.center_sample, line.idx.kspace_encode_step_1 = ROWS // 2, column
                line.idx.repetition, line.acquisition_time_stamp = repetition, 1000 + 600 * repetition
                if directions:
                    line.read_dir[:], line.phase_dir[:], line.slice_dir[:] = (1, 0, 0), (0, 1, 0), (0, 0, 1)
                dataset.append_acquisition(line)
    return path


def _random(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(np.complex64)


def test_what_is_in_a_file(tmp_path: Path) -> None:
    described = describe_scan(write(tmp_path / "scan.h5"))
    assert described["images"]["repetition"] == 2 and described["images"]["contrast"] == 1
    assert described["kspace"] == {"slices": 1, "coils": COILS, "rows": ROWS, "cols": COLS}
    assert described["image_shape"] == [1, ROWS // 2, COLS] and described["voxel_size_mm"] == [2.0, 2.0, 4.0]
    assert described["geometry"]["place"] == "axial"
    assert described["geometry"]["first_voxel_lps_mm"] == [-16.0, -24.0, 0.0]
    assert described["sampling"]["acceleration"] == pytest.approx(COLS / 15)
    assert described["calibration"] == {"source": "the mean of all frames", "size": "24 x 7"}
    assert described["noise"]["prewhitened"] and described["noise"]["level"] == pytest.approx(np.sqrt(2), rel=0.1)
    (output,) = described["outputs"]
    assert (output["frames"], output["time_step_seconds"]) == (2, 1.5)
    assert described["left_out"] == {"noise readouts": 1} and described["odd"] == []
    text = scan_text(described)
    assert "NAME.nii.gz, 2 frames of 1.5 s" in text and len(text.splitlines()) < 24


def test_what_is_odd_is_said(tmp_path: Path) -> None:
    described = describe_scan(write(tmp_path / "scan.h5", directions=False))
    assert described["geometry"]["place"] == "unknown"
    assert any("no directions" in sentence for sentence in described["odd"])
    np.save(tmp_path / "scan.npy", np.zeros((2, COILS, ROWS, COLS), np.complex64) + np.eye(2)[0][:, None, None, None])
    described = describe_scan(tmp_path / "scan.npy")
    assert any("1 of 2 slices hold no data" in sentence for sentence in described["odd"])
    with pytest.raises(UnreadableInput):
        describe_scan(tmp_path / "nothing.h5")


def test_nobody_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "scan.h5")
    assert main(["info", str(path), "--json", str(tmp_path / "info.json")]) == 0
    output = capsys.readouterr().out + (tmp_path / "info.json").read_text() + json.dumps(describe_scan(path))
    for word in (*IDENTITY, "Doe", "Jane", "4711", "1970", "Miller", "knee", "Hospital"):
        assert word not in output

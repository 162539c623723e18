"""Identities planted in every text of raw files are in nothing that is written, printed or logged."""

from __future__ import annotations

import gzip
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import h5py
import ismrmrd
import numpy as np
import pytest

from molrecon.command.parser import main
from molrecon.io import UnreadableInput, read_volume
from molrecon.simulation.phantom import make_sample_volume

FIXED = ("--model", "zero-filled", "--noise-level", "0.01")
SECRETS = ("DOE^JANE", "MRN-4711-0815", "19610704", "1961-07-04", "Dr. Roe", "St. Elsewhere", "ACC998877")
# What the schema has of people and places, and free texts besides.
TEXTS = {
    "subjectInformation": {
        "patientName": "DOE^JANE",
        "patientID": "MRN-4711-0815",
        "patientBirthdate": "1961-07-04",
        "patientGender": "F",
    },
    "studyInformation": {
        "studyDate": "1961-07-04",
        "studyID": "ACC998877",
        "accessionNumber": "998877",
        "referringPhysicianName": "Dr. Roe",
        "studyDescription": "DOE^JANE 19610704",
        "studyInstanceUID": "1.2.ACC998877",
        "bodyPartExamined": "DOE^JANE",
    },
    "measurementInformation": {
        "measurementID": "MRN-4711-0815",
        "seriesDate": "1961-07-04",
        "protocolName": "DOE^JANE",
        "sequenceName": "MRN-4711-0815",
        "seriesDescription": "DOE^JANE born 19610704",
        "frameOfReferenceUID": "1.2.ACC998877",
    },
    "acquisitionSystemInformation": {
        "systemVendor": "St. Elsewhere",
        "systemModel": "MRN-4711-0815",
        "institutionName": "St. Elsewhere",
        "stationName": "St. Elsewhere",
        "deviceID": "ACC998877",
        "deviceSerialNumber": "ACC998877",
    },
}
USER = "<userParameters><userParameterString><name>DOE^JANE</name><value>19610704</value></userParameterString>"


def planted(xml: str) -> str:
    """Return the header with every text of TEXTS in it, in a comment too."""
    sections = "".join(
        f"<{section}>{''.join(f'<{name}>{text}</{name}>' for name, text in texts.items())}</{section}>"
        for section, texts in TEXTS.items()
    )
    start = xml.index(">", xml.index("<ismrmrdHeader")) + 1
    end = xml.index("</ismrmrdHeader>")
    return f"{xml[:start]}<!-- DOE^JANE -->{sections}{xml[start:end]}{USER}</userParameters>{xml[end:]}"


@pytest.fixture(scope="module")
def header(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The header of a scan, without any identity."""
    header = read_volume(make_sample_volume(tmp_path_factory.mktemp("head") / "a.h5", 1, 4, (24, 20))).header
    assert header is not None
    return header


@pytest.fixture
def scans(tmp_path: Path, header: str) -> list[Path]:
    """A fastMRI file and an MRD file of one slice that tell of a person wherever they can."""
    fastmri, mrd = make_sample_volume(tmp_path / "in" / "one.h5", 1, 4, (24, 20)), tmp_path / "in" / "two.mrd"
    kspace = read_volume(fastmri).kspace[0]
    with h5py.File(fastmri, "r+") as file:
        del file["ismrmrd_header"]
        file.create_dataset("ismrmrd_header", data=planted(header), dtype=h5py.string_dtype())
        for key in ("patient_id", "acquisition", "acceleration", "num_low_frequency", "patient_name", "DOE^JANE"):
            file.attrs[key] = "DOE^JANE 19610704"
        file["kspace"].attrs["of"] = "DOE^JANE"
    with ismrmrd.Dataset(str(mrd), "dataset", create_if_needed=True) as dataset:
        dataset.write_xml_header(planted(header).encode())
        for column in range(kspace.shape[-1]):
            acquisition = ismrmrd.Acquisition.from_array(np.ascontiguousarray(kspace[:, :, column]))
            acquisition.center_sample = kspace.shape[1] // 2
            acquisition.idx.kspace_encode_step_1 = column
            acquisition.idx.repetition = column // 30  # one more repetition, so that something is left out and logged
            acquisition.user_int[0] = 19610704
            dataset.append_acquisition(acquisition)
    return [fastmri, mrd]


def texts_of(path: Path) -> str:
    content = path.read_bytes()
    return (gzip.decompress(content) if path.suffix == ".gz" else content).decode("latin-1")


def test_no_identity_in_what_is_written_and_said(
    scans: list[Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("molrecon.scans.quality_page.RESOLUTION", 10)
    said: list[str] = []
    summary = "molrecon.scans.quality_page.summary"
    from molrecon.scans import quality_page

    whole = quality_page.summary

    def remembered(*args: Any) -> str:  # pixels cannot be searched
        said.append(whole(*args))
        return said[-1]

    monkeypatch.setattr(summary, remembered)
    out = tmp_path / "out"
    with caplog.at_level(logging.DEBUG, "molrecon"):
        code = main(
            ["reconstruct", *map(str, scans), "--out", str(out), *FIXED, "--device", "cpu", "--verbose"],
        )
        assert code in (0, 5)
        assert main(["status", str(out), "--json", str(tmp_path / "status.json")]) in (0, 5)
    assert len(said) == 2
    printed = capsys.readouterr()
    written = [*(path for path in out.rglob("*") if path.is_file()), tmp_path / "status.json"]
    assert len(written) == 2 * 5 + 2 + 2 + 3 + 1
    everything = {
        "stdout": printed.out,
        "stderr": printed.err,
        "log": caplog.text,
        "pages": "\n".join(said),
        **{str(path): texts_of(path) for path in written},
    }
    found = [(where, secret) for where, text in everything.items() for secret in SECRETS if secret in text]
    assert not found


def fields(xml: str) -> Iterator[str]:
    """Yield the header once for every element, with a person's name instead of its text or as its tag."""
    for n, _ in enumerate(ElementTree.fromstring(xml).iter()):
        for change in ("text", "tag"):
            root = ElementTree.fromstring(xml)
            element = list(root.iter())[n]
            setattr(element, change, "DOE_JANE")
            yield ElementTree.tostring(root, encoding="unicode")


def test_no_error_quotes_the_header(tmp_path: Path, header: str, caplog: pytest.LogCaptureFixture) -> None:
    kspace = np.ones((1, 2, 8, 8), np.complex64)
    refused = 0
    for xml in [*fields(header), header.replace("</encoding>", "</DOE_JANE>"), "DOE_JANE", "<DOE_JANE/>"]:
        with h5py.File(tmp_path / "a.h5", "w") as file:
            file["kspace"] = kspace
            file["ismrmrd_header"] = xml
        try:
            read_volume(tmp_path / "a.h5")
        except UnreadableInput as error:
            refused += 1
            assert "DOE_JANE" not in str(error)
            assert error.__suppress_context__ or error.__context__ is None  # what --verbose prints
    assert refused > 10
    assert "DOE_JANE" not in caplog.text


BOMB = '<!DOCTYPE a [<!ENTITY b "bbbbbbbbbb"><!ENTITY c "&b;&b;&b;&b;">]>'
FILE = '<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/hostname">]>'


@pytest.mark.parametrize("declaration", [BOMB, FILE, "<!DOCTYPE ismrmrdHeader>"])
def test_document_types_are_refused_before_parsing(
    declaration: str, tmp_path: Path, header: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("parsed")

    monkeypatch.setattr("xml.etree.ElementTree.fromstring", never)
    start = header.index("<ismrmrdHeader")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["kspace"] = np.ones((1, 2, 8, 8), np.complex64)
        file["ismrmrd_header"] = header[:start] + declaration + header[start:]
    with pytest.raises(UnreadableInput, match=r"a header that is XML with a document type \(DOCTYPE\), expected none"):
        read_volume(tmp_path / "a.h5")

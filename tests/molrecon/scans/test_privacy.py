"""Identities planted in every text of raw files are in nothing that is written, printed or logged."""

from __future__ import annotations

import gzip
import json
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
from molrecon.simulation.phantom import write_phantom

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
        "patientPosition": "DOE^JANE",
        "seriesTime": "19610704",
    },
    "sequenceParameters": {"sequence_type": "DOE^JANE", "TR": "DOE^JANE", "TE": "MRN-4711-0815"},
    "waveformInformation": {"waveformName": "DOE^JANE", "waveformType": "other"},
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
    header = read_volume(write_phantom(tmp_path_factory.mktemp("head") / "a.h5", 1, 4, (24, 20))).header
    assert header is not None
    return header


@pytest.fixture
def scans(tmp_path: Path, header: str) -> list[Path]:
    """A fastMRI file and an MRD file of one slice that tell of a person wherever they can."""
    fastmri, mrd = write_phantom(tmp_path / "in" / "one.h5", 1, 4, (24, 20)), tmp_path / "in" / "two.mrd"
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
            acquisition.read_dir[:], acquisition.phase_dir[:], acquisition.slice_dir[:] = np.eye(3)
            dataset.append_acquisition(acquisition)
    return [fastmri, mrd]


def texts_of(path: Path) -> str:
    content = path.read_bytes()
    return (gzip.decompress(content) if path.suffix == ".gz" else content).decode("latin-1")


@pytest.fixture
def failing(scans: list[Path], tmp_path: Path, header: str) -> list[Path]:
    """An MRD file that is refused, and one whose reconstruction fails; both tell of the same person."""
    refused, poor = tmp_path / "in" / "three.mrd", tmp_path / "in" / "four.npy"
    with ismrmrd.Dataset(str(refused), "dataset", create_if_needed=True) as dataset:
        dataset.write_xml_header(planted(header).replace("cartesian", "DOE^JANE").encode())
        dataset.append_acquisition(ismrmrd.Acquisition.from_array(np.ones((4, 24), np.complex64)))
    kspace = read_volume(scans[0]).kspace
    kspace[..., :9], kspace[..., 11:] = 0, 0  # too few lines for coil maps
    np.save(poor, kspace)
    return [refused, poor]


def said_and_written(folders: list[Path], printed: Any, log: str) -> dict[str, str]:
    """Return all texts by where they are: what was printed and logged, every file of the folders, and its name."""
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    names = " ".join(str(path.relative_to(folder)) for folder in folders for path in folder.rglob("*"))
    return {
        "stdout": printed.out,
        "stderr": printed.err,
        "log": log,
        "names": names,
        **{str(path): texts_of(path) for path in files},
    }


def leaks(texts: dict[str, str], secrets: tuple[str, ...] = SECRETS) -> list[tuple[str, str]]:
    return [(where, secret) for where, text in texts.items() for secret in secrets if secret in text]


@pytest.mark.parametrize("options", [(), ("--no-paths",)], ids=["paths", "no-paths"])
def test_no_identity_in_what_is_written_and_said(
    options: tuple[str, ...],
    scans: list[Path],
    failing: list[Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("molrecon.scans.quality_page.RESOLUTION", 10)
    summaries: list[str] = []
    summary = "molrecon.scans.quality_page.summary"
    from molrecon.scans import quality_page

    whole = quality_page.summary

    def remembered(*args: Any) -> str:  # pixels cannot be searched
        summaries.append(whole(*args))
        return summaries[-1]

    monkeypatch.setattr(summary, remembered)
    out = tmp_path / "out"
    with caplog.at_level(logging.DEBUG, "molrecon"):
        inputs = map(str, [*scans, *failing])
        code = main(["reconstruct", *inputs, "--out", str(out), *FIXED, *options, "--device", "cpu", "--verbose"])
        assert code == 4
        assert main(["status", str(out), "--json", str(out / "status.json")]) == 4
        assert main(["report", str(out)]) == 0
    assert len(summaries) == 2
    statuses = [one["status"] for one in json.loads((out / "status.json").read_text())["volumes"]]
    assert sorted(statuses)[0] == "failed" and sorted(statuses)[-1] == "unreadable"
    written = [path for path in out.rglob("*") if path.is_file()]
    # Outputs, thumbnails, records, list, manifest, page and status.
    assert len(written) == 2 * 5 + 2 + 4 + 1 + 1 + 1 + 1
    assert sorted(path.name for path in out.glob("*.html")) == ["index.html", "one.html", "two.html"]
    texts = said_and_written([out], capsys.readouterr(), caplog.text)
    assert not leaks({**texts, "pages": "\n".join(summaries)})
    if options:
        pages = "".join(path.read_text(encoding="utf-8") for path in out.glob("*.html"))
        assert str(tmp_path) not in pages and tmp_path.name not in pages


def test_no_identity_in_dicom_and_bids_but_that_of_the_template(
    scans: list[Path],
    failing: list[Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pydicom = pytest.importorskip("pydicom", reason="pydicom is not installed")
    monkeypatch.setattr("molrecon.scans.quality_page.RESOLUTION", 10)
    template = pydicom.Dataset()
    template.PatientName, template.PatientID, template.StudyInstanceUID = "TEMPLATE^PETER", "TMPL-77", "1.2.3.4"
    template.InstitutionName, template.OperatorsName = "TEMPLATE-CLINIC", "TEMPLATE^OLGA"
    template.file_meta = pydicom.dataset.FileMetaDataset()
    template.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    template.SOPClassUID, template.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.4", "1.2.3.5"
    template.save_as(tmp_path / "exam.dcm", enforce_file_format=True)
    bids = ("--bids", str(tmp_path / "bids"), "--subject", "07", "--suffix", "T1w")
    inputs = [str(scans[1]), *map(str, failing), str(scans[0])]  # the last one has no place in the patient
    for name, more in (("plain", ()), ("like", ("--dicom-template", str(tmp_path / "exam.dcm")))):
        out = tmp_path / name
        fixed = (*FIXED, "--device", "cpu", "--verbose", "--dicom", *bids, *more)
        with caplog.at_level(logging.DEBUG, "molrecon"):
            assert main(["reconstruct", *inputs, "--out", str(out), *fixed]) == 4
        assert [path.name for path in out.glob("*.dicom")] == ["two.dicom"]
        assert list((tmp_path / "bids").rglob("*_T1w.nii.gz")) and list((tmp_path / "bids").rglob("*.json"))
        texts = said_and_written([out, tmp_path / "bids"], capsys.readouterr(), caplog.text)
        assert not leaks(texts)
        where = {where for where, _ in leaks(texts, ("TEMPLATE", "TMPL-77", "PETER", "OLGA"))}
        assert where == ({str(path) for path in (out / "two.dicom").iterdir()} if more else set())
        caplog.clear()


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

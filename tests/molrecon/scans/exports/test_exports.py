"""From raw data to DICOM and BIDS by the command: right places, what a resumed run keeps, no identity, refusals."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import ismrmrd
import nibabel
import numpy as np
import pytest

from molrecon.__main__ import main
from molrecon.io import UnreadableInput
from molrecon.io.bids import BidsName
from molrecon.scans.exports import BidsExport, DicomExport, Exports
from molrecon.scans.exports.bids_names import Line, names_for, read_table

pydicom = pytest.importorskip("pydicom")

ROWS, COLS, COILS = 24, 16, 2
READ, PHASE = np.array([0.0, 0.8, 0.6]), np.array([1.0, 0.0, 0.0])
IDENTITY = ("DOE^JANE", "MRN-4711", "19700102")
HEADER = f"""<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD">
<subjectInformation><patientName>{IDENTITY[0]}</patientName><patientID>{IDENTITY[1]}</patientID>
<patientBirthdate>1970-01-02</patientBirthdate></subjectInformation>
<acquisitionSystemInformation><systemFieldStrength_T>2.89</systemFieldStrength_T></acquisitionSystemInformation>
<experimentalConditions><H1resonanceFrequency_Hz>123200000</H1resonanceFrequency_Hz></experimentalConditions>
<encoding><encodedSpace><matrixSize><x>{ROWS}</x><y>{COLS}</y><z>1</z></matrixSize>
<fieldOfView_mm><x>48</x><y>40</y><z>5</z></fieldOfView_mm></encodedSpace>
<reconSpace><matrixSize><x>{ROWS // 2}</x><y>{COLS}</y><z>1</z></matrixSize>
<fieldOfView_mm><x>24</x><y>40</y><z>5</z></fieldOfView_mm></reconSpace>
<encodingLimits><kspace_encoding_step_1><minimum>0</minimum><maximum>{COLS - 1}</maximum><center>{COLS // 2}</center>
</kspace_encoding_step_1></encodingLimits><trajectory>cartesian</trajectory></encoding>
<sequenceParameters><TR>450</TR><TE>9.5</TE><TE>19</TE><flipAngle_deg>70</flipAngle_deg></sequenceParameters>
</ismrmrdHeader>"""


def write_scan(path: Path, contrasts: int = 1, repetitions: int = 1, seed: int = 0, header: str = HEADER) -> Path:
    """Write a fully sampled scan of three oblique slices with gaps, and an identity in its header."""
    rng = np.random.default_rng(seed)
    with ismrmrd.Dataset(str(path), "dataset", create_if_needed=True) as dataset:
        dataset.write_xml_header(header.encode())
        for index in np.ndindex(repetitions, contrasts, 3, COLS):
            repetition, contrast, number, step = index
            samples = rng.normal(size=(COILS, ROWS)) + 1j * rng.normal(size=(COILS, ROWS))
            line = ismrmrd.Acquisition.from_array(samples.astype(np.complex64))
            line.center_sample = ROWS // 2
            line.idx.kspace_encode_step_1, line.idx.slice = step, number
            line.idx.contrast, line.idx.repetition = contrast, repetition
            line.acquisition_time_stamp = 800 * repetition + step
            line.position[:] = np.array([10.0, -20.0, 30.0]) + 7.0 * number * np.cross(READ, PHASE)
            line.read_dir[:], line.phase_dir[:], line.slice_dir[:] = READ, PHASE, np.cross(READ, PHASE)
            dataset.append_acquisition(line)
    return path


def write_template(path: Path, study: str = "1.2.3.4") -> Path:
    data = pydicom.Dataset()
    data.PatientName, data.PatientID, data.StudyInstanceUID = "Template^Patient", "T1", study
    data.file_meta = pydicom.dataset.FileMetaDataset()
    data.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    data.SOPClassUID, data.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.4", "1.2.3.5"
    data.save_as(path, enforce_file_format=True)
    return path


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("molrecon.scans.quality_page.RESOLUTION", 10)


def reconstruct(*arguments: object) -> int:
    # The samples are noise, whose level is known: to estimate it takes most of the time.
    options = ("--model", "zero-filled", "--device", "cpu", "--noise-level", "1.4")
    return main(["reconstruct", *map(str, arguments), *options])


def values_by_place(image: nibabel.Nifti1Image) -> tuple[np.ndarray, np.ndarray]:
    """Return places (voxels, 3) in mm, sorted, and the values there."""
    data = image.get_fdata()
    places = nibabel.affines.apply_affine(image.affine, np.argwhere(np.ones(data.shape[:3], bool))).round(2) + 0.0
    order = np.lexsort(places.T)
    return places[order], data.reshape(-1, *data.shape[3:])[order]


@pytest.mark.parametrize("form", ["classic", "enhanced"])
def test_dicom_and_nifti_agree_on_every_voxel(tmp_path: Path, form: str) -> None:
    dcm2niix = pytest.importorskip("dcm2niix")
    scan = write_scan(tmp_path / "scan.mrd")
    assert reconstruct(scan, "--out", tmp_path / "out", "--dicom", form) == 0
    path = tmp_path / "out" / ("scan.dicom" if form == "classic" else "scan.dcm")
    folder = path if form == "classic" else tmp_path / "alone"
    if form == "enhanced":
        folder.mkdir()
        shutil.copy(path, folder)
    (tmp_path / "nifti").mkdir()
    command = [dcm2niix.bin, "-b", "n", "-z", "n", "-f", "x", "-o", tmp_path / "nifti", folder]
    subprocess.run(command, check=True, capture_output=True)
    ours: Any = nibabel.load(tmp_path / "out" / "scan.nii.gz")
    (theirs,) = (cast(Any, nibabel.load(path)) for path in (tmp_path / "nifti").iterdir())
    (our_places, our_values), (places, values) = values_by_place(ours), values_by_place(theirs)
    np.testing.assert_allclose(places, our_places, atol=0.011)
    np.testing.assert_allclose(values, our_values, atol=our_values.max() / 65535)
    files = sorted(path.iterdir()) if form == "classic" else [path]
    for file in files:
        assert not [words for words in IDENTITY if words.encode() in file.read_bytes()]
    if form == "classic":
        data = pydicom.dcmread(files[0])
        assert (data.EchoTime, data.RepetitionTime, data.FlipAngle, data.MagneticFieldStrength) == (9.5, 450, 70, 2.89)
        assert len(files) == 3
    entry = json.loads((tmp_path / "out" / "records" / "scan.json").read_text())
    assert str(path) in entry["outputs"]


def test_contrasts_and_repetitions(tmp_path: Path) -> None:
    scan = write_scan(tmp_path / "scan.mrd", contrasts=2, repetitions=3)
    command = (scan, "--out", tmp_path / "out", "--dicom", "--bids", tmp_path / "bids", "--subject", "7")
    assert reconstruct(*command, "--suffix", "MEGRE") == 0
    series = []
    for echo in (1, 2):
        files = sorted((tmp_path / "out" / f"scan_echo-{echo}.dicom").iterdir())
        assert len(files) == 9
        series.append(pydicom.dcmread(files[-1]))
        assert (series[-1].EchoNumbers, series[-1].EchoTime) == (echo, 9.5 * echo)
        assert (series[-1].NumberOfTemporalPositions, series[-1].TemporalResolution) == (3, 2000)
        image: Any = nibabel.load(tmp_path / "bids" / "sub-7" / "anat" / f"sub-7_rec-molrecon_echo-{echo}_MEGRE.nii.gz")
        assert image.shape == (COLS, ROWS // 2, 3, 3)
    assert len({one.SeriesInstanceUID for one in series}) == 2
    assert len({one.StudyInstanceUID for one in series}) == 1
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.dcm")}
    assert reconstruct(*command, "--suffix", "MEGRE", "--resume") == 0
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.dcm")} == before


def test_a_resumed_run_keeps_what_would_come_out_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scan, out = write_scan(tmp_path / "scan.mrd"), tmp_path / "out"
    first, second = write_template(tmp_path / "a.dcm"), write_template(tmp_path / "b.dcm", "1.2.3.9")

    def kept(*options: object) -> bool:
        assert reconstruct(scan, "--out", out, "--resume", *options) == 0
        return "kept" in capsys.readouterr().out

    bids = ("--bids", tmp_path / "bids", "--subject", "1", "--suffix", "T1w")
    assert not kept()
    assert kept()
    assert not kept("--dicom")  # asked for, and not there
    assert kept("--dicom")
    assert not kept("--dicom", "classic", "--dicom-template", first)
    assert pydicom.dcmread(out / "scan.dicom" / "0001.dcm").PatientID == "T1"
    assert kept("--dicom", "classic", "--dicom-template", first)
    assert not kept("--dicom", "classic", "--dicom-template", second)
    assert not kept(*bids)
    assert kept(*bids)
    (tmp_path / "bids" / "sub-1" / "anat" / "sub-1_rec-molrecon_T1w.nii.gz").unlink()
    assert not kept(*bids)


def test_a_bids_data_set_from_a_table(tmp_path: Path) -> None:
    folder = tmp_path / "DOE_JANE"
    folder.mkdir()
    scans = [write_scan(folder / f"s{k}.mrd", seed=k) for k in range(3)]
    rows = ["input\tsubject\tsession\tsuffix\trun", f"{scans[0]}\t01\tpre\tT2w\t1", f"{scans[1]}\tsub-01\tpre\tT2w\t2"]
    table = tmp_path / "table.tsv"
    table.write_text("\n".join([*rows, f"{scans[2]}\t02\tn/a\tT1w\t"]) + "\n")
    out, bids = tmp_path / "out", tmp_path / "bids"
    command = ("--inputs-from", table, "--out", out, "--bids", bids, "--no-paths")
    assert reconstruct(*command) == 0
    stems = ("sub-01/ses-pre/anat/sub-01_ses-pre_rec-molrecon_run-1_T2w", "sub-02/anat/sub-02_rec-molrecon_T1w")
    for stem, scan in zip(stems, (scans[0], scans[2]), strict=True):
        sidecar = json.loads((bids / f"{stem}.json").read_text())
        assert sidecar["EchoTime"] == 0.0095
        assert sidecar["Sources"] == [f"bids::sourcedata/{stem.split('/')[0]}/{scan.name}"]
        assert "RESEARCH ONLY" in sidecar["Description"]
        (raw,) = (name for name in sidecar["prov"]["entity"] if name.startswith("mr:sha256/"))
        assert raw.endswith(sidecar["molrecon"]["input_sha256"])
        images: list[Any] = [nibabel.load(path) for path in (bids / f"{stem}.nii.gz", out / f"{scan.stem}.nii.gz")]
        np.testing.assert_array_equal(images[0].get_fdata(), images[1].get_fdata())
    for path in (*bids.rglob("*.json"), *out.rglob("*.json")):
        assert not [words for words in (*IDENTITY, "DOE_JANE") if words in path.read_text()]
    validator = shutil.which("bids-validator-deno", path=str(Path(sys.executable).parent))
    if validator is not None:
        done = subprocess.run([validator, "--json", bids], capture_output=True, text=True, check=False)
        issues = json.loads(done.stdout)["issues"]["issues"]
        assert [issue for issue in issues if issue["severity"] == "error"] == []
    # Another scan under the same name does not take its place.
    other = write_scan(tmp_path / "other.mrd", seed=9)
    assert reconstruct(other, "--out", out, "--bids", bids, "--subject", "02", "--suffix", "T1w") == 4
    assert "image of another input" in json.loads((out / "records" / "other.json").read_text())["message"]


def test_suffixes_that_the_headers_tell(tmp_path: Path) -> None:
    """A spin echo with two echo times, and one with a single one; an input that cannot be read is no obstacle."""
    spin = HEADER.replace("<TR>450", "<TR>2000").replace("</flipAngle_deg>", "</flipAngle_deg><sequence_type>SE")
    spin = spin.replace("<sequence_type>SE", "<sequence_type>SE</sequence_type>")
    write_scan(tmp_path / "two.mrd", contrasts=2, header=spin)
    write_scan(
        tmp_path / "one.mrd", header=spin.replace("<TE>9.5</TE><TE>19", "<TE>90").replace(">SE<", ">TurboSpinEcho<")
    )
    (tmp_path / "bad.h5").write_bytes(b"nothing")
    inputs = [tmp_path / name for name in ("two.mrd", "one.mrd", "bad.h5")]
    assert reconstruct(*inputs, "--out", tmp_path / "out", "--bids", tmp_path / "bids", "--subject", "1") == 4
    images = sorted(path.name for path in (tmp_path / "bids").rglob("*.nii.gz"))
    assert images == [f"sub-1_rec-molrecon_{ending}.nii.gz" for ending in ("T2w", "echo-1_MESE", "echo-2_MESE")]
    times = [
        json.loads((tmp_path / "bids" / "sub-1" / "anat" / name.replace(".nii.gz", ".json")).read_text())["EchoTime"]
        for name in images
    ]
    assert times == [0.09, 0.0095, 0.019]
    validator = shutil.which("bids-validator-deno", path=str(Path(sys.executable).parent))
    if validator is not None:
        done = subprocess.run([validator, "--json", tmp_path / "bids"], capture_output=True, text=True, check=False)
        issues = json.loads(done.stdout)["issues"]["issues"]
        assert [issue for issue in issues if issue["severity"] == "error"] == []


def test_without_geometry_dicom_is_refused(tmp_path: Path) -> None:
    kspace = np.random.default_rng(0).normal(size=(1, COILS, ROWS, COLS)).astype(np.complex64)
    np.save(tmp_path / "scan.npy", kspace)
    assert reconstruct(tmp_path / "scan.npy", "--out", tmp_path / "out", "--dicom", "enhanced") == 4
    record = json.loads((tmp_path / "out" / "records" / "scan.json").read_text())
    assert record["status"] == "failed"
    assert "scan.npy does not say where its voxels are in the patient" in record["message"]
    assert not list((tmp_path / "out").glob("scan.*"))


def test_arguments_that_do_not_go_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scan = write_scan(tmp_path / "scan.mrd")
    (tmp_path / "table.tsv").write_text("input\tsubject\nscan.mrd\ta b\n")
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.9.0"}')
    template = write_template(tmp_path / "out.dcm")
    for options, words in (
        ((scan, "--dicom-template", template), "--dicom-template without --dicom"),
        ((scan, "--subject", "1"), "without --bids"),
        ((scan, "--bids", tmp_path / "b"), "--bids without --subject"),
        ((scan, "--bids", tmp_path / "b", "--subject", "a-b", "--suffix", "T1w"), "letters and digits"),
        ((scan, "--bids", tmp_path / "b", "--subject", "1"), "scan.mrd does not tell by a sequence in the header"),
        ((scan, "--bids", tmp_path / "b", "--subject", "1", "--shard", "1/2"), "expected --suffix or a table with"),
        ((scan, "--bids", tmp_path / "b", "--subject", "1", "--suffix", "bold"), "expected one of T1w"),
        ((scan, "--bids", tmp_path / "b", "--inputs-from", tmp_path / "table.tsv"), "beside a table"),
    ):
        assert reconstruct(*options, "--out", tmp_path / "out") == 2
        assert words in capsys.readouterr().err
    for arguments in (
        (scan, "--bids", tmp_path / "raw", "--subject", "1"),
        (scan, "--dicom", "classic", "--dicom-template", scan),
        ("--bids", tmp_path / "b", "--inputs-from", tmp_path / "table.tsv"),
    ):
        assert reconstruct(*arguments, "--out", tmp_path / "out") in (2, 3)
        assert "expected" in capsys.readouterr().err
    shutil.move(scan, tmp_path / "x.dcm")
    assert reconstruct(tmp_path / "x.dcm", "--out", tmp_path, "--dicom", "enhanced") == 2
    assert "would replace an input" in capsys.readouterr().err


def test_workers_write_them_too(tmp_path: Path) -> None:
    scans = [write_scan(tmp_path / f"s{k}.mrd", seed=k) for k in range(2)]
    template = write_template(tmp_path / "t.dcm")
    command = (*scans, "--out", tmp_path / "out", "--workers", 2, "--dicom", "enhanced", "--dicom-template", template)
    assert reconstruct(*command, "--bids", tmp_path / "bids", "--subject", "1", "--suffix", "T1w") == 0
    assert [pydicom.dcmread(tmp_path / "out" / f"s{k}.dcm").PatientID for k in range(2)] == ["T1"] * 2
    assert len(list((tmp_path / "bids" / "sub-1" / "anat").glob("sub-1_rec-molrecon_run-*_T1w.nii.gz"))) == 2


def test_tables_that_cannot_be_used() -> None:
    table = read_table("\ufeffsubject\tinput\tsession\n01\ta/b.h5\tses-1\n02\tc.h5\tn/a\n", "t")
    assert table == {Path("a/b.h5"): Line("01", "1"), Path("c.h5"): Line("02")}
    for text, words in (
        ("a.h5\nb.h5\n", "columns"),
        ("input\tsubject\tage\n", "columns"),
        ("input\tsubject\na.h5\t\n", "line 2"),
        ("input\tsubject\na.h5\t1\na.h5\t2\n", "line 3"),
        ("input\tsubject\na.h5\tx y\n", "letters and digits"),
        ("input\tsubject\trun\na.h5\t1\tone\n", "line 2"),
    ):
        with pytest.raises(UnreadableInput, match=words):
            read_table(text, "t")


def test_names_do_not_meet(tmp_path: Path) -> None:
    assert names_for({"a": "T1w"}, "1") == {"a": BidsName("1")}
    names = names_for({"a": "T1w", "b": "T2w", "c": "T1w"}, "1").values()
    assert [(name.suffix, name.run) for name in names] == [("T1w", 1), ("T2w", None), ("T1w", 2)]
    with pytest.raises(ValueError, match="a and b are both sub-1/anat"):
        BidsExport(tmp_path, {"a": BidsName("1"), "b": BidsName("1")})
    with pytest.raises(ValueError, match="form 'old'"):
        DicomExport("old")  # type: ignore[arg-type]
    bids = BidsExport(tmp_path, names_for({"a": "T1w", "b": "T1w"}, "1"))
    paths = Exports(DicomExport(), bids).paths(Path("out"), "a", "run-2")
    assert [path.name for path in paths] == [
        "a_run-2.dicom",
        "sub-1_rec-molrecon_run-1_desc-space2_T1w.nii.gz",
        "sub-1_rec-molrecon_run-1_desc-space2_T1w.json",
    ]
    assert Exports().settings_sha256("a", "0" * 64) == "0" * 64


@pytest.mark.parametrize("form", ["classic", "enhanced"])
def test_series_of_one_scan_are_different_objects(tmp_path: Path, form: str) -> None:
    scan = write_scan(tmp_path / "scan.mrd", contrasts=2)
    with ismrmrd.Dataset(str(scan), "dataset") as dataset:
        lines = [dataset.read_acquisition(k) for k in range(dataset.number_of_acquisitions())]
    with ismrmrd.Dataset(str(tmp_path / "sets.mrd"), "dataset", create_if_needed=True) as dataset:
        dataset.write_xml_header(HEADER.encode())
        for one in lines:
            one.idx.set, one.idx.contrast = one.idx.contrast, 0
            dataset.append_acquisition(one)
    assert reconstruct(tmp_path / "sets.mrd", "--out", tmp_path / "out", "--dicom", form) == 0
    pattern = "*.dicom/*.dcm" if form == "classic" else "*.dcm"
    found = [pydicom.dcmread(path) for path in sorted((tmp_path / "out").glob(pattern))]
    assert len({one.SOPInstanceUID for one in found}) == len(found) == (6 if form == "classic" else 2)
    series = {one.SeriesInstanceUID: (one.SeriesNumber, one.SeriesDescription) for one in found}
    assert sorted(series.values()) == [
        (9001, "molrecon zero-filled acq-set1 RESEARCH ONLY"),
        (9002, "molrecon zero-filled acq-set2 RESEARCH ONLY"),
    ]


@pytest.mark.parametrize("form", ["classic", "enhanced"])
def test_dicom_of_an_earlier_scan_does_not_stay(tmp_path: Path, form: str) -> None:
    out = tmp_path / "out"
    for patient in ("a", "b"):
        (tmp_path / patient).mkdir()
        scan = write_scan(tmp_path / patient / "scan.mrd", seed=ord(patient))
        assert reconstruct(scan, "--out", out, *(("--dicom", form) if patient == "a" else ())) == 0
        assert (out / ("scan.dicom" if form == "classic" else "scan.dcm")).exists() == (patient == "a")


def test_options_that_do_not_go_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scan = write_scan(tmp_path / "scan.mrd")
    for options, message in (
        (("--suffix", "T1w"), "--suffix without --bids"),
        (("--keep", "maps", "--virtual-coils", "1"), "--keep maps with --virtual-coils"),
        (("--out", scan), "found a file, expected a folder"),
    ):
        assert reconstruct(scan, "--out", tmp_path / "out", *options) == 2
        assert message in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        reconstruct(scan, "--out", tmp_path / "out", "--workers", "2", "--devices", "cpu,foo")

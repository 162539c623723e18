"""BIDS names and data sets, judged by the validator of BIDS."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from molrecon.io import UnreadableInput
from molrecon.io.bids import SUFFIXES, BidsName, check_dataset, read_bids_sidecar, write_bids
from molrecon.io.geometry import Geometry

IMAGE = np.arange(2 * 5 * 7, dtype=np.float32).reshape(2, 5, 7)
PLACE = Geometry((-3.0, -2.0, 10.0), (0.0, 0.0, 4.0), (0.0, 0.75, 0.0), (0.5, 0.0, 0.0), 4.0)


def bids_errors(dataset: Path) -> list[dict[str, Any]]:
    """Return the issues of severity error that the validator finds in a data set."""
    validator = shutil.which("bids-validator-deno", path=str(Path(sys.executable).parent)) or shutil.which(
        "bids-validator-deno"
    )
    if validator is None:
        pytest.skip("bids-validator-deno is not installed")
    done = subprocess.run([validator, "--json", dataset], capture_output=True, text=True, check=False)
    report = json.loads(done.stdout)
    assert report["summary"]["totalFiles"] > 2
    return [issue for issue in report["issues"]["issues"] if issue["severity"] == "error"]


def test_names() -> None:
    assert BidsName("01").stem == "sub-01/anat/sub-01_rec-molrecon_T1w"
    full = BidsName("01", "pre", "MEGRE", 2, (("part", "mag"), ("echo", "1"), ("acq", "set2")))
    assert full.stem == "sub-01/ses-pre/anat/sub-01_ses-pre_acq-set2_rec-molrecon_run-2_echo-1_part-mag_MEGRE"
    for wrong, words in (
        ({"subject": "a b"}, "letters and digits"),
        ({"subject": ""}, "letters and digits"),
        ({"subject": "../x"}, "letters and digits"),
        ({"subject": "1", "session": "a_b"}, "letters and digits"),
        ({"subject": "1", "suffix": "bold"}, "expected one of T1w"),
        ({"subject": "1", "entities": (("task", "rest"),)}, "entity 'task'"),
    ):
        with pytest.raises(ValueError, match=words):
            BidsName(**wrong)


def test_a_data_set_without_errors(tmp_path: Path) -> None:
    names = [BidsName("01", suffix=suffix) for suffix in SUFFIXES if suffix not in ("MEGRE", "MESE")]
    names += [BidsName("02", "pre", "T2w", run) for run in (1, 2)]
    names += [BidsName("02", "post", suffix, None, (("echo", echo),)) for suffix in ("MEGRE", "MESE") for echo in "12"]
    names += [BidsName("03", entities=(("acq", "set2"), ("part", "mag"), ("desc", "space2")))]
    for name in names:
        sidecar = {"SkullStripped": False, "EchoTime": 0.01, "molrecon": {"input_sha256": "ab" * 32}}
        image, _ = write_bids(tmp_path, name, IMAGE, None, PLACE, sidecar, version="0.2.0")
        found = nibabel.Nifti1Image.from_filename(image)
        np.testing.assert_array_equal(np.asarray(found.dataobj).T, IMAGE)
        assert read_bids_sidecar(tmp_path, name)["molrecon"]["input_sha256"] == "ab" * 32
    series, frames = BidsName("04", suffix="T2w"), np.stack([IMAGE] * 3)
    sidecar = {"SkullStripped": False}
    write_bids(tmp_path, series, frames, None, PLACE, sidecar, version="0.2.0", frame_seconds=2.0)
    with pytest.raises(ValueError, match="sub-05_rec-molrecon_T1w with 3 frames, expected a single volume"):
        write_bids(tmp_path, BidsName("05"), frames, None, PLACE, sidecar, version="0.2.0", frame_seconds=2.0)
    assert bids_errors(tmp_path) == []
    # The validator does not ask for it, the standard does.
    description = json.loads((tmp_path / "dataset_description.json").read_text())
    assert description["DatasetType"] == "derivative"
    assert [program["Name"] for program in description["GeneratedBy"]] == ["molrecon"]
    assert "RESEARCH ONLY" in (tmp_path / "README.md").read_text()


def test_the_description_of_others_stays(tmp_path: Path) -> None:
    theirs = {"Name": "lab", "BIDSVersion": "1.9.0", "DatasetType": "derivative", "GeneratedBy": [{"Name": "fmriprep"}]}
    (tmp_path / "dataset_description.json").write_text(json.dumps(theirs))
    (tmp_path / "README").write_text("theirs")
    for version in ("0.1.0", "0.2.0", "0.2.0"):
        write_bids(tmp_path, BidsName("01"), IMAGE, None, None, {}, version=version)
    found = check_dataset(tmp_path)
    assert (found["Name"], found["BIDSVersion"]) == ("lab", "1.9.0")
    programs = [(one["Name"], one.get("Version")) for one in found["GeneratedBy"]]
    assert programs == [("fmriprep", None), ("molrecon", "0.1.0"), ("molrecon", "0.2.0")]
    assert not (tmp_path / "README.md").exists()


@pytest.mark.parametrize("content", ['{"Name": "raw", "BIDSVersion": "1.9.0"}', '{"DatasetType": "raw"}', "[]", "{"])
def test_images_are_not_mixed_with_raw_data(tmp_path: Path, content: str) -> None:
    (tmp_path / "dataset_description.json").write_text(content)
    with pytest.raises(UnreadableInput, match="expected the description of a BIDS derivative"):
        write_bids(tmp_path, BidsName("01"), IMAGE, None, None, {}, version="0.2.0")
    assert not list(tmp_path.rglob("*.nii.gz"))


def test_an_image_without_its_sidecar_is_none(tmp_path: Path) -> None:
    name = BidsName("01")
    assert read_bids_sidecar(tmp_path, name) == {}
    image, _ = write_bids(tmp_path, name, IMAGE, None, None, {"a": 1}, version="0.2.0")
    image.unlink()
    assert read_bids_sidecar(tmp_path, name) == {}

"""Every kind of scan by the one command: its images in their place, and the packaged model better than CG-SENSE."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest

from examples._kinds import INSTALLED, KINDS, ScanWithTruth
from molrecon.command.parser import main
from molrecon.reconstructors.defaults import DEFAULT_MODEL
from molrecon.scans.metrics import psnr

pytestmark = pytest.mark.skipif(not INSTALLED, reason="ismrmrd-tools is not installed")

# What the packaged model is better by than CG-SENSE, at least; measured: 4.5 to 11 dB.
GAIN = 3.0


def images(out: Path, scan: ScanWithTruth, model: str) -> dict[str, np.ndarray]:
    """Return what the command writes, (slices, rows, cols) or with the time in front, without the coils' brightness."""
    assert main(["reconstruct", str(scan.path), "--out", str(out), "--model", model]) == 0
    found = {}
    for name, truth in scan.truth.items():
        nifti = nibabel.Nifti1Image.from_filename(out / f"{scan.path.stem}{name}.nii.gz")
        assert (nifti.header["qform_code"], nifti.header["sform_code"]) == ((1, 1) if scan.placed else (0, 0))
        image = np.asarray(nifti.dataobj).T / scan.sensitivity
        assert image.shape == truth.shape
        # The tool's own files are in other units than its phantom.
        found[name] = image * float((image * truth).sum() / (image**2).sum())
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_one_command_for_every_kind(kind: str, tmp_path: Path) -> None:
    scan = KINDS[kind](tmp_path)
    by_model = {model: images(tmp_path / model, scan, model) for model in (DEFAULT_MODEL, "cg-sense")}
    for name, truth in scan.truth.items():
        flat = truth.reshape(-1, *truth.shape[-2:]).astype(np.float32)
        scores = {model: psnr(flat, found[name].reshape(flat.shape)) for model, found in by_model.items()}
        assert scores[DEFAULT_MODEL] > scores["cg-sense"] + GAIN, scores
    sidecar = json.loads((tmp_path / DEFAULT_MODEL / f"{scan.path.stem}.json").read_text())
    assert sidecar["summary"]["converged"] and sidecar["summary"]["kind"] == "certified"
    untrained = [warning for warning in sidecar["warnings"] if warning["check"] == "trajectory"]
    assert len(untrained) == (kind in ("radial", "spiral", "stack of stars"))

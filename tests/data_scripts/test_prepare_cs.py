"""The training blocks: rebuilt exactly, or not written."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from data_scripts import _common, prepare_cs
from molrecon.io.images import write_image

DATA = os.environ.get("MOLRECON_DATA")


def test_other_images_make_no_blocks(tmp_path: Path) -> None:
    (tmp_path / "cs" / "t91").mkdir(parents=True)
    write_image(tmp_path / "cs" / "t91" / "t1.bmp", np.zeros((40, 40, 3), np.uint8))
    report = prepare_cs.prepare_blocks(tmp_path)
    assert len(report.corrupt) == 1 and prepare_cs.BLOCKS_SHA256 in report.corrupt[0]
    assert not (tmp_path / prepare_cs.BLOCKS).exists()


@pytest.mark.skipif(DATA is None, reason="MOLRECON_DATA is not set: the 91 images are not here")
def test_blocks_give_the_published_initialisation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    published = tmp_path / prepare_cs.PUBLISHED
    published.mkdir(parents=True)
    for name in ("phi_0_10_1089.mat", "Initialization_Matrix_10.mat"):
        (published / name).symlink_to(Path(str(DATA)) / prepare_cs.PUBLISHED / name)
    command = ["--source", str(Path(str(DATA)) / "cs" / "t91"), "--out", str(tmp_path), "--sets", "t91", "--blocks"]
    assert prepare_cs.main(command) == 0
    assert "92 placed" in capsys.readouterr().out
    blocks = np.load(tmp_path / prepare_cs.BLOCKS)
    assert blocks.shape == (88_912, 1089) and _common.bytes_sha256(blocks.tobytes()) == prepare_cs.BLOCKS_SHA256

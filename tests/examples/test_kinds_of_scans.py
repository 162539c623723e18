from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from examples import kinds_of_scans
from examples._kinds import INSTALLED


@pytest.mark.skipif(not INSTALLED, reason="ismrmrd-tools is not installed")
def test_the_sheet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert kinds_of_scans.main(["--out", str(tmp_path), "--model", "zero-filled", "--kinds", "radial"]) == 0
    assert "radial       zero-filled" in capsys.readouterr().out
    with Image.open(tmp_path / "kinds_of_scans.png") as picture:
        assert picture.width > 500


def test_without_the_tool(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(kinds_of_scans, "INSTALLED", False)
    assert kinds_of_scans.main(["--out", str(tmp_path)]) == 1
    assert "ismrmrd-tools is not installed" in capsys.readouterr().err

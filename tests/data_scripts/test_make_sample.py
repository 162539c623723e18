from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from data_scripts import make_sample
from molrecon.io import read_volume

SCRIPT = Path(make_sample.__file__)


def test_command_writes_a_readable_volume(tmp_path, capsys):
    path = tmp_path / "new folder" / "sample.h5"
    arguments = ["--out", str(path), "--slices", "2", "--coils", "3", "--noise-level", "0.02"]
    assert make_sample.main(arguments) == 0
    printed = capsys.readouterr().out
    assert str(path) in printed and "2 slices, 3 coils, noise level 0.02" in printed
    volume = read_volume(path)
    assert volume.kspace.shape == (2, 3, 432, 200)
    assert volume.recon_shape == (216, 200)
    assert volume.attributes["noise_level"] == 0.02


def test_seed_decides_the_file(tmp_path):
    files = []
    for name, seed in (("a.h5", "3"), ("b.h5", "3"), ("c.h5", "4")):
        size = ["--slices", "1", "--coils", "1"]
        make_sample.main(["--out", str(tmp_path / name), *size, "--seed", seed])
        files.append((tmp_path / name).read_bytes())
    assert files[0] == files[1] != files[2]


@pytest.mark.parametrize("bad", [["--slices", "0"], ["--slices", "9"], ["--coils", "0"], ["--noise-level", "nan"]])
def test_bad_arguments_write_nothing(tmp_path, capsys, bad):
    with pytest.raises(SystemExit) as stop:
        make_sample.main(["--out", str(tmp_path / "sample.h5"), *bad])
    assert stop.value.code == 2
    assert "expected" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_runs_as_a_script(tmp_path):
    done = subprocess.run([sys.executable, SCRIPT, "--help"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--noise-level" in done.stdout

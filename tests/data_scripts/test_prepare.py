from __future__ import annotations

import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from scipy.io import savemat

from data_scripts import (
    _common,
    prepare_brains,
    prepare_calgary_campinas,
    prepare_cs,
    prepare_fastmri,
    prepare_siat,
)
from molrecon.io import write_cfl
from molrecon.simulation.phantom import write_phantom

SCRIPTS = (prepare_brains, prepare_calgary_campinas, prepare_cs, prepare_fastmri, prepare_siat)


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def real_data() -> Path:
    folder = os.environ.get("MOLRECON_DATA")
    if not folder:
        pytest.skip("MOLRECON_DATA is not set: no real data here")
    return Path(folder)


@pytest.fixture
def download(tmp_path) -> tuple[Path, Path, dict[str, str]]:
    """A download of two files under other names than they shall have, where to lay it out, and the table."""
    source, out = tmp_path / "download", tmp_path / "data"
    (source / "deep" / "down").mkdir(parents=True)
    (source / "deep" / "down" / "first.tif").write_bytes(b"first")
    (source / "b.tif").write_bytes(b"second")
    return source, out, {"cs/a.tif": digest(b"first"), "cs/b.tif": digest(b"second")}


def test_files_are_found_by_content_and_kept_the_second_time(download):
    source, out, table = download
    report = _common.lay_out(source, out, table)
    assert report.complete and report.placed == ["cs/a.tif", "cs/b.tif"]
    assert (out / "cs/a.tif").read_bytes() == b"first"
    again = _common.lay_out(source, out, table)
    assert again.complete and again.kept == ["cs/a.tif", "cs/b.tif"] and not again.placed


def test_missing_and_corrupt_files_are_named(download):
    source, out, table = download
    (source / "b.tif").write_bytes(b"damaged")
    (source / "deep/down/first.tif").unlink()
    report = _common.lay_out(source, out, table)
    assert report.missing == ["cs/a.tif"] and not report.complete
    (line,) = report.corrupt
    assert "cs/b.tif" in line and digest(b"damaged") in line and table["cs/b.tif"] in line
    assert "missing: cs/a.tif" in report.text()
    assert not out.exists()


def test_damage_in_the_data_folder_is_repaired_or_reported(download):
    source, out, table = download
    _common.lay_out(source, out, table)
    (out / "cs/a.tif").write_bytes(b"damaged")
    assert _common.lay_out(source, out, table).placed == ["cs/a.tif"]
    (out / "cs/a.tif").write_bytes(b"damaged")
    (source / "deep/down/first.tif").unlink()
    (line,) = _common.lay_out(source, out, table).corrupt
    assert str(out / "cs/a.tif") in line


def test_hard_links(download):
    source, out, table = download
    assert _common.lay_out(source, out, table, link=True).complete
    assert (out / "cs/b.tif").samefile(source / "b.tif")
    _common.place(source / "b.tif", out / "cs/b.tif", link=True)
    assert sorted(p.name for p in (out / "cs").iterdir()) == ["a.tif", "b.tif"]


def test_failed_copy_leaves_nothing(download, monkeypatch):
    source, out, table = download

    def fail(_, target):
        Path(target).write_bytes(b"par")
        raise OSError("disk full")

    monkeypatch.setattr(shutil, "copyfile", fail)
    with pytest.raises(OSError, match="disk full"):
        _common.lay_out(source, out, table)
    assert not list((out / "cs").iterdir())


@pytest.mark.parametrize("line", ["no hash here", "12ab  file", f"{'g' * 64}  file", "a" * 64])
def test_broken_checksum_table(tmp_path, line):
    (tmp_path / "SHA256").write_text(f"{'a' * 64} *fine.h5\n\n{line}\n")
    with pytest.raises(_common.Unusable, match="line 3"):
        _common.read_checksums(tmp_path / "SHA256")


@pytest.mark.parametrize("name", ["brains", "cs"])
def test_tables_are_whole(name):
    table = _common.read_checksums(_common.CHECKSUMS / f"{name}.sha256")
    assert len(table) == {"brains": 53, "cs": 638}[name]
    assert not any(Path(entry).is_absolute() or ".." in entry for entry in table)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.__name__)
def test_source_must_be_a_folder_with_something_in_it(script, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        script.main(["--source", str(tmp_path / "nowhere"), "--out", str(tmp_path / "out")])
    assert stop.value.code == 2
    assert "no such folder" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert script.main(["--source", str(tmp_path / "empty"), "--out", str(tmp_path / "out")]) == 1
    printed = capsys.readouterr()
    assert "missing: " in printed.out and "Where from" in printed.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.__name__)
def test_says_where_from_and_under_which_licence(script):
    text = (script.__doc__ or "").lower()
    assert "where from" in text and "licence" in text and "https://" in text


def test_runs_as_a_script(tmp_path):
    command = [sys.executable, prepare_cs.__file__, "--help"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--source" in done.stdout


def test_brain_made_from_the_bart_pair(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    kspace = (rng.standard_normal((3, 6, 5)) + 1j * rng.standard_normal((3, 6, 5))).astype(np.complex64)
    buffer = io.BytesIO()
    np.save(buffer, kspace)
    (tmp_path / "checksums").mkdir()
    (tmp_path / "checksums/brains.sha256").write_text(
        f"{digest(buffer.getvalue())}  {prepare_brains.FULL}\n{'0' * 64}  {prepare_brains.PROSPECTIVE}\n"
    )
    monkeypatch.setattr(_common, "CHECKSUMS", tmp_path / "checksums")
    source, out = tmp_path / "source", tmp_path / "out"
    source.mkdir()
    write_cfl(source / "full", np.moveaxis(kspace, 0, -1)[None])
    np.save(source / "cartesian_ksp.npy", kspace)
    arguments = ["--source", str(source), "--out", str(out)]
    assert prepare_brains.main(arguments) == 1  # the other array is not the one of the table
    np.testing.assert_array_equal(np.load(out / prepare_brains.FULL), kspace)
    assert not (out / prepare_brains.PROSPECTIVE).exists()


def test_brain_original_that_is_no_array(tmp_path, capsys):
    (tmp_path / "cartesian_ksp.npy").write_bytes(b"version https://git-lfs")
    (tmp_path / "full.cfl").write_bytes(b"")
    assert prepare_brains.main(["--source", str(tmp_path), "--out", str(tmp_path / "out")]) == 1
    printed = capsys.readouterr().out
    assert "cartesian_ksp.npy" in printed and "full.hdr" in printed and "2 corrupt" in printed


@pytest.fixture
def siat(tmp_path, monkeypatch):
    """Four slices as published, long axis 270 in either direction, and the numbers they make."""
    rng = np.random.default_rng(1)
    source = tmp_path / "siat"
    source.mkdir()
    monkeypatch.setattr(prepare_siat, "N_SLICES", 4)
    packed = []
    for number in range(1, 5):
        shape = (270, 256) if number % 2 else (256, 270)
        image = rng.standard_normal(shape) + 1j * rng.standard_normal(shape)
        savemat(source / f"lsq{number}.mat", {"Img": image})
        middle = image[7:263] if number % 2 else image[:, 7:263]
        scaled = middle / np.abs(middle).max() * 32767
        packed.append([scaled.real, scaled.imag])
    return source, tmp_path / "out", np.array(packed)


def test_siat_is_packed_and_then_kept(siat, monkeypatch, capsys):
    source, out, expected = siat
    arguments = ["--source", str(source), "--out", str(out)]
    assert prepare_siat.main(arguments) == 1
    assert "--accept-other-packing" in capsys.readouterr().out and not out.exists()
    assert prepare_siat.main([*arguments, "--accept-other-packing"]) == 0
    packed = prepare_siat.read_packed(out / prepare_siat.NAME)
    assert np.abs(packed - expected).max() <= 0.5 + 1e-6
    monkeypatch.setattr(prepare_siat, "NUMBERS_SHA256", prepare_siat.numbers_sha256(packed))
    capsys.readouterr()
    assert prepare_siat.main(arguments) == 0
    assert "1 already there" in capsys.readouterr().out
    elsewhere = out.with_name("elsewhere")
    assert prepare_siat.main(["--source", str(out), "--out", str(elsewhere)]) == 0
    assert (elsewhere / prepare_siat.NAME).read_bytes() == (out / prepare_siat.NAME).read_bytes()


def test_siat_names_missing_and_corrupt_slices(siat, capsys):
    source, out, _ = siat
    (source / "lsq2.mat").unlink()
    (source / "lsq3.mat").write_bytes(b"MATLAB 5.0 MAT-file, but cut")
    savemat(source / "lsq4.mat", {"Img": np.zeros((256, 256))})
    assert prepare_siat.main(["--source", str(source), "--out", str(out), "--accept-other-packing"]) == 1
    printed = capsys.readouterr().out
    assert "missing: lsq2.mat" in printed and "corrupt: lsq3.mat" in printed and "corrupt: lsq4.mat" in printed
    assert not out.exists()


@pytest.fixture(scope="module")
def volume(tmp_path_factory):
    return write_phantom(tmp_path_factory.mktemp("volume") / "file_brain_AXT1_1.h5", 1, 2, (16, 16))


def test_fastmri_volumes(tmp_path, volume, capsys):
    source, out = tmp_path / "source", tmp_path / "out"
    folder = source / "multicoil_val"
    folder.mkdir(parents=True)
    _common.place(volume, folder / volume.name)
    arguments = ["--source", str(source), "--out", str(out)]
    assert prepare_fastmri.main(arguments) == 0
    target = out / "fastmri/brain/multicoil_val" / volume.name
    assert target.read_bytes() == volume.read_bytes()
    assert prepare_fastmri.main(arguments) == 0
    assert "1 already there" in capsys.readouterr().out

    (folder / "cut.h5").write_bytes(volume.read_bytes()[:5000])
    _common.place(volume, source / "loose.h5")
    with h5py.File(folder / "headless.h5", "w") as file:
        file["kspace"] = np.zeros((1, 2, 3), np.complex64)
    assert prepare_fastmri.main(arguments) == 1
    printed = capsys.readouterr().out
    assert "3 corrupt" in printed and "cut.h5" in printed and "no ismrmrd_header" in printed and "loose.h5" in printed


def test_fastmri_archives(tmp_path, volume, capsys):
    source, out, listed = tmp_path / "source", tmp_path / "out", tmp_path / "SHA256"
    source.mkdir()
    good, bad = source / "brain_multicoil_val_batch_0.tar.xz", source / "knee_multicoil_val.tar.xz"
    with tarfile.open(good, "w:xz") as tar:
        tar.add(volume, f"multicoil_val/{volume.name}")
        for name, data in (("multicoil_val/cut.h5", b"nothing"), ("multicoil_val/._x.h5", b"a"), ("read.me", b"a")):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    bad.write_bytes(b"damaged")
    arguments = ["--source", str(source), "--out", str(out)]
    with pytest.raises(SystemExit, match="2"):
        prepare_fastmri.main(arguments)
    assert "--checksums" in capsys.readouterr().err
    listed.write_text(f"{digest(good.read_bytes())}  {good.name}\n{digest(b'whole')}  {bad.name}\n")
    assert prepare_fastmri.main([*arguments, "--checksums", str(listed)]) == 1
    printed = capsys.readouterr().out
    assert "1 placed" in printed and "cut.h5" in printed and digest(b"damaged") in printed
    assert [p.name for p in out.rglob("*") if p.is_file()] == [volume.name]


def test_fastmri_archive_cut_short(tmp_path, volume):
    archive = tmp_path / "brain_multicoil_val_batch_0.tar.xz"
    with tarfile.open(archive, "w:xz") as tar:
        tar.add(volume, f"multicoil_val/{volume.name}")
    archive.write_bytes(archive.read_bytes()[:3000])
    report = prepare_fastmri.unpack(archive, tmp_path / "out")
    assert len(report.corrupt) == 1 and not report.placed
    assert not [p for p in (tmp_path / "out").rglob("*") if p.is_file()]


def test_calgary_campinas(tmp_path, capsys):
    source, out = tmp_path / "source", tmp_path / "out"
    folder = source / "Val"
    folder.mkdir(parents=True)
    with h5py.File(folder / "e1.h5", "w") as file:
        file["kspace"] = np.ones((2, 218, 3, 24), np.float32)
    arguments = ["--source", str(source), "--out", str(out)]
    assert prepare_calgary_campinas.main(arguments) == 0
    target = out / "calgary_campinas/12-channel/Val/e1.h5"
    assert target.read_bytes() == (folder / "e1.h5").read_bytes()
    assert prepare_calgary_campinas.main(arguments) == 0
    assert "1 already there" in capsys.readouterr().out

    with h5py.File(folder / "e1.h5", "w") as file:
        file["kspace"] = np.zeros((2, 218, 3, 24), np.float32)
    with h5py.File(folder / "e2.h5", "w") as file:
        file["kspace"] = np.ones((2, 100, 3, 24), np.float32)
    before = target.read_bytes()
    assert prepare_calgary_campinas.main(arguments) == 1
    printed = capsys.readouterr().out
    assert "2 corrupt" in printed and "(2, 100, 3, 24)" in printed
    assert target.read_bytes() == before
    (folder / "e1.h5").unlink()
    (folder / "e2.h5").unlink()
    target.unlink()
    assert prepare_calgary_campinas.main(arguments) == 1
    assert "missing: calgary_campinas/12-channel/Val/e1.h5" in capsys.readouterr().out


@pytest.mark.parametrize("script", [prepare_brains, prepare_cs, prepare_siat], ids=lambda script: script.__name__)
def test_real_data_have_the_known_hashes(script, real_data, tmp_path, capsys):
    assert script.main(["--source", str(real_data), "--out", str(tmp_path)]) == 0
    assert "0 missing, 0 corrupt" in capsys.readouterr().out
    placed = sorted(p.relative_to(tmp_path) for p in tmp_path.rglob("*") if p.is_file())
    assert placed and all((real_data / name).is_file() for name in placed)


def test_real_brain_from_the_authors_format(real_data, tmp_path):
    kspace = np.load(real_data / prepare_brains.FULL)
    source = tmp_path / "source"
    source.mkdir()
    write_cfl(source / "full", np.moveaxis(kspace, 0, -1)[None])
    np.save(source / "cartesian_ksp.npy", np.load(real_data / prepare_brains.PROSPECTIVE))
    table = _common.read_checksums(_common.CHECKSUMS / "brains.sha256")
    report = prepare_brains.convert(source, tmp_path / "out", prepare_brains.FULL, table[prepare_brains.FULL])
    assert report.placed == [prepare_brains.FULL]

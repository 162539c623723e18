"""Public MRD files: fetched whole, known by their hashes, and laid out only with them."""

from __future__ import annotations

import hashlib
from contextlib import AbstractContextManager
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import pytest

from data_scripts import _common, prepare_mrd

CONTENT = {name: f"raw data of {name}".encode() for name in prepare_mrd.FILES}


@pytest.fixture
def known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Small contents in place of the real ones, with their own hashes; return the folder of the tables."""
    md5 = {name: hashlib.md5(data, usedforsecurity=False).hexdigest() for name, data in CONTENT.items()}
    monkeypatch.setattr(prepare_mrd, "FILES", {name: (1, md5[name]) for name in CONTENT})
    table = "".join(f"{_common.bytes_sha256(data)}  mrd/{name}\n" for name, data in CONTENT.items())
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "mrd.sha256").write_text(table)
    monkeypatch.setattr(_common, "CHECKSUMS", tmp_path / "tables")
    return tmp_path / "tables"


class Zenodo:
    """A server of bytes: counts what is asked for, and may answer wrongly or not at all."""

    def __init__(self, *, broken: str = "", silent: str = "") -> None:
        self.asked: list[str] = []
        self.broken, self.silent = broken, silent

    def __call__(self, url: str) -> AbstractContextManager[BinaryIO]:
        name = url.split("/")[-2]
        self.asked.append(name)
        assert url == f"https://zenodo.org/api/records/1/files/{name}/content"
        if name == self.silent:
            raise OSError("no network")
        return BytesIO(CONTENT[name][:-1] if name == self.broken else CONTENT[name])


def run(tmp_path: Path, server: Zenodo, *options: str) -> int:
    arguments = ["--source", str(tmp_path / "source"), "--out", str(tmp_path / "data"), *options]
    return prepare_mrd.main(arguments, opener=server)


def test_files_are_fetched_once_and_laid_out(known: Path, tmp_path: Path) -> None:
    server = Zenodo()
    assert run(tmp_path, server, "--download") == 0
    assert sorted(server.asked) == sorted(CONTENT)
    assert {path.name: path.read_bytes() for path in (tmp_path / "data" / "mrd").iterdir()} == CONTENT
    again = Zenodo()
    assert run(tmp_path, again, "--download") == 0 and again.asked == []


def test_what_does_not_have_its_hash_is_not_laid_out(
    known: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken, silent = list(CONTENT)[:2]
    assert run(tmp_path, Zenodo(broken=broken, silent=silent), "--download") == 1
    printed = capsys.readouterr()
    assert f"mrd/{broken} (https://zenodo.org/api" in printed.err and "expected" in printed.err
    assert f"mrd/{silent} (no network)" in printed.err
    assert "2 missing" in printed.out
    assert {path.name for path in (tmp_path / "source").iterdir()} == set(CONTENT) - {broken, silent}


def test_nothing_is_fetched_unasked(known: Path, tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    server = Zenodo()
    assert run(tmp_path, server) == 1 and server.asked == []


def test_the_table_and_the_script_name_the_same_files() -> None:
    table = _common.read_checksums(_common.CHECKSUMS / "mrd.sha256")
    assert sorted(table) == sorted(f"mrd/{name}" for name in prepare_mrd.FILES)
    assert all(name in (prepare_mrd.__doc__ or "") for name in prepare_mrd.FILES)


def test_a_real_opener_reads_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    with prepare_mrd.open_url((tmp_path / "file").as_uri()) as source:
        assert source.read() == b"content"

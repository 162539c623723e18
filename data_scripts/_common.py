"""What the prepare scripts share: checksum tables, finding files by their content, placing them whole, reporting.

The scripts download nothing. A file is recognised by its sha256, not by its name, so it does not matter how the
download is laid out; what is laid out at the end is the same everywhere, and MOLRECON_DATA can point at it.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import sys
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the scripts run from a checkout that is not installed

from molrecon.io import atomic_path

CHECKSUMS = Path(__file__).parent / "checksums"


class Unusable(ValueError):
    """A downloaded file that cannot be used; the message says which, what was found and what was expected."""


@dataclass
class Report:
    """What happened to each file of a data set, by its path in the data folder."""

    placed: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    corrupt: list[str] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """True when nothing is missing and nothing corrupt."""
        return not self.missing and not self.corrupt

    def text(self) -> str:
        """One line of counts, then every missing and every corrupt file by name."""
        counts = f"{len(self.placed)} placed, {len(self.kept)} already there"
        lines = [f"{counts}, {len(self.missing)} missing, {len(self.corrupt)} corrupt"]
        lines += [f"missing: {line}" for line in self.missing]
        lines += [f"corrupt: {line}" for line in self.corrupt]
        return "\n".join(lines)


def bytes_sha256(data: bytes) -> str:
    """Hexadecimal sha256 of bytes in memory."""
    return hashlib.sha256(data).hexdigest()


def sha256(path: Path) -> str:
    """Hexadecimal sha256 of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def read_checksums(path: Path) -> dict[str, str]:
    """Path in the data folder -> sha256, from a table as `sha256sum` writes and checks it.

    Raises:
        Unusable: no such table, or a line that is no "<64 hexadecimal digits>  <path>".
    """
    if not path.is_file():
        raise Unusable(f"{path}: no such file, expected a table as sha256sum writes it")
    table: dict[str, str] = {}
    for number, line in enumerate(path.read_text("utf-8", errors="replace").splitlines(), 1):
        if not line.strip():
            continue
        digest, _, name = line.strip().partition(" ")
        name = name.strip().lstrip("*")
        if len(digest) != 64 or set(digest.lower()) - set("0123456789abcdef") or not name:
            raise Unusable(f"{path}: line {number} is {line!r}, expected '<sha256>  <path>'")
        table[name] = digest.lower()
    return table


def files_below(source: Path, suffixes: Iterable[str]) -> list[Path]:
    """The files with one of the suffixes, hidden ones left out, at any depth below a folder, sorted.

    Raises:
        Unusable: source is no folder.
    """
    if not source.is_dir():
        raise Unusable(f"--source {source}: {'a file' if source.exists() else 'no such folder'}, expected a folder")
    wanted = tuple(suffixes)
    return sorted(p for p in source.rglob("*") if p.name.endswith(wanted) and p.is_file() and p.name[0] != ".")


def place(source: Path, target: Path, link: bool = False) -> None:
    """Copy source to target, or make a hard link, so that target is never half there; makes the folders needed."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if not link:
        with atomic_path(target) as temporary:
            shutil.copyfile(source, temporary)
        return
    temporary = target.with_name(f".{uuid.uuid4().hex}.{target.name}")
    try:
        os.link(source, temporary)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def lay_out(source: Path, out: Path, checksums: dict[str, str], link: bool = False) -> Report:
    """Find every file of the table below source by its content and place it below out.

    What lies in out with the right content is kept. A file of the right name and another content is reported as
    corrupt, with both hashes, unless the right one is found elsewhere below source.

    Raises:
        Unusable: source is no folder.
    """
    candidates = files_below(source, {Path(name).suffix for name in checksums})
    known = set(checksums.values())
    found: dict[str, Path] = {}
    namesakes: dict[str, list[tuple[Path, str]]] = {}
    for path in candidates:
        digest = sha256(path)
        found.setdefault(digest, path)
        if digest not in known:
            namesakes.setdefault(path.name, []).append((path, digest))
    report = Report()
    for name, expected in checksums.items():
        target = out / name
        if target.is_file() and sha256(target) == expected:
            report.kept.append(name)
        elif expected in found:
            place(found[expected], target, link)
            report.placed.append(name)
        else:
            wrong = [*namesakes.get(target.name, [])]
            if target.is_file():
                wrong.append((target, sha256(target)))
            if wrong:
                path, digest = wrong[0]
                report.corrupt.append(f"{name} ({path} has sha256 {digest}, expected {expected})")
            else:
                report.missing.append(name)
    return report


def parser(description: str | None) -> argparse.ArgumentParser:
    """The command line of a prepare script; the description, its module docstring, is printed as it stands."""
    result = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("--source", type=Path, required=True, help="folder with what you have downloaded")
    result.add_argument("--out", type=Path, required=True, help="data folder to lay out, later MOLRECON_DATA")
    return result


def finish(name: str, reports: Sequence[Report], description: str | None) -> int:
    """Print what happened; return the exit code: 0 complete, 1 not so (and the description says where to get it)."""
    total = Report()
    for report in reports:
        for part in ("placed", "kept", "missing", "corrupt"):
            getattr(total, part).extend(getattr(report, part))
    print(f"{name}: {total.text()}")
    if total.complete:
        return 0
    print(f"\n{(description or '').strip()}", file=sys.stderr)
    return 1

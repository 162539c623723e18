"""The fingerprint of a training: settings and data that its checkpoint names, so that no other training resumes it."""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from molrecon.io.volume import reading

WHOLE = 2**24  # bytes up to which a file is hashed as a whole
BLOCKS, BLOCK = 8, 2**17  # of a larger one: so many pieces of so many bytes, spread over it
HEX = 16  # digits of a hash
# Arguments that say where results go and what computes them: the run stays the same up to rounding.
NOT_IDENTIFYING = ("out", "name", "device", "threads")


def as_json_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values as JSON gives them back: tuples as lists.

    Raises:
        TypeError: a value that JSON cannot hold.
    """
    back: dict[str, Any] = json.loads(json.dumps(dict(values)))
    return back


def differences(found: Mapping[str, Any], expected: Mapping[str, Any]) -> list[str]:
    """Return a phrase for every entry that differs: its name, what was found, and what was expected."""
    before, now = _flat(found), _flat(expected)
    names = [name for name in {**now, **before} if before.get(name) != now.get(name)]
    return [f"{name} {before.get(name, 'not given')} (expected {now.get(name, 'not given')})" for name in names]


def _flat(fingerprint: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Return the entries of nested mappings side by side, under names such as "scans.rows", as JSON."""
    entries: dict[str, str] = {}
    for name, value in fingerprint.items():
        path = f"{prefix}{name}"
        entries |= _flat(value, f"{path}.") if isinstance(value, dict) else {path: json.dumps(value)}
    return entries


def identifying_arguments(arguments: argparse.Namespace, *without: str) -> dict[str, Any]:
    """Return the arguments of a command without NOT_IDENTIFYING and those named in `without`, such as paths of data."""
    return {name: value for name, value in vars(arguments).items() if name not in (*NOT_IDENTIFYING, *without)}


def file_fingerprint(paths: Iterable[Path]) -> str:
    """Return number, names, and hash of names and contents of files, in order, as one line.

    Files of more than 16 MiB are hashed by their sizes and eight pieces of 128 KiB, spread evenly from the first byte
    to the last: a folder of hundreds of gigabytes would take an hour otherwise. A change between the pieces that keeps
    the size goes unnoticed.

    Raises:
        UnreadableInput: a file that cannot be read.
    """
    digest, names = hashlib.sha256(), []
    for path in paths:
        names.append(path.name)
        with reading(path, "a readable file"), path.open("rb") as file:
            size = path.stat().st_size
            digest.update(f"{path.name}\0{size}\0".encode())
            pieces = [k * (size - BLOCK) // (BLOCKS - 1) for k in range(BLOCKS)]
            for start in pieces if size > WHOLE else range(0, size, BLOCK):
                file.seek(start)
                digest.update(file.read(BLOCK))
    listed = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    return f"{len(names)} files ({listed}), sha256 {digest.hexdigest()[:HEX]}"


def array_fingerprint(arrays: Iterable[np.ndarray]) -> str:
    """Return number, and hash of shapes, types and contents of arrays, in order, as one line."""
    digest, count = hashlib.sha256(), 0
    for array in arrays:
        count += 1
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(array.tobytes())
    return f"{count} arrays, sha256 {digest.hexdigest()[:HEX]}"

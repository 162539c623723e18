"""The five files of a reconstruction, names for them that no two inputs share, and what they may not replace."""

from __future__ import annotations

import hashlib
import json
import math
import os
import socket
import tempfile
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from molrecon.io import write_atomically, write_nifti, write_submission
from molrecon.scans.page.volume import volume_page
from molrecon.scans.parts.files import write_parts
from molrecon.scans.parts.wanted import PLAIN, Parts
from molrecon.scans.parts.wanted import SUFFIXES as PART_SUFFIXES
from molrecon.scans.preparation import PreparedVolume
from molrecon.scans.quality_page import make_preview, quality_page, write_png
from molrecon.scans.reconstruction import Reconstruction
from molrecon.scans.series import frame_of
from molrecon.scans.sidecar import ModelSource, make_sidecar, write_json

SUFFIXES = (".nii.gz", ".h5", ".png", ".html", ".json")


def write_outputs(
    folder: str | Path,
    name: str,
    prepared: PreparedVolume,
    result: Reconstruction,
    source: ModelSource,
    settings_sha256: str,
    sidecar_entries: Mapping[str, Any] | None = None,
    parts: Parts = PLAIN,
) -> list[Path]:
    """Write NAME.nii.gz, NAME.h5 (fastMRI submission), NAME.png, NAME.html (pages to look at), NAME.json (sidecar).

    Returns their paths, before the sidecar those of `parts`. All are written to a hidden folder first, and older ones
    are replaced only when all are complete: an error leaves the older ones as they were. The sidecar is the first to be
    removed and the last to come: where it is, the others belong to it. Parts of an older reconstruction that are not
    asked for any more are removed.

    Args:
        folder: is there.
        name: of the files.
        prepared, result, source: what is described; of a series `prepared` is its first frame, which the pages show.
        settings_sha256: of everything else that shapes the image, see `Settings.sha256`; goes into the sidecar.
        sidecar_entries: more entries of the sidecar, by their keys.
        parts: what is written beside these.

    Raises:
        OSError: a file cannot be written.
    """
    paths = output_paths(folder, name)
    part_paths = [Path(folder) / f"{name}{suffix}" for suffix in parts.files()]
    older = {path for path in written_paths(folder, name) if path.name.removeprefix(name) in PART_SUFFIXES}
    prefix = temporary_prefix(socket.gethostname(), os.getpid())
    with tempfile.TemporaryDirectory(prefix=prefix, dir=folder) as temporary:
        new = image, submission, preview, page, sidecar = output_paths(temporary, name)
        time = (math.nan if result.time_step is None else result.time_step) if result.image.ndim == 4 else None
        write_nifti(image, result.image, result.voxel_size, time, result.geometry)
        write_submission(submission, result.image)
        first = result if result.image.ndim == 3 else frame_of(result, 0)
        write_png(preview, quality_page(make_preview(prepared, first), prepared, first, name))
        write_parts(temporary, name, parts, prepared, result)
        content = {
            **make_sidecar(prepared, result, source),
            **(sidecar_entries or {}),
            "settings_sha256": settings_sha256,
        }
        content |= (
            {**parts.description(), "outputs": [path.name for path in (*paths[:-1], *part_paths)]} if part_paths else {}
        )
        write_atomically(page, volume_page(name, prepared, first, content).encode())
        write_json(sidecar, content)
        paths[-1].unlink(missing_ok=True)
        paths[-1:-1], new[-1:-1] = part_paths, [Path(temporary) / path.name for path in part_paths]
        for path, complete in zip(paths, new, strict=True):
            os.replace(complete, path)
    for path in older - set(paths):
        path.unlink(missing_ok=True)
    return paths


def temporary_prefix(host: str, process: int) -> str:
    """Return how the hidden folders of a process begin: so those of one that was killed can be found."""
    return f".{host}-{process}-"


def output_paths(folder: str | Path, name: str) -> list[Path]:
    """Return the paths that `write_outputs` writes, the sidecar last."""
    return [Path(folder) / f"{name}{suffix}" for suffix in SUFFIXES]


def sidecar_in(folder: str | Path, name: str) -> dict[str, Any]:
    """Return the content of the sidecar NAME.json; empty where there is none, or a file of something else."""
    try:
        content = json.loads(output_paths(folder, name)[-1].read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def written_paths(folder: str | Path, name: str) -> list[Path]:
    """Return the paths that an earlier run wrote for an input: those that its sidecar lists, else `output_paths`."""
    paths = output_paths(folder, name)
    try:
        names = [Path(str(one)).name for one in sidecar_in(folder, name)["outputs"]]
    except (KeyError, TypeError):  # no such file, or one of a single series
        return paths
    return [*(Path(folder) / one for one in names), paths[-1]]


def check_replacement(outputs: Iterable[str | Path], inputs: Iterable[str | Path]) -> None:
    """Raise ValueError if an output would replace an input, also under another name of it: a link, or another case."""
    by_identity: dict[Path | tuple[int, int], Path] = {_identity(Path(path)): Path(path) for path in inputs}
    absent = any(isinstance(key, Path) for key in by_identity)
    for output in map(Path, outputs):
        if not absent and not output.exists():  # saves looking up its folder, which takes most of the time
            continue
        if (replaced := by_identity.get(_identity(output))) is not None:
            also = "" if replaced == output else f", which is {replaced}"
            raise ValueError(f"{output}: would replace an input{also}, expected another name or folder")


def _identity(path: Path) -> Path | tuple[int, int]:
    """Return the number of the file behind a path, or the path without links where there is no file."""
    try:
        status = path.stat()
    except OSError:
        return path.resolve()
    return status.st_dev, status.st_ino


def output_names(inputs: Sequence[Path], *, folders: bool = True) -> list[str]:
    """Return one output name per input, all different: the file name without suffix where that is enough.

    Inputs of one name in different folders get as many parent folders in front as tell them apart
    (`day1_scan`, `day2_scan`); inputs in one folder that differ in the suffix only keep it (`scan_h5`, `scan_npy`).
    Those that parents do not tell apart (`b_c` and `b/c`) get a number. Names that differ in case alone, or in how an
    accent is encoded, count as the same, since some file systems do not tell them apart. The time is proportional to
    the number of inputs.

    Args:
        inputs: the files.
        folders: False: eight digits of the path's sha256 take the place of the parent folders, which may be named
            after patients (`1f0c22ab_scan`).

    Raises:
        ValueError: the same file twice.
    """
    for path, count in Counter(path.resolve() for path in inputs).items():
        if count > 1:
            raise ValueError(f"output_names: {path} is listed {count} times, expected every input once")
    # Not resolved: a link keeps the name that its user gave it. The root folder is left out.
    absolute = [Path(os.path.abspath(path)) for path in inputs]
    parents = [path.parts[1:-1] if folders else (_path_hash(path),) for path in absolute]
    short = [(*above, path.stem) for path, above in zip(absolute, parents, strict=True)]
    folded = [tuple(map(_folded, steps)) for steps in short]
    alike = Counter(folded)
    paths = [
        (*above, path.name.replace(".", "_")) if alike[key] > 1 else steps
        for path, above, steps, key in zip(absolute, parents, short, folded, strict=True)
    ]
    depth = [1] * len(paths)
    names = [steps[-1] for steps in paths]
    while longer := [k for k in _shared(names) if depth[k] < len(paths[k])]:
        for k in longer:
            depth[k] += 1
            names[k] = "_".join(paths[k][-depth[k] :])
    return _numbered(names)


def _path_hash(path: Path) -> str:
    return hashlib.sha256(os.fsencode(path)).hexdigest()[:8]


def _folded(name: str) -> str:
    """Return what is the same for names that a file system may take for one (Unicode's canonical caseless match)."""
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", name).casefold())


def _shared(names: Sequence[str]) -> list[int]:
    folded = [_folded(name) for name in names]
    counts = Counter(folded)
    return [k for k, name in enumerate(folded) if counts[name] > 1]


def _numbered(names: Sequence[str]) -> list[str]:
    """Return the names, those that occur more than once with a number that makes them unique."""
    numbered, shared = list(names), _shared(names)
    used = {_folded(name) for name in names}
    last: Counter[str] = Counter()
    for k in shared:
        base = _folded(names[k])
        while _folded(name := f"{names[k]}-{last[base] + 1}") in used:
            last[base] += 1
        last[base] += 1
        used.add(_folded(name))
        numbered[k] = name
    return numbered

"""Many volumes, one after the other: a bad one is listed with its error and never stops or shrinks the rest."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, final

import numpy as np
import torch

from molrecon.defaults import DEFAULT_BATCH_SIZE, DEFAULT_MODEL
from molrecon.io import UnreadableInput, read_volume
from molrecon.methods import load_method
from molrecon.outputs import output_names, output_paths, write_outputs
from molrecon.pipeline import Reconstruction, reconstruct_prepared
from molrecon.preparation import prepare
from molrecon.reconstructor import Reconstructor
from molrecon.sidecar import ModelSource, versions, write_json
from molrecon.solver_settings import SolverSettings

log = logging.getLogger(__name__)

MANIFEST = "manifest.json"
OK, NOT_CONVERGED, UNREADABLE, FAILED = "ok", "not converged", "unreadable", "failed"


@final
@dataclass(frozen=True)
class Entry:
    """What became of one input.

    Attributes:
        input: the path as given.
        status: "ok", "not converged" (outputs are written), "unreadable" (the input) or "failed" (anything else).
        message: what went wrong, or how well it went.
        outputs: the paths of the written files.
        skipped: True when complete outputs of an earlier run were kept.
    """

    input: str
    status: str
    message: str
    outputs: list[str]
    skipped: bool = False


@final
@dataclass(frozen=True, eq=False)
class Settings:
    """How volumes are reconstructed: the arguments of `reconstruct_volume`, which says what they mean."""

    solver: SolverSettings | None = None
    maps: np.ndarray | None = None
    noise_level: float | None = None
    device: torch.device | str = "cpu"
    batch_size: int = DEFAULT_BATCH_SIZE
    progress: bool = False


def reconstruct_file(
    path: str | Path,
    out: str | Path | None = None,
    model: str = DEFAULT_MODEL,
    settings: Settings | None = None,
) -> Reconstruction:
    """Read a scan, reconstruct it, and write the four output files if a folder is given.

    Args:
        path: fastMRI or ISMRMRD HDF5, .npy, or BART .cfl/.hdr.
        out: folder for NAME.nii.gz, NAME.h5, NAME.png and NAME.json; None: nothing is written.
        model: name of a method, a packaged model, or a file, see `load_method`.
        settings: everything else; None: the defaults.

    Raises:
        UnreadableInput: an input that cannot be used.
        ValueError: an unknown model, or an output that would replace the input.
    """
    settings = settings or Settings()
    loaded, source = load_method(model)
    if out is not None:
        check_outputs([Path(path)], Path(out))
    return _reconstruct(Path(path), Path(path).stem, None if out is None else Path(out), loaded, source, settings)


def reconstruct_cohort(
    inputs: Sequence[Path],
    out: Path,
    model: Reconstructor,
    source: ModelSource,
    settings: Settings,
    *,
    skip_existing: bool = False,
    report: Callable[[Entry], None] | None = None,
) -> list[Entry]:
    """Reconstruct the inputs one by one into a folder, and keep `manifest.json` there up to date after each of them.

    Args:
        inputs: files; each gets its own output name (`output_names`).
        out: the folder, made when missing. Older outputs of the same names are replaced.
        model, source: from `load_method`.
        settings: the same for all.
        skip_existing: keep the complete outputs of an earlier run, whatever its settings; the manifest lists them.
        report: called with every entry as soon as it is known.

    Returns:
        one entry per input, in order.

    Raises:
        ValueError: an input listed twice, or an output that would replace an input.
        OSError: the folder cannot be made or the manifest not written.
    """
    names = check_outputs(inputs, out)
    out.mkdir(parents=True, exist_ok=True)
    entries: list[Entry] = []
    for path, name in zip(inputs, names, strict=True):
        entry = _kept(path, out, name) if skip_existing else None
        if entry is None:
            entry = _attempt(path, name, out, model, source, settings)
        entries.append(entry)
        _write_manifest(out, entries, len(inputs), source)
        if report is not None:
            report(entry)
    return entries


def check_outputs(inputs: Sequence[Path], out: Path) -> list[str]:
    """Return the output names. Raises ValueError for an input listed twice, or one that an output would replace."""
    names = output_names(inputs)
    protected = {path.resolve() for path in inputs}
    for path, name in zip(inputs, names, strict=True):
        if f"{name}.json".casefold() == MANIFEST:
            raise ValueError(
                f"reconstruct: the sidecar of {path} would take the name of {MANIFEST}, expected another name"
            )
        for output in output_paths(out, name):
            if output.resolve() in protected:
                raise ValueError(
                    f"reconstruct: the output {output} would replace an input, expected another output folder"
                )
    return names


def _attempt(path: Path, name: str, out: Path, model: Reconstructor, source: ModelSource, settings: Settings) -> Entry:
    try:
        result = _reconstruct(path, name, out, model, source, settings)
    except UnreadableInput as error:
        return Entry(str(path), UNREADABLE, str(error), [])
    except Exception as error:  # whatever it is, the other volumes go on, and the manifest and exit code tell of it
        log.info("%s failed", path, exc_info=True)
        return Entry(str(path), FAILED, f"{type(error).__name__}: {error}", [])
    outputs = [str(output) for output in output_paths(out, name)]
    return Entry(str(path), OK if result.converged.all() else NOT_CONVERGED, _message(result), outputs)


def _reconstruct(
    path: Path, name: str, out: Path | None, model: Reconstructor, source: ModelSource, settings: Settings
) -> Reconstruction:
    volume = read_volume(path)
    prepared = prepare(volume, settings.maps, settings.noise_level, settings.device, settings.progress)
    result = reconstruct_prepared(
        prepared,
        model,
        solver=settings.solver,
        device=settings.device,
        batch_size=settings.batch_size,
        progress=settings.progress,
    )
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        write_outputs(out, name, prepared, result, source)
    return result


def _message(result: Reconstruction) -> str:
    n = len(result.converged)
    empty = f", {int(result.empty.sum())} without data delivered as zeros" if result.empty.any() else ""
    if result.solver is None:
        return f"{n} slices, no error bound, {result.seconds:.1f} s{empty}"
    bound = "no error bound" if result.kind == "none" else f"error bound {result.error_bound.max():.1e} at worst"
    return (
        f"{int(result.converged.sum())} of {n} slices converged, {bound},"
        f" {int(result.n_steps.max())} iterations at most, {result.seconds:.1f} s{empty}"
    )


def _kept(path: Path, out: Path, name: str) -> Entry | None:
    outputs = output_paths(out, name)
    if not all(output.is_file() for output in outputs):
        return None
    try:
        converged = bool(json.loads(outputs[-1].read_text(encoding="utf-8"))["summary"]["converged"])
    except (OSError, ValueError, KeyError, TypeError):  # a sidecar of something else: reconstruct
        return None
    status = OK if converged else NOT_CONVERGED
    return Entry(str(path), status, "outputs of an earlier run kept", [str(output) for output in outputs], skipped=True)


def _write_manifest(out: Path, entries: list[Entry], n_inputs: int, source: ModelSource) -> None:
    statuses = [entry.status for entry in entries]
    content: dict[str, Any] = {
        "model": asdict(source),
        "inputs": n_inputs,
        "counts": {status: statuses.count(status) for status in (OK, NOT_CONVERGED, UNREADABLE, FAILED)},
        "volumes": [asdict(entry) for entry in entries],
        "versions": versions(),
        "written": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
    write_json(out / MANIFEST, content)

"""Many volumes, one after the other: a bad one is listed with its error and never stops or shrinks the rest."""

from __future__ import annotations

import hashlib
import json
import logging
import secrets
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, final

import numpy as np
import torch

from molrecon.io import UnreadableInput, input_sha256, read_volume
from molrecon.io.volume import left_out_text
from molrecon.reconstructors.base import Reconstructor
from molrecon.reconstructors.defaults import DEFAULT_BATCH_SIZE, DEFAULT_MODEL
from molrecon.scans.data_warnings import DataWarning
from molrecon.scans.manifest import FAILED, MANIFEST, UNREADABLE, Entry, now, status_of, write_manifest, write_record
from molrecon.scans.methods import load_method
from molrecon.scans.outputs import check_replacement, output_names, output_paths, write_outputs
from molrecon.scans.preparation import prepare
from molrecon.scans.reconstruction import Reconstruction, reconstruct_prepared
from molrecon.scans.sidecar import ModelSource, plain, versions
from molrecon.solvers.solver_settings import SolverSettings
from molrecon.weights.stored import describe_model

log = logging.getLogger(__name__)


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

    def sha256(self, model: Reconstructor) -> str:
        """Return the hash of all that shapes the image besides the input and the weights, in hexadecimal.

        That is what the model's settings and the arguments say, and the version of molrecon; device and batch size only
        round differently. A model that cannot be described is never taken for another: its hash is new every time.
        """
        maps = None
        if self.maps is not None:
            maps = [str(self.maps.dtype), list(self.maps.shape), hashlib.sha256(self.maps.tobytes()).hexdigest()]
        try:
            described: dict[str, Any] | str = describe_model(model)
        except TypeError:
            described = secrets.token_hex()
        solver = self.solver or model.solver
        facts = {
            "maps": maps,
            "noise_level": self.noise_level,
            "model": described,
            "solver": None if solver is None else asdict(replace(solver, on_backward=None)),
            "molrecon": versions()["molrecon"],
        }
        return hashlib.sha256(json.dumps(plain(facts), sort_keys=True).encode()).hexdigest()


@final
@dataclass(frozen=True, eq=False)
class _Run:
    """What is the same for all volumes of a run; the hash is that of the settings."""

    model: Reconstructor
    source: ModelSource
    settings: Settings
    settings_sha256: str


def model_files(name_or_path: str) -> list[Path]:
    """Return the files of a model that are not the package's own: weights and card, as far as they are there."""
    path = Path(name_or_path)
    return [file for file in (path, path.with_suffix(".json")) if file.is_file()]


def reconstruct_file(
    path: str | Path,
    out: str | Path | None = None,
    model: str = DEFAULT_MODEL,
    settings: Settings | None = None,
) -> Reconstruction:
    """Read a scan, reconstruct it, and write the five output files if a folder is given.

    Args:
        path: fastMRI or ISMRMRD HDF5, .npy, or BART .cfl/.hdr.
        out: folder for NAME.nii.gz, NAME.h5, NAME.png, NAME.html and NAME.json; None: nothing is written.
        model: name of a method, a packaged model, or a file, see `load_method`.
        settings: everything else; None: the defaults.

    Raises:
        UnreadableInput: an input that cannot be used.
        ValueError: an unknown model, or an output that would replace the input.
    """
    settings = settings or Settings()
    loaded, source = load_method(model)
    if out is not None:
        check_outputs([Path(path)], Path(out), model_files(model))
    run = _Run(loaded, source, settings, settings.sha256(loaded))
    return _reconstruct(Path(path), Path(path).stem, None if out is None else Path(out), run)


def reconstruct_cohort(
    inputs: Sequence[Path],
    out: Path,
    model: Reconstructor,
    source: ModelSource,
    settings: Settings,
    *,
    resume: bool = False,
    report: Callable[[Entry], None] | None = None,
) -> list[Entry]:
    """Reconstruct the inputs one by one into a folder, with a record of each and a manifest at the end (`manifest`).

    Args:
        inputs: files; each gets its own output name (`output_names`).
        out: the folder, made when missing. Older outputs of the same names are replaced. Other processes may work on
            other inputs in the same folder.
        model, source: from `load_method`.
        settings: the same for all.
        resume: keep complete outputs of an earlier run whose sidecar has the same hash of the input, of the weights
            and of the settings.
        report: called with every entry as soon as it is known.

    Returns:
        one entry per input, in order.

    Raises:
        ValueError: an input listed twice, or an output that would replace an input.
        OSError: the folder cannot be made or the manifest not written.
    """
    names = check_outputs(inputs, out)
    out.mkdir(parents=True, exist_ok=True)
    run = _Run(model, source, settings, settings.sha256(model))
    same = {"model": asdict(source), "settings_sha256": run.settings_sha256, "versions": versions()}
    entries: list[Entry] = []
    unwritten: list[dict[str, Any]] = []
    try:
        for path, name in zip(inputs, names, strict=True):
            entry = (_kept(path, name, out, run) if resume else None) or _attempt(path, name, out, run)
            entries.append(entry)
            record = {"name": name, **asdict(entry), **same, "written": now()}
            try:
                write_record(out, record)
            except OSError as error:  # the other volumes go on, and the manifest tells of this one if it can
                log.warning("%s: no record of it: %s", path, error)
                unwritten.append(record)
            if report is not None:
                report(entry)
    finally:
        write_manifest(out, unwritten)
    return entries


def check_outputs(inputs: Sequence[Path], out: Path, others: Sequence[Path] = ()) -> list[str]:
    """Return the output names.

    Args:
        inputs: the scans.
        out: the folder of the outputs.
        others: more files that are read, such as weights and maps.

    Raises:
        ValueError: an input listed twice, or a file that is read and that an output would replace.
    """
    names = output_names(inputs)
    for path, name in zip(inputs, names, strict=True):
        if f"{name}.json".casefold() == MANIFEST:
            raise ValueError(
                f"reconstruct: the sidecar of {path} would take the name of {MANIFEST}, expected another name"
            )
    check_replacement((output for name in names for output in output_paths(out, name)), [*inputs, *others])
    return names


def _attempt(path: Path, name: str, out: Path, run: _Run) -> Entry:
    earlier = _input(_sidecar(out, name))
    try:
        result = _reconstruct(path, name, out, run)
    except UnreadableInput as error:
        return Entry(str(path), UNREADABLE, str(error) + _left(out, name, earlier), [])
    except Exception as error:  # whatever it is, the other volumes go on, and the manifest and exit code tell of it
        log.info("%s failed", path, exc_info=True)
        return Entry(str(path), FAILED, f"{type(error).__name__}: {error}{_left(out, name, earlier)}", [])
    outputs = [str(output) for output in output_paths(out, name)]
    message, left_out = _message(result), dict(result.left_out)
    if earlier.get("sha256") not in (None, _input(_sidecar(out, name)).get("sha256")):
        message += f"; replaced the outputs of {earlier.get('path')}"
    status = status_of(bool(result.converged.all()), left_out)
    return Entry(str(path), status, message, outputs, left_out=left_out, warnings=result.warnings)


def _left(out: Path, name: str, earlier: dict[str, Any]) -> str:
    """Return the end of a failed volume's message: whose outputs are still there under its name."""
    return f"; {out / name}.* are older, of {earlier.get('path')}" if earlier else ""


def _reconstruct(path: Path, name: str, out: Path | None, run: _Run) -> Reconstruction:
    settings, volume = run.settings, read_volume(path)
    prepared = prepare(volume, settings.maps, settings.noise_level, settings.device, settings.progress)
    result = reconstruct_prepared(
        prepared,
        run.model,
        solver=settings.solver,
        device=settings.device,
        batch_size=settings.batch_size,
        progress=settings.progress,
    )
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        write_outputs(out, name, prepared, result, run.source, run.settings_sha256)
    return result


def _message(result: Reconstruction) -> str:
    n = len(result.converged)
    empty = f", {int(result.empty.sum())} without data delivered as zeros" if result.empty.any() else ""
    left_out = f"; left out: {left_out_text(result.left_out)}" if result.left_out else ""
    rest = f"{result.seconds:.1f} s{empty}{left_out}{_warned(result.warnings)}"
    if result.solver is None:
        return f"{n} slices, no error bound, {rest}"
    bound = "no error bound" if result.kind == "none" else f"error bound {result.error_bound.max():.1e} at worst"
    return (
        f"{int(result.converged.sum())} of {n} slices converged, {bound},"
        f" {int(result.n_steps.max())} iterations at most, {rest}"
    )


def _warned(warnings: Sequence[DataWarning]) -> str:
    """Return the end of a message that tells of warnings: how many of each check."""
    counts = Counter(warning.check for warning in warnings)
    listed = ", ".join(check if count == 1 else f"{check} ({count})" for check, count in counts.items())
    return f"; warnings: {listed}" if listed else ""


def _kept(path: Path, name: str, out: Path, run: _Run) -> Entry | None:
    """Return the entry of an input whose outputs are there and would come out the same, None for any other."""
    outputs, sidecar = output_paths(out, name), _sidecar(out, name)
    if not sidecar or not all(output.is_file() for output in outputs):
        return None
    try:
        converged = bool(sidecar["summary"]["converged"])
        left_out = {str(words): int(count) for words, count in sidecar["input"]["left_out"].items()}
        warnings = [DataWarning(**warning) for warning in sidecar["warnings"]]
        found = sidecar["model"]["weights_sha256"], sidecar.get("settings_sha256")
        same = found == (run.source.weights_sha256, run.settings_sha256)
        same = same and sidecar["input"]["sha256"] == input_sha256(path)  # last: it reads the whole input
    except (KeyError, TypeError, ValueError, AttributeError):  # a sidecar of something else, or no such input
        return None
    if not same:
        return None
    message = "outputs of an earlier run kept" + (f"; left out: {left_out_text(left_out)}" if left_out else "")
    message += _warned(warnings)
    written = [str(output) for output in outputs]
    return Entry(
        str(path), status_of(converged, left_out), message, written, skipped=True, left_out=left_out, warnings=warnings
    )


def _sidecar(out: Path, name: str) -> dict[str, Any]:
    """Return the content of the sidecar that is there; empty where there is none."""
    try:
        content = json.loads(output_paths(out, name)[-1].read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _input(sidecar: dict[str, Any]) -> dict[str, Any]:
    found = sidecar.get("input")
    return found if isinstance(found, dict) else {}

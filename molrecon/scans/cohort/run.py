"""Many volumes, here or in several processes: a bad one is listed with its error and never stops the others."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from molrecon.reconstructors.base import Reconstructor
from molrecon.reconstructors.defaults import AUTOMATIC
from molrecon.scans.cohort.one_volume import in_this_process, reconstruct_one
from molrecon.scans.cohort.recipe import Execute, Item, Outcome, Recipe
from molrecon.scans.cohort.worklist import WHOLE, Shard
from molrecon.scans.exports import NO_EXPORTS, Exports
from molrecon.scans.manifest import MANIFEST, Entry, missing, read_lists, write_list, write_manifest
from molrecon.scans.methods import load_method
from molrecon.scans.outputs import check_replacement, output_names, output_paths, sidecar_in
from molrecon.scans.page.cohort import INDEX, write_index
from molrecon.scans.reconstruction import Reconstruction
from molrecon.scans.settings import Settings
from molrecon.scans.sidecar import ModelSource

log = logging.getLogger(__name__)


def model_files(name_or_path: str) -> list[Path]:
    """Return the files of a model that are not the package's own: weights and card, as far as they are there."""
    path = Path(name_or_path)
    return [file for file in (path, path.with_suffix(".json")) if file.is_file()]


def reconstruct_file(
    path: str | Path,
    out: str | Path | None = None,
    model: str = AUTOMATIC,
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
        refuse_files_of_others(Path(out), [Path(path).stem])
        Path(out).mkdir(parents=True, exist_ok=True)
    recipe = Recipe(source, settings, settings.sha256(loaded), None if out is None else Path(out))
    return reconstruct_one(Item(Path(path), Path(path).stem), loaded, recipe)


def reconstruct_cohort(
    inputs: Sequence[Path],
    out: Path,
    model: Reconstructor,
    source: ModelSource,
    settings: Settings,
    *,
    resume: bool = False,
    folders: bool = True,
    shard: Shard = WHOLE,
    execute: Execute = in_this_process,
    exports: Exports = NO_EXPORTS,
    report: Callable[[Entry], None] | None = None,
) -> list[Entry]:
    """Reconstruct the inputs into a folder, with a record of each, and at the end a manifest (`manifest`) and a page.

    Args:
        inputs: files; each gets its own output name (`output_names`).
        out: the folder, made when missing. Older outputs of the same names are replaced. Other processes may work on
            other inputs in the same folder.
        model, source: from `load_method`.
        settings: the same for all.
        resume: keep complete outputs of an earlier run whose sidecar has the same hash of the input, of the weights
            and of the settings.
        folders: False: nothing that is written names a folder of the input, the model or the outputs; inputs are
            called by file name and hash.
        shard: the part of the inputs that is done here. All parts need the same list of inputs, from which the names
            come; the part that finds a record of every one writes the manifest.
        execute: how the volumes are carried out: in this process, or `parallel.InWorkers`.
        exports: what is written beside the ordinary outputs.
        report: called with every entry as it comes.

    Returns:
        one entry per input of the shard, in order.

    Raises:
        ValueError: an input listed twice, or an output that would replace an input or a file that is not ours.
        OSError: the folder cannot be made or the manifest not written.
    """
    names = check_outputs(inputs, out, folders=folders)
    check_replacement((path for name in names for path in exports.paths(out, name, phase=True)), inputs)
    check_replacement((out / f"{name}{suffix}" for name in names for suffix in settings.parts.files()), inputs)
    refuse_files_of_others(out, names)
    out.mkdir(parents=True, exist_ok=True)
    items = [Item(path, name) for path, name in zip(inputs, names, strict=True)]
    write_list(out, {item.name: str(item.path) if folders else item.path.name for item in items})
    share = shard.take(items)
    recipe = Recipe(source, settings, settings.sha256(model), out, resume, folders, exports)
    outcomes: dict[str, Outcome] = {}
    try:
        for outcome in execute(model, recipe, share):
            outcomes[outcome.name] = outcome
            if report is not None:
                report(outcome.entry)
    finally:
        if shard.count == 1 or not missing(out, names):
            unwritten = [outcome.unwritten for outcome in outcomes.values() if outcome.unwritten is not None]
            _write_index(out, write_manifest(out, unwritten))
    return [outcomes[item.name].entry for item in share]


def refuse_files_of_others(out: Path, names: Iterable[str]) -> None:
    """Raise ValueError for a file that has the name of an output and that no run of molrecon listed or described.

    A folder may hold raw data, or what another converter made of the same scan, under the same names.
    """
    if not out.is_dir():
        return
    present, listed = {entry.name for entry in os.scandir(out)}, read_lists(out)
    for name in names:
        found = [path for path in output_paths(out, name) if path.name in present]
        if found and name not in listed and "settings_sha256" not in sidecar_in(out, name):
            raise ValueError(f"{found[0]}: is there and not of molrecon, expected another folder or name of the output")


def _write_index(out: Path, content: Mapping[str, Any]) -> None:
    """Write the page of the folder; without it the volumes are no less reconstructed."""
    try:
        write_index(out, content)
    except (OSError, ValueError) as error:
        log.warning("no page of the volumes: %s", error)


def check_outputs(inputs: Sequence[Path], out: Path, others: Sequence[Path] = (), *, folders: bool = True) -> list[str]:
    """Return the output names.

    Args:
        inputs: the scans.
        out: the folder of the outputs.
        others: more files that are read, such as weights and maps.
        folders: whether names may hold those of folders, see `output_names`.

    Raises:
        ValueError: an input listed twice, a file that is read and that an output would replace, a file for the folder.
    """
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out}: found a file, expected a folder for the outputs")
    names = output_names(inputs, folders=folders)
    for path, name in zip(inputs, names, strict=True):
        for kind, suffix, reserved in (("sidecar", ".json", MANIFEST), ("page", ".html", INDEX)):
            if f"{name}{suffix}".casefold() == reserved:
                raise ValueError(
                    f"reconstruct: the {kind} of {path} would take the name of {reserved}, expected another name"
                )
    check_replacement((output for name in names for output in output_paths(out, name)), [*inputs, *others])
    return names

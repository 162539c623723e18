"""One volume of a cohort: kept, reconstructed or failed, and its record; the same function in every process."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from molrecon.io import UnreadableInput
from molrecon.reconstructors.base import Reconstructor
from molrecon.scans.cohort.earlier_run import (
    all_paths,
    entry_of_earlier_run,
    exported_paths,
    input_entry,
    read_sidecar,
)
from molrecon.scans.cohort.messages import result_text
from molrecon.scans.cohort.recipe import Item, Outcome, Recipe
from molrecon.scans.cohort.without_folders import WithoutFolders
from molrecon.scans.manifest import FAILED, UNREADABLE, Entry, now, status_of, write_record
from molrecon.scans.memory.scan_plan import inside_budget
from molrecon.scans.outputs import output_paths
from molrecon.scans.page.cohort import write_thumbnail
from molrecon.scans.page.figures import figures
from molrecon.scans.reconstruction import Reconstruction
from molrecon.scans.scan import read_scan
from molrecon.scans.scan_reconstruction import SeriesReconstruction, reconstruct_scan, write_scan
from molrecon.scans.series import joined
from molrecon.scans.sidecar import versions

log = logging.getLogger(__name__)


def in_this_process(model: Reconstructor, recipe: Recipe, items: Sequence[Item]) -> Iterator[Outcome]:
    """Carry out the items one after the other."""
    for item in items:
        yield carry_out(item, model, recipe)


def carry_out(item: Item, model: Reconstructor, recipe: Recipe) -> Outcome:
    """Reconstruct an input, or keep its outputs of an earlier run, and write its record. Raises what ends a run."""
    entry = entry_of_earlier_run(item, recipe) if recipe.resume else None
    return conclude(item, recipe, entry or _attempt(item, model, recipe))


def conclude(item: Item, recipe: Recipe, entry: Entry) -> Outcome:
    """Write the record of an item; if it cannot be written, the run goes on and the manifest alone holds the record."""
    if not recipe.folders:
        around = WithoutFolders.around(item.path, recipe.source.name, *recipe.exports.outside(), folder=recipe.out)
        entry = around.entry(entry)
    if recipe.out is None:
        return Outcome(item.name, entry, None)
    common = {
        "model": asdict(recipe.shown_source),
        "settings_sha256": recipe.settings_sha256,
        "versions": versions(),
        "written": now(),
    }
    record = {"name": item.name, **asdict(entry), **common, "no_paths": not recipe.folders}
    try:
        write_record(recipe.out, record)
    except OSError as error:
        log.warning("%s: no record of it: %s", entry.input, error)
        return Outcome(item.name, entry, record)
    return Outcome(item.name, entry, None)


def reconstruct_one(item: Item, model: Reconstructor, recipe: Recipe) -> Reconstruction:
    """Read, reconstruct and write one scan; of several series return all slices of all, see `joined`.

    Raises UnreadableInput, OSError, and what a model raises.
    """
    budget = recipe.settings.memory
    if budget is not None and recipe.out is not None:
        with inside_budget(item.path, recipe.out, budget):
            return _read_and_reconstruct(item, model, recipe)
    return _read_and_reconstruct(item, model, recipe)


def _read_and_reconstruct(item: Item, model: Reconstructor, recipe: Recipe) -> Reconstruction:
    scan = read_scan(item.path, recipe.settings.reading)
    if not recipe.folders:
        scan = scan.renamed(Path(item.path.name))
    if recipe.out is not None:
        recipe.exports.check(item.name, scan.frames[0].volume)
    reconstructions = reconstruct_scan(scan, model, recipe.settings, keep_residual=recipe.out is not None)
    if recipe.out is not None:
        older = exported_paths(item, recipe.out, read_sidecar(item, recipe))
        _export(item, recipe, reconstructions)  # first: where the sidecar is, everything else is there too
        write_scan(
            recipe.out,
            item.name,
            reconstructions,
            recipe.shown_source,
            recipe.outputs_sha256(item),
            recipe.settings.parts,
        )
        for path in older - set(all_paths(item, recipe)):  # images of an earlier run, maybe of another patient
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    return joined([one.result for one in reconstructions])


def _export(item: Item, recipe: Recipe, reconstructions: Sequence[SeriesReconstruction]) -> None:
    if recipe.out is None or recipe.exports.none:
        return
    output_paths(recipe.out, item.name)[-1].unlink(missing_ok=True)
    for position, one in enumerate(reconstructions):
        about = one.first.volume, one.result, one.choice.source or recipe.shown_source, recipe.settings_sha256
        entities, contrast = one.series.entities, one.series.frames[0].contrast
        recipe.exports.write(
            recipe.out,
            item.name,
            *about,
            entities=entities,
            contrast=contrast,
            position=position,
            phase=recipe.exports_phase,
        )


def _attempt(item: Item, model: Reconstructor, recipe: Recipe) -> Entry:
    path = item.path
    earlier = input_entry(read_sidecar(item, recipe))
    older = f"; {item.name}.* in the folder are older, of {earlier.get('path')}" if earlier else ""
    try:
        result = reconstruct_one(item, model, recipe)
    except UnreadableInput as error:
        return Entry(str(path), UNREADABLE, f"{error}{older}", [])
    except Exception as error:  # whatever it is, the other volumes go on, and the manifest and exit code tell of it
        log.info("%s failed", path, exc_info=True)
        return Entry(str(path), FAILED, f"{type(error).__name__}: {error}{older}", [])
    outputs = [str(output) for output in all_paths(item, recipe)]
    message, left_out, sidecar = result_text(result), dict(result.left_out), read_sidecar(item, recipe)
    if earlier.get("sha256") not in (None, input_entry(sidecar).get("sha256")):
        message += f"; replaced the outputs of {earlier.get('path')}"
    _leave_thumbnail(item, recipe, result)
    return Entry(
        str(path),
        status_of(bool(result.converged.all()), left_out),
        message,
        outputs,
        left_out=left_out,
        warnings=result.warnings,
        model_choice=sidecar.get("model_choice", []),
        figures=figures(sidecar),
    )


def _leave_thumbnail(item: Item, recipe: Recipe, result: Reconstruction) -> None:
    """Write the thumbnail for the page of the cohort, which does without those that could not be written."""
    if recipe.out is None:
        return
    try:
        write_thumbnail(recipe.out, item.name, result)
    except OSError as error:
        log.info("%s: no thumbnail: %s", item.path, error)

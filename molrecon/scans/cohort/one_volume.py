"""One volume of a cohort: kept, reconstructed or failed, and its record; the same function in every process."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, final

from molrecon.io import UnreadableInput, input_sha256
from molrecon.io.volume import left_out_text
from molrecon.reconstructors.base import Reconstructor
from molrecon.scans.cohort.without_folders import WithoutFolders
from molrecon.scans.data_warnings import DataWarning
from molrecon.scans.exports import NO_EXPORTS, Exports
from molrecon.scans.kinds.choice import UNIT_PHRASES
from molrecon.scans.manifest import FAILED, UNREADABLE, Entry, now, status_of, write_record
from molrecon.scans.memory.scan_plan import inside_budget
from molrecon.scans.outputs import output_paths, written_paths
from molrecon.scans.page.cohort import write_thumbnail
from molrecon.scans.page.figures import figures
from molrecon.scans.reconstruction import Reconstruction
from molrecon.scans.scan import read_scan
from molrecon.scans.scan_reconstruction import SeriesReconstruction, reconstruct_scan, write_scan
from molrecon.scans.series import joined
from molrecon.scans.settings import Settings
from molrecon.scans.sidecar import ModelSource, versions

log = logging.getLogger(__name__)


@final
@dataclass(frozen=True)
class Item:
    """An input, and the name of its outputs."""

    path: Path
    name: str


@final
@dataclass(frozen=True, eq=False)
class Recipe:
    """What is the same for all volumes of a run, in every process; all of it can be pickled.

    Attributes:
        source: of the model, from `load_method`.
        settings: with the device of this process.
        settings_sha256: of the settings and the model's.
        out: the folder, which is there; None: nothing is written.
        resume: see `reconstruct_cohort`.
        folders: False: nothing that is written names a folder, see `WithoutFolders`.
        exports: what is written beside the ordinary outputs.
    """

    source: ModelSource
    settings: Settings
    settings_sha256: str
    out: Path | None
    resume: bool = False
    folders: bool = True
    exports: Exports = NO_EXPORTS

    def outputs_sha256(self, item: Item) -> str:
        """Return the hash of all but input and weights that the outputs of an item depend on."""
        exported = self.exports.settings_sha256(item.name, self.settings_sha256)
        return self.settings.parts.outputs_sha256(exported)

    @property
    def exports_phase(self) -> bool:
        """Whether a BIDS data set gets the phase of every image too."""
        return "phase" in self.settings.parts.images

    @property
    def shown_source(self) -> ModelSource:
        """The source as it is written."""
        return self.source if self.folders else replace(self.source, name=Path(self.source.name).name)


@final
@dataclass(frozen=True)
class Outcome:
    """What became of an item: its entry, and its record where the disk took none."""

    name: str
    entry: Entry
    unwritten: dict[str, Any] | None


Execute = Callable[[Reconstructor, Recipe, Sequence[Item]], Iterator[Outcome]]
"""Carries out all items, here or elsewhere, and yields what becomes of each, in any order."""


def in_this_process(model: Reconstructor, recipe: Recipe, items: Sequence[Item]) -> Iterator[Outcome]:
    """Carry out the items one after the other."""
    for item in items:
        yield carry_out(item, model, recipe)


def carry_out(item: Item, model: Reconstructor, recipe: Recipe) -> Outcome:
    """Reconstruct an input, or keep what is there of it, and write its record. Raises nothing but what ends a run."""
    entry = _entry_of_earlier_run(item, recipe) if recipe.resume else None
    return conclude(item, recipe, entry or _attempt(item, model, recipe))


def conclude(item: Item, recipe: Recipe, entry: Entry) -> Outcome:
    """Write the record of an item; a disk that takes none does not stop the run, and the manifest may tell of it."""
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
        _export(item, recipe, reconstructions)  # first: where the sidecar is, everything else is there too
        write_scan(
            recipe.out,
            item.name,
            reconstructions,
            recipe.shown_source,
            recipe.outputs_sha256(item),
            recipe.settings.parts,
        )
    return joined([one.result for one in reconstructions])


def _export(item: Item, recipe: Recipe, reconstructions: Sequence[SeriesReconstruction]) -> None:
    if recipe.out is None or recipe.exports.none:
        return
    output_paths(recipe.out, item.name)[-1].unlink(missing_ok=True)
    for one in reconstructions:
        about = one.first.volume, one.result, one.choice.source or recipe.shown_source, recipe.settings_sha256
        entities, contrast = one.series.entities, one.series.frames[0].contrast
        recipe.exports.write(
            recipe.out, item.name, *about, entities=entities, contrast=contrast, phase=recipe.exports_phase
        )


def _all_paths(item: Item, recipe: Recipe) -> list[Path]:
    """Return what an earlier run wrote for an item, the sidecar last."""
    if recipe.out is None:
        return []
    images = _sidecar(item, recipe).get("image")
    entities = [str(one.get("entities", "")) for one in images] if isinstance(images, list) else [""]
    phase = recipe.exports_phase
    exported = [path for one in entities for path in recipe.exports.paths(recipe.out, item.name, one, phase=phase)]
    return [*exported, *written_paths(recipe.out, item.name)]


def _attempt(item: Item, model: Reconstructor, recipe: Recipe) -> Entry:
    path = item.path
    earlier = _input(_sidecar(item, recipe))
    older = f"; {item.name}.* in the folder are older, of {earlier.get('path')}" if earlier else ""
    try:
        result = reconstruct_one(item, model, recipe)
    except UnreadableInput as error:
        return Entry(str(path), UNREADABLE, f"{error}{older}", [])
    except Exception as error:  # whatever it is, the other volumes go on, and the manifest and exit code tell of it
        log.info("%s failed", path, exc_info=True)
        return Entry(str(path), FAILED, f"{type(error).__name__}: {error}{older}", [])
    outputs = [str(output) for output in _all_paths(item, recipe)]
    message, left_out, sidecar = _message(result), dict(result.left_out), _sidecar(item, recipe)
    if earlier.get("sha256") not in (None, _input(sidecar).get("sha256")):
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


def _message(result: Reconstruction) -> str:
    n = len(result.converged)
    empty = f", {int(result.empty.sum())} without data delivered as zeros" if result.empty.any() else ""
    left_out = f"; left out: {left_out_text(result.left_out)}" if result.left_out else ""
    together = "" if result.unit == "slice" else f"{UNIT_PHRASES[result.unit]}, "
    details = f"{together}{result.seconds:.1f} s{empty}{left_out}{_warned(result.warnings)}"
    if result.solver is None:
        return f"{n} slices, no error bound, {details}"
    bound = "no error bound" if result.kind == "none" else f"error bound {result.error_bound.max():.1e} at worst"
    return (
        f"{int(result.converged.sum())} of {n} slices converged, {bound},"
        f" {int(result.n_steps.max())} iterations at most, {details}"
    )


def _warned(warnings: Sequence[DataWarning]) -> str:
    """Return the end of a message that tells of warnings: how many of each check."""
    counts = Counter(warning.check for warning in warnings)
    listed = ", ".join(check if count == 1 else f"{check} ({count})" for check, count in counts.items())
    return f"; warnings: {listed}" if listed else ""


def _entry_of_earlier_run(item: Item, recipe: Recipe) -> Entry | None:
    """Return the entry of an input whose outputs are there and would come out the same, None for any other."""
    if recipe.out is None:
        return None
    outputs, sidecar = _all_paths(item, recipe), _sidecar(item, recipe)
    if not sidecar or not all(output.exists() for output in outputs):
        return None
    try:
        converged = bool(sidecar["summary"]["converged"])
        left_out = {str(words): int(count) for words, count in sidecar["input"]["left_out"].items()}
        warnings = [DataWarning(**warning) for warning in sidecar["warnings"]]
        model = sidecar.get("model_choice", [sidecar["model"]])[0]
        hashes = model["weights_sha256"], sidecar.get("settings_sha256")
        same = hashes == (recipe.source.weights_sha256, recipe.outputs_sha256(item))
        same = same and sidecar["input"]["sha256"] == input_sha256(item.path)  # last: it reads the whole input
    except (KeyError, TypeError, ValueError, AttributeError):  # a sidecar of something else, or no such input
        return None
    if not same:
        return None
    message = "outputs of an earlier run kept" + (f"; left out: {left_out_text(left_out)}" if left_out else "")
    message += _warned(warnings)
    return Entry(
        str(item.path),
        status_of(converged, left_out),
        message,
        [str(output) for output in outputs],
        skipped=True,
        left_out=left_out,
        warnings=warnings,
        model_choice=sidecar.get("model_choice", []),
        figures=figures(sidecar),
    )


def _sidecar(item: Item, recipe: Recipe) -> dict[str, Any]:
    """Return the content of the sidecar that is there; empty where there is none."""
    if recipe.out is None:
        return {}
    try:
        content = json.loads(output_paths(recipe.out, item.name)[-1].read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _input(sidecar: dict[str, Any]) -> dict[str, Any]:
    content = sidecar.get("input")
    return content if isinstance(content, dict) else {}

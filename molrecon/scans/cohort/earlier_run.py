"""The outputs of an input that are in the folder already: their paths, their sidecar, and whether they may be kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from molrecon.io import input_sha256
from molrecon.io.volume import left_out_text
from molrecon.scans.cohort.messages import warnings_text
from molrecon.scans.cohort.recipe import Item, Recipe
from molrecon.scans.data_warnings import DataWarning
from molrecon.scans.exports import DicomExport, Exports
from molrecon.scans.exports.dicom_export import FORMS
from molrecon.scans.manifest import Entry, status_of
from molrecon.scans.outputs import sidecar_in, written_paths
from molrecon.scans.page.figures import figures


def entry_of_earlier_run(item: Item, recipe: Recipe) -> Entry | None:
    """Return the entry of an input whose outputs are there and would come out the same, None for any other."""
    if recipe.out is None:
        return None
    outputs, sidecar = all_paths(item, recipe), read_sidecar(item, recipe)
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
    message += warnings_text(warnings)
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


def all_paths(item: Item, recipe: Recipe) -> list[Path]:
    """Return what an earlier run wrote for an item, the sidecar last."""
    if recipe.out is None:
        return []
    phase, entities = recipe.exports_phase, _entities(read_sidecar(item, recipe))
    exported = [path for one in entities for path in recipe.exports.paths(recipe.out, item.name, one, phase=phase)]
    return [*exported, *written_paths(recipe.out, item.name)]


def exported_paths(item: Item, out: Path, sidecar: dict[str, Any]) -> set[Path]:
    """Return where DICOM series of the run that wrote a sidecar may lie, in either form."""
    exports = [Exports(dicom=DicomExport(form)) for form in FORMS] if sidecar else []
    return {path for one in _entities(sidecar) for export in exports for path in export.paths(out, item.name, one)}


def _entities(sidecar: dict[str, Any]) -> list[str]:
    """Return what tells the images of a sidecar from each other."""
    images = sidecar.get("image")
    return [str(one.get("entities", "")) for one in images] if isinstance(images, list) else [""]


def read_sidecar(item: Item, recipe: Recipe) -> dict[str, Any]:
    """Return the content of the sidecar that is there; empty where there is none."""
    return {} if recipe.out is None else sidecar_in(recipe.out, item.name)


def input_entry(sidecar: dict[str, Any]) -> dict[str, Any]:
    """Return the entry of a sidecar about its input; empty where there is none."""
    content = sidecar.get("input")
    return content if isinstance(content, dict) else {}

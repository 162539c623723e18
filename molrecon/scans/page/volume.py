"""NAME.html: the page of one reconstructed volume."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

import numpy as np

from molrecon.io import RawVolume
from molrecon.io.geometry import origin_of
from molrecon.scans.data_warnings import DataWarning
from molrecon.scans.page.curves import draw_curves
from molrecon.scans.page.document import render
from molrecon.scans.page.pictures import png_uri
from molrecon.scans.page.verdict import listed, verdict
from molrecon.scans.page.views import make_views
from molrecon.scans.preparation import PreparedVolume
from molrecon.scans.reconstruction import Reconstruction


def volume_page(name: str, prepared: PreparedVolume, result: Reconstruction, sidecar: Mapping[str, Any]) -> str:
    """Return the page as HTML: verdict, images with their controls, convergence, warnings, table, provenance.

    Nothing of what the input says about a person is on it, nor any path: of the files only their hashes.

    Args:
        name: of the outputs, the title.
        prepared, result: what is shown.
        sidecar: from `sidecar.make_sidecar`, with "settings_sha256".
    """
    views = make_views(prepared, result)
    rows, cols = result.image.shape[1:]
    spacing = result.voxel_size or (1.0, 1.0, 1.0)
    content: dict[str, Any] = {
        "title": name,
        "verdict": verdict(result),
        "views": views,
        "shape": result.image.shape,
        "curves": None
        if result.solver is None
        else draw_curves(result.residuals, result.solver.tol, bounded=result.kind != "none"),
        "tol": None if result.solver is None else result.solver.tol,
        "slices": _slice_rows(result),
        "warnings": _grouped(result.warnings),
        "mask": _sampling(prepared.volume, sidecar["sampling"]),
        "provenance": _provenance(prepared, result, sidecar),
    }
    data = {
        "count": len(result.image),
        "start": len(result.image) // 2,
        "rows": rows,
        "aspect": (rows * spacing[0]) / (cols * spacing[1]),
        "views": [view.as_data() for view in views],
        "notes": [f"{row['bound_text']}, {row['state']}" for row in content["slices"]],
    }
    return render("volume.html", "volume.js", content, data)


def _slice_rows(result: Reconstruction) -> list[dict[str, Any]]:
    """Return the rows of the table."""
    warned = [warning.slice for warning in result.warnings]
    rows = []
    for k in range(len(result.image)):
        if result.empty[k]:
            state, bound = "no data", "zero"
        else:
            state = "converged" if result.converged[k] else "NOT CONVERGED"
            state = state if result.solver is not None else "no iteration"
            bound = f"error bound {result.error_bound[k]:.2e}" if np.isfinite(result.error_bound[k]) else "no bound"
        checks = result.checks[k] if k < len(result.checks) else None
        rows.append(
            {
                "index": k,
                "bound": f"{result.error_bound[k]:.2e}" if np.isfinite(result.error_bound[k]) else "none",
                "bound_text": bound,
                "steps": int(result.n_steps[k]),
                "state": state,
                "bad": not result.converged[k],
                "scale": f"{result.scale[k]:.3g}",
                "residual": f"{checks.residual_sigmas:.2f}" if checks and np.isfinite(checks.residual_sigmas) else "-",
                "warnings": warned.count(k),
            }
        )
    return rows


def _grouped(warnings: list[DataWarning]) -> list[dict[str, Any]]:
    """Return the warnings by check and advice, with the slices and values of each."""
    groups: dict[tuple[str, str], list[DataWarning]] = {}
    for warning in warnings:
        groups.setdefault((warning.check, warning.advice), []).append(warning)
    return [
        {
            "check": check,
            "advice": advice,
            "where": _where(group),
            "measured": _measured(group),
        }
        for (check, advice), group in groups.items()
    ]


def _where(warnings: list[DataWarning]) -> str:
    indices = sorted({warning.slice for warning in warnings if warning.slice is not None})
    if not indices:
        return "whole volume"
    return f"slice{'' if len(indices) == 1 else 's'} {listed(indices)}"


def _measured(warnings: list[DataWarning]) -> str:
    values = [warning.value for warning in warnings if warning.value is not None]
    if not values:
        return ""
    limit = warnings[0].threshold
    shown = f"{max(values):.3g}" + (" at worst" if len(values) > 1 else "")
    return shown if limit is None else f"{shown}, at most {limit:.3g} is sound"


def _sampling(volume: RawVolume, sampling: Mapping[str, Any]) -> dict[str, Any]:
    """Return the picture of what was measured, and its caption; of a trajectory the points of the grid it passes."""
    if volume.trajectory is None or volume.grid is None:
        return _mask(volume.sampling_mask, sampling)
    passed = np.zeros(volume.grid, bool)
    half = np.array(volume.grid) // 2
    rows, cols = (
        np.clip(np.rint(volume.trajectory[0]).astype(int) + half, 0, np.array(volume.grid) - 1).reshape(-1, 2).T
    )
    passed[rows, cols] = True
    text = f"{sampling['readouts']} readouts of {sampling['samples']} samples, {sampling['kind']}"
    return {"uri": png_uri(passed), "text": text, "by_rows": True, "lines": len(passed)}


def _mask(mask: np.ndarray, sampling: Mapping[str, Any]) -> dict[str, Any]:
    """Return the strip that shows the measured columns; of masks with rows the first slice's, as it is."""
    by_rows = mask.shape[1] > 1
    image = mask[0] if by_rows else mask[:, 0]
    counted = "samples" if by_rows else "columns"
    text = f"{sampling['measured']} of {sampling['of']} {counted} measured"
    if sampling["acceleration"]:
        text += f", acceleration {sampling['acceleration']:.3g}"
    if len(mask) > 1:
        text += "; the slices differ" + (", the first one is shown" if by_rows else ", one line a slice")
    return {"uri": png_uri(image), "text": text, "by_rows": by_rows, "lines": len(image)}


def _provenance(prepared: PreparedVolume, result: Reconstruction, sidecar: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return name and value of what the image was made of and with; no paths."""
    slices, coils, readout, cols = prepared.volume.kspace.shape
    size = result.voxel_size
    rows = [
        ("k-space", f"{slices} slices, {coils} coils, {readout} x {cols}"),
        ("image", " x ".join(map(str, result.image.shape)) + " (slices, rows, columns)"),
        ("voxel size", "unknown" if size is None else " x ".join(f"{mm:.4g}" for mm in size) + " mm"),
        ("coil maps", prepared.maps_source.method),
        ("noise level", f"{result.noise_level:.3g} ({'estimated' if prepared.noise_estimated else 'given'})"),
        ("place", origin_of(result.geometry)),
        ("method", f"{result.method}, model {PurePath(sidecar['model']['name'].replace(chr(92), '/')).name}"),
        ("input sha256", str(sidecar["input"]["sha256"])),
        ("weights sha256", str(sidecar["model"]["weights_sha256"] or "none")),
        ("settings sha256", str(sidecar.get("settings_sha256") or "unknown")),
        ("versions", ", ".join(f"{key} {value}" for key, value in sidecar["versions"].items())),
        ("finished", str(sidecar["finished"])),
        ("time", f"{result.seconds:.1f} s"),
    ]
    if result.noise is not None:
        rows.insert(5, ("noise in the image", _noise(result.image, *result.noise)))
    if "parts" in sidecar:
        rows.append(("files beside", ", ".join(sidecar["parts"]["files"])))
    return rows


def _noise(image: np.ndarray, deviation: np.ndarray, amplification: np.ndarray) -> str:
    """Return the medians over the pixels brighter than a tenth of the brightest."""
    inside = image > 0.1 * image.max()
    if not inside.any():
        return "none"
    share = float(np.median(deviation[inside] / image[inside]))
    return f"{100 * share:.2g} % of the magnitude, g-factor {float(np.median(amplification[inside])):.2g} (medians)"

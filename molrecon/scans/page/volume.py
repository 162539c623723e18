"""NAME.html: the page of one reconstructed volume."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, final

import numpy as np
import torch

from molrecon.io import center_crop
from molrecon.io.large_arrays import planes
from molrecon.reconstructors.classical import ZeroFilled
from molrecon.scans.data_warnings import DataWarning
from molrecon.scans.page.curves import draw_curves
from molrecon.scans.page.document import render
from molrecon.scans.page.pictures import View, grey_view, mosaic, png_uri, white_level
from molrecon.scans.page.verdict import listed, verdict
from molrecon.scans.preparation import PreparedVolume
from molrecon.scans.reconstruction import Reconstruction

DIFFERENCE_GAIN = 5
MAPS_WIDTH = 320  # pixels of all maps side by side
# Bytes of all views, a pixel of the image: 20 slices of 320 x 320 stay below 2 MB as text. Every grey value of the
# image is kept where that fits into its share; the other views divide the rest. Small volumes may take more a pixel.
ALL_BYTES, SMALL_BYTES, IMAGE_SHARE = 0.69, 400_000, 0.65


def volume_page(name: str, prepared: PreparedVolume, result: Reconstruction, sidecar: Mapping[str, Any]) -> str:
    """Return the page as HTML: verdict, images with their controls, convergence, warnings, table, provenance.

    Nothing of what the input says about a person is on it, nor any path: of the files only their hashes.

    Args:
        name: of the outputs, the title.
        prepared, result: what is shown.
        sidecar: from `sidecar.describe`, with "settings_sha256".
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
        "mask": _mask(prepared.volume.sampling_mask, sidecar["sampling"]),
        "facts": _facts(prepared, result, sidecar),
    }
    data = {
        "count": len(result.image),
        "start": len(result.image) // 2,
        "aspect": (rows * spacing[0]) / (cols * spacing[1]),
        "views": [view.as_data() for view in views],
        "notes": [f"{row['bound_text']}, {row['state']}" for row in content["slices"]],
    }
    return render("volume.html", "volume.js", content, data)


def make_views(prepared: PreparedVolume, result: Reconstruction) -> list[View]:
    """Return what can be looked at: image, zero-filled, their difference, reference and error if any, coil maps."""
    image = result.image
    white = white_level(image)
    zero_filled = _zero_filled(prepared)
    reference, kind = prepared.volume.reference, prepared.volume.reference_kind or "given"
    maps = prepared.sensitivity_maps
    grid = np.concatenate([_mosaic(one, prepared.volume.recon_shape) for one in planes(maps.numpy())])
    sides = [
        _Side("zero-filled", "Zero-filled", "the measured samples alone", zero_filled, 0, white, "intensity"),
        _difference(
            "difference", "Difference", "image minus zero-filled, middle grey is none", image - zero_filled, white
        ),
    ]
    if reference is not None and reference.shape == image.shape:
        sides += [
            _Side("reference", "Reference", f"fully sampled, {kind}", reference, 0, white, "intensity"),
            _difference("error", "Error", "image minus reference, middle grey is none", image - reference, white),
        ]
    note = f"magnitude of {maps.shape[1] * maps.shape[2]} sensitivity maps, {prepared.maps_source.method}"
    sides.append(_Side("maps", "Coil maps", note, grid, 0, float(grid.max()) or 1.0, "maps", ""))
    note = f"magnitude by {result.method}"
    room = max(ALL_BYTES * image.size, SMALL_BYTES)
    limit = IMAGE_SHARE * room / image.size
    first = grey_view("image", "Image", note, image, 0, white, group="intensity", exact=True, bytes_per_pixel=limit)
    share = (room - first.size) / sum(side.images.size for side in sides)
    return [first, *(side.encoded(share) for side in sides)]


def _mosaic(maps: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Return the magnitudes of the maps (set, coil, rows, cols) of a slice side by side, (1, rows, cols)."""
    magnitudes = np.abs(maps).reshape(1, -1, *maps.shape[-2:])
    return mosaic(center_crop(magnitudes, shape), MAPS_WIDTH)


@final
@dataclass(frozen=True, eq=False)
class _Side:
    """A view beside the image before it is encoded, see `View`."""

    key: str
    title: str
    note: str
    images: np.ndarray
    low: float
    high: float
    group: str
    unit: str = "units of the input"
    window: tuple[int, int] = (0, 255)

    def encoded(self, bytes_per_pixel: float) -> View:
        return grey_view(
            self.key,
            self.title,
            self.note,
            self.images,
            self.low,
            self.high,
            bytes_per_pixel=bytes_per_pixel,
            group=self.group,
            unit=self.unit,
            window=self.window,
        )


def _difference(key: str, title: str, note: str, difference: np.ndarray, white: float) -> _Side:
    """Return a view in which middle grey is no difference; at first it is shown DIFFERENCE_GAIN times brighter."""
    largest = max(white_level(np.abs(difference)), white / 2)
    shown = round(127.5 * min(1.0, white / DIFFERENCE_GAIN / largest))
    note += f", at first {DIFFERENCE_GAIN} times as bright as the image"
    return _Side(key, title, note, difference, -largest, largest, key, window=(128 - shown, 127 + shown))


def _zero_filled(prepared: PreparedVolume) -> np.ndarray:
    """Return the zero-filled images (slices, *recon_shape), one slice at a time."""
    with torch.no_grad():
        return np.concatenate(
            [
                prepared.magnitude(ZeroFilled()(prepared.kspace[[k]], prepared.operator([k])).value, [k])
                if not prepared.empty[k]
                else np.zeros((1, *prepared.volume.recon_shape), np.float32)
                for k in range(len(prepared.kspace))
            ]
        )


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
            "where": _where(found),
            "found": _found(found),
        }
        for (check, advice), found in groups.items()
    ]


def _where(found: list[DataWarning]) -> str:
    indices = sorted({warning.slice for warning in found if warning.slice is not None})
    if not indices:
        return "whole volume"
    return f"slice{'' if len(indices) == 1 else 's'} {listed(indices)}"


def _found(found: list[DataWarning]) -> str:
    values = [warning.value for warning in found if warning.value is not None]
    if not values:
        return ""
    limit = found[0].threshold
    shown = f"{max(values):.3g}" + (" at worst" if len(values) > 1 else "")
    return shown if limit is None else f"{shown}, at most {limit:.3g} is sound"


def _mask(mask: np.ndarray, sampling: Mapping[str, Any]) -> dict[str, Any]:
    """Return the strip that shows the measured columns; of masks with rows the first slice's, as it is."""
    by_rows = mask.shape[1] > 1
    image = mask[0] if by_rows else mask[:, 0]
    what = "samples" if by_rows else "columns"
    text = f"{sampling['measured']} of {sampling['of']} {what} measured"
    if sampling["acceleration"]:
        text += f", acceleration {sampling['acceleration']:.3g}"
    if len(mask) > 1:
        text += "; the slices differ" + (", the first one is shown" if by_rows else ", one line a slice")
    return {"uri": png_uri(image), "text": text, "by_rows": by_rows, "lines": len(image)}


def _facts(prepared: PreparedVolume, result: Reconstruction, sidecar: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return name and value of what the image was made of and with; no paths."""
    slices, coils, rows, cols = prepared.volume.kspace.shape
    size = result.voxel_size
    facts = [
        ("k-space", f"{slices} slices, {coils} coils, {rows} x {cols}"),
        ("image", " x ".join(map(str, result.image.shape)) + " (slices, rows, columns)"),
        ("voxel size", "unknown" if size is None else " x ".join(f"{mm:.4g}" for mm in size) + " mm"),
        ("coil maps", prepared.maps_source.method),
        ("noise level", f"{result.noise_level:.3g} ({'estimated' if prepared.noise_estimated else 'given'})"),
        ("method", f"{result.method}, model {PurePath(sidecar['model']['name'].replace(chr(92), '/')).name}"),
        ("input sha256", str(sidecar["input"]["sha256"])),
        ("weights sha256", str(sidecar["model"]["weights_sha256"] or "none")),
        ("settings sha256", str(sidecar.get("settings_sha256") or "unknown")),
        ("versions", ", ".join(f"{key} {value}" for key, value in sidecar["versions"].items())),
        ("finished", str(sidecar["finished"])),
        ("time", f"{result.seconds:.1f} s"),
    ]
    return facts

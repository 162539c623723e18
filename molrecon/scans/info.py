"""What is in a file of scan data, for a person and for a program; never who was scanned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from molrecon.io import RawVolume
from molrecon.io.volume import left_out_text
from molrecon.reconstructors.defaults import DEFAULT_MODEL, SERIES_MODEL
from molrecon.scans.kinds.choice import UNIT_PHRASES, automatic_unit
from molrecon.scans.scan import Reading, Scan, Series, read_scan
from molrecon.scans.sidecar import describe_sampling, plain
from molrecon.scans.trajectories.calibration import calibration_on_grid
from operators.calibration import calibration_region

COUNTERS = ("encoding_space", "slab", "contrast", "set", "phase", "repetition")


def describe_scan(path: str | Path, reading: Reading | None = None) -> dict[str, Any]:
    """Return what a file holds and what would become of it, as plain JSON values; `reading` says how it is read.

    Keys: file (its name), sha256, images (how many of each counter), kspace (slices, coils, rows, cols), image_shape,
    voxel_size_mm, geometry, sampling, calibration, noise, conjugated, left_out, outputs (of `molrecon reconstruct`),
    model, odd (sentences). Nothing of the header but sizes, positions and counters is in it: no name, number, date,
    institution or comment.

    Raises:
        UnreadableInput: a file that cannot be used.
    """
    scan = read_scan(path, reading)
    first = scan.frames[0].volume
    slices, coils, rows, cols = first.kspace.shape
    outputs = [_output(series) for series in scan.series()]
    return dict(
        plain(
            {
                "file": Path(path).name,
                "sha256": first.sha256,
                "images": {name: len({getattr(one, name) for one in scan.frames}) for name in COUNTERS},
                "kspace": {"slices": slices, "coils": coils, "rows": rows, "cols": cols},
                "image_shape": [slices, *first.recon_shape],
                "voxel_size_mm": first.voxel_size,
                "geometry": _geometry(first),
                "sampling": {
                    key: value
                    for key, value in describe_sampling(first).items()
                    if key in ("kind", "alike_in_all_slices", "readouts", "samples", "measured", "of", "acceleration")
                },
                "calibration": _calibration(scan),
                "noise": _noise(first),
                "conjugated": bool(first.attributes.get("conjugated", False)),
                "left_out": dict(scan.left_out),
                "outputs": outputs,
                "model": outputs[0]["model"],
                "odd": _remarks(scan),
            }
        )
    )


def scan_text(description: dict[str, Any]) -> str:
    """Return `describe_scan` as one screen of text."""
    kspace, sampling, noise = description["kspace"], description["sampling"], description["noise"]
    images = ", ".join(
        f"{count} {name.replace('_', ' ')}s" for name, count in description["images"].items() if count > 1
    )
    voxel = description["voxel_size_mm"]
    calibration = description["calibration"]
    lines = [
        ("file", description["file"]),
        ("images", images or "one volume"),
        ("k-space", "{slices} slices, {coils} coils, {rows} x {cols}".format(**kspace)),
        ("image", " x ".join(map(str, description["image_shape"])) + " (slices, rows, cols)"),
        ("voxels", "size unknown" if voxel is None else " x ".join(f"{mm:.4g}" for mm in voxel) + " mm"),
        ("place", description["geometry"]["place"]),
        ("sampling", _sampling_text(sampling)),
        ("calibration", f"{calibration['source']}, {calibration['size']}"),
        ("noise", noise["source"] + ("" if noise["level"] is None else f", {noise['level']:.3g} a sample")),
        ("conjugated", "yes" if description["conjugated"] else "no"),
        ("left out", left_out_text(description["left_out"]) or "nothing"),
    ]
    lines += [("becomes", _becomes(output)) for output in description["outputs"]]
    lines += [("odd", sentence) for sentence in description["odd"]]
    return "\n".join(f"{name:<12} {text}" for name, text in lines)


def _sampling_text(sampling: dict[str, Any]) -> str:
    if "readouts" in sampling:
        return f"{sampling['kind']}, {sampling['readouts']} readouts of {sampling['samples']} samples"
    return f"{sampling['measured']} of {sampling['of']} {sampling['kind']}, R = {sampling['acceleration']}"


def _becomes(output: dict[str, Any]) -> str:
    frames, step = output["frames"], output["time_step_seconds"]
    entities = f"_{output['entities']}" if output["entities"] else ""
    time = "" if frames == 1 else f", {frames} frames" + (f" of {step:.4g} s" if step else ", time step unknown")
    unit = UNIT_PHRASES[output["seen_at_a_time"]]
    return f"NAME{entities}.nii.gz{time}, {unit}, by {output['model']}: {output['reason']}"


def _output(series: Series) -> dict[str, Any]:
    unit, reason = automatic_unit(series)
    return {
        "entities": series.entities,
        "frames": len(series.frames),
        "time_step_seconds": series.time_step,
        "image_shape": list(series.frames[0].volume.kspace.shape[:1]) + list(series.frames[0].volume.recon_shape),
        "model": {"slice": DEFAULT_MODEL, "series": SERIES_MODEL}[unit],
        "seen_at_a_time": unit,
        "reason": reason,
    }


def _geometry(volume: RawVolume) -> dict[str, Any]:
    """Return where the first voxel and the centre lie, and how the slices do."""
    if volume.geometry is None:
        return {"place": "unknown", "first_voxel_lps_mm": None, "slice_step_mm": None, "slice_gap_mm": None}
    geometry = volume.geometry
    step = np.array(geometry.slice_step)
    axis = int(np.abs(step).argmax())
    plane = ("sagittal", "coronal", "axial")[axis]
    oblique = np.abs(step).max() < 0.9999 * np.linalg.norm(step)
    gap = float(np.linalg.norm(step) - geometry.slice_thickness)
    return {
        "place": f"{plane}{', oblique' if oblique else ''}"
        + (f", gaps of {gap:.3g} mm" if gap > 0.01 and len(volume.kspace) > 1 else ""),
        "first_voxel_lps_mm": list(geometry.origin),
        "slice_step_mm": list(geometry.slice_step),
        "slice_gap_mm": gap,
    }


def _calibration(scan: Scan) -> dict[str, Any]:
    """Return where the coil maps come from, and the size of the region; "none" where no method can estimate them."""
    first = scan.frames[0].volume
    if first.n_coils == 1:
        return {"source": "one coil, no maps", "size": "none needed"}
    shared = scan.calibrated().frames[0].volume.calibration
    source = "the scan's own centre" if shared is None else "the mean of all frames"
    if first.calibration is not None:
        source = "measured apart"
    if first.trajectory is not None and shared is None:
        try:
            shared = calibration_on_grid([first])
        except ValueError:
            return {"source": source, "size": "none"}
    data = first.kspace if shared is None else shared
    filled = next(k for k in range(len(data)) if data[k].any())
    kspace = torch.from_numpy(data[[filled]])
    mask = torch.from_numpy((data[[filled]] != 0).any(axis=1))
    try:
        region = calibration_region(kspace, mask).shape[-2:]
    except ValueError:
        return {"source": source, "size": "none"}
    return {"source": source, "size": f"{region[0]} x {region[1]}"}


def _noise(volume: RawVolume) -> dict[str, Any]:
    if volume.noise_covariance is None:
        readouts = int(volume.attributes.get("noise_readouts", 0))
        source = "noise readouts that are too few or do not fit" if readouts else "no noise readouts"
        return {"source": f"{source}: estimated from the data", "level": None, "prewhitened": False}
    level = float(np.sqrt(np.diagonal(volume.noise_covariance).real.mean()))
    return {"source": "noise readouts, coils are whitened", "level": level, "prewhitened": True}


def _remarks(scan: Scan) -> list[str]:
    """Return what a user should know before reconstructing, once each."""
    sentences = dict.fromkeys(remark for one in scan.frames for remark in one.volume.remarks)
    first = scan.frames[0].volume
    empty = sum(not one.any() for one in first.kspace)
    if empty:
        sentences[f"{empty} of {len(first.kspace)} slices hold no data and are delivered as zeros"] = None
    rows = np.asarray(first.kspace.any(axis=(0, 1, 3)))
    if first.trajectory is not None:
        sentences["no packaged model was trained on trajectories; certificate and bound hold all the same"] = None
    if first.trajectory is None and not rows.all():
        sentences[f"{int((~rows).sum())} of {len(rows)} samples of each readout are zero (partial echo)"] = None
    if _calibration(scan)["size"] == "none":
        sentences["no fully sampled centre that coil maps could be estimated from: give maps (--maps)"] = None
    if first.incomplete:
        sentences[f"image data are left out: {left_out_text(first.left_out)}"] = None
    return list(sentences)

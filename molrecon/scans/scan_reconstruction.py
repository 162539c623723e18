"""Every image of a scan: maps and noise level once, then frame by frame; and its files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from molrecon.io import Frame, RawVolume
from molrecon.reconstructors.base import Reconstructor
from molrecon.scans.outputs import output_paths, write_outputs
from molrecon.scans.parts.wanted import PLAIN, Parts
from molrecon.scans.preparation import PreparedVolume
from molrecon.scans.reconstruction import Reconstruction, reconstruct_prepared
from molrecon.scans.scan import Scan, Series
from molrecon.scans.series import joined
from molrecon.scans.settings import Settings
from molrecon.scans.sidecar import ModelSource, describe, describe_sampling, write_json
from molrecon.scans.trajectories.preparation import prepare_volume


@final
@dataclass(frozen=True, eq=False)
class SeriesReconstruction:
    """The images of one series.

    Attributes:
        series: what was reconstructed.
        first: its first frame as it was prepared; the others have its maps.
        result: of all frames, see `Reconstruction`.
    """

    series: Series
    first: PreparedVolume
    result: Reconstruction


def reconstruct_scan(
    scan: Scan, model: Reconstructor, settings: Settings | None = None, *, keep_residual: bool = False
) -> list[SeriesReconstruction]:
    """Reconstruct every image of a scan.

    The sensitivity maps and the noise level are found once for each encoding space, from calibration data where there
    are some, else from the mean of its frames (`Scan.calibrated`), and serve all of its contrasts, sets, phases and
    repetitions.

    Args:
        scan: from `read_scan` or `Scan.from_arrays`.
        model: any reconstructor.
        settings: everything else; None: the defaults.
        keep_residual: the results have their `last_residual`, for a page.

    Raises:
        ValueError: as `reconstruct_volume`.
    """
    settings = settings or Settings()
    shared: dict[int, PreparedVolume] = {}
    found = []
    for series in scan.calibrated().series():
        first = _prepare(series.frames[0], settings, shared)
        results = [_solve(first, model, settings, keep_residual)]
        results += [_solve(_prepare(frame, settings, shared), model, settings) for frame in series.frames[1:]]
        found.append(SeriesReconstruction(series, first, joined(results, series.time_step)))
    return found


def write_scan(
    folder: str | Path,
    name: str,
    found: Sequence[SeriesReconstruction],
    source: ModelSource,
    settings_sha256: str,
    parts: Parts = PLAIN,
) -> list[Path]:
    """Write the files of every series, and return their paths; the sidecar NAME.json is the last.

    A single series has the five files of `write_outputs` under NAME. Of several each has them under NAME_ENTITIES
    (NAME_echo-1.nii.gz), and NAME.json, of the scan, lists them all under "outputs" and summarises them.

    Args: as `write_outputs`.

    Raises:
        ValueError: a file of such a name that is not of an earlier reconstruction of this input.
        OSError: a file cannot be written.
    """
    if len(found) == 1:
        only = found[0]
        return write_outputs(folder, name, only.first, only.result, source, settings_sha256, _facts(only.series), parts)
    names = [f"{name}_{one.series.entities}" for one in found]
    sidecar = output_paths(folder, name)[-1]
    for own in names:
        _refuse_others(folder, own, found[0].first.volume.sha256)
    sidecar.unlink(missing_ok=True)
    written: list[Path] = []
    for own, one in zip(names, found, strict=True):
        facts = _facts(one.series)
        written += write_outputs(folder, own, one.first, one.result, source, settings_sha256, facts, parts)
    whole = joined([one.result for one in found])
    described = describe(found[0].first, whole, source)
    described["image"] = [{"entities": one.series.entities, "shape": list(one.result.image.shape)} for one in found]
    listed = {"outputs": [path.name for path in written], "settings_sha256": settings_sha256}
    write_json(sidecar, {**described, **listed})
    return [*written, sidecar]


def _refuse_others(folder: str | Path, name: str, sha256: str) -> None:
    """Raise ValueError for files of this name that no earlier reconstruction of the input wrote: they may be inputs."""
    *images, sidecar = output_paths(folder, name)
    there = [path for path in images if path.exists()]
    try:
        same = json.loads(sidecar.read_text(encoding="utf-8"))["input"]["sha256"] == sha256
    except (OSError, ValueError, KeyError, TypeError):
        same = False
    if there and not same:
        raise ValueError(f"{there[0]}: is there, of another input than {name}, expected another folder or none")


def _prepare(frame: Frame, settings: Settings, shared: dict[int, PreparedVolume]) -> PreparedVolume:
    like = shared.get(frame.encoding_space)
    if like is not None and _images(like.volume) != _images(frame.volume):
        like = None
    prepared = prepare_volume(
        frame.volume,
        settings.maps,
        settings.noise_level,
        settings.device,
        settings.progress,
        map_sets=settings.map_sets,
        compress=settings.compress,
        shared=like,
    )
    shared.setdefault(frame.encoding_space, prepared)
    return prepared


def _images(volume: RawVolume) -> tuple[bool, tuple[int, int] | None, tuple[int, ...]]:
    """Return what coil images that share their maps have in common."""
    return volume.trajectory is None, volume.grid, volume.kspace.shape[:2]


def _solve(
    prepared: PreparedVolume, model: Reconstructor, settings: Settings, keep_residual: bool = False
) -> Reconstruction:
    return reconstruct_prepared(
        prepared,
        model,
        solver=settings.solver,
        device=settings.device,
        batch_size=settings.batch_size,
        progress=settings.progress,
        keep_residual=keep_residual,
        parts=settings.parts,
    )


def _facts(series: Series) -> dict[str, Any]:
    """Return what the sidecar says of the frames of a series; nothing of a single one without counters."""
    counters = ("encoding_space", "contrast", "set", "phase", "repetition")
    frames = [
        {
            **{name: getattr(one, name) for name in counters},
            "seconds": one.seconds,
            "sampling": describe_sampling(one.volume),
        }
        for one in series.frames
    ]
    return {"frames": frames, "time_step_seconds": series.time_step} if len(frames) > 1 else {}

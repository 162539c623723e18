"""Every image of a scan: maps and noise level once, then frame by frame; and its files."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, final

from molrecon.io import Frame, RawVolume
from molrecon.reconstructors.base import Reconstructor
from molrecon.scans.data_warnings import DataWarning
from molrecon.scans.kinds.choice import Choice, choose
from molrecon.scans.kinds.joint import reconstruct_jointly
from molrecon.scans.memory.scan_plan import ScanPlan, plan_series
from molrecon.scans.outputs import output_paths, sidecar_in, write_outputs
from molrecon.scans.parts.wanted import PLAIN, Parts
from molrecon.scans.preparation import PreparedVolume
from molrecon.scans.reconstruction import Adaptation, NotAdaptable, Reconstruction, Unit, adapt, reconstruct_prepared
from molrecon.scans.scan import Scan, Series
from molrecon.scans.series import joined
from molrecon.scans.settings import Settings
from molrecon.scans.sidecar import ModelSource, describe_sampling, make_sidecar, write_json
from molrecon.scans.trajectories.preparation import prepare_volume
from molrecon.solvers.solver_settings import SolverSettings

log = logging.getLogger(__name__)


@final
@dataclass(frozen=True, eq=False)
class SeriesReconstruction:
    """The images of one series.

    Attributes:
        series: what was reconstructed.
        first: its first frame as it was prepared; the others have its maps.
        result: of all frames, see `Reconstruction`.
        choice: the model that reconstructed them, and why.
        plan: how it stayed inside the budget, if there is one.
    """

    series: Series
    first: PreparedVolume
    result: Reconstruction
    choice: Choice
    plan: ScanPlan | None = None


def reconstruct_scan(
    scan: Scan, model: Reconstructor, settings: Settings | None = None, *, keep_residual: bool = False
) -> list[SeriesReconstruction]:
    """Reconstruct every image of a scan.

    The sensitivity maps and the noise level are found once for each encoding space and slab, from calibration data
    where there are some, else from the mean of its frames (`Scan.calibrated`), and serve all of its contrasts, sets,
    phases and repetitions.

    Args:
        scan: from `read_scan` or `Scan.from_arrays`.
        model: any reconstructor, or `Automatic`; how many planes it sees at a time, `choose` says.
        settings: everything else; None: the defaults.
        keep_residual: the results have their `last_residual`, for a page.

    Raises:
        ValueError: as `reconstruct_volume`; frames of one series that differ in shape.
    """
    settings = settings or Settings()
    shared: dict[tuple[int, int], PreparedVolume] = {}
    reconstructions = []
    for series in scan.calibrated().series():
        shapes = {(len(one.volume.kspace), *one.volume.recon_shape) for one in series.frames}
        if len(shapes) > 1:
            raise ValueError(f"reconstruct: frames of shapes {sorted(shapes)} in one series, expected one shape")
        choice = choose(series, model)
        log.info("reconstructed by %s, %s", type(choice.model).__name__, choice.summary)
        first = _prepare(series.frames[0], settings, shared)
        plan = None
        if settings.memory is not None:
            frames, limit = len(series.frames), settings.batch_size
            plan = plan_series(first, frames, choice.model, choice.unit, settings.memory, limit)
            log.info("memory: %s", plan.describe())
        call = _call(choice, model, settings, plan)
        cautions = [DataWarning(None, "model", None, None, caution) for caution in choice.cautions]
        if settings.adapt:
            call, caution = _adapted(call, first)
            cautions += caution
        if choice.unit == "series":
            results = _solve([first, *(_prepare(frame, settings, shared) for frame in series.frames[1:])], call)
        else:
            results = _solve([first], call, keep_residual)
            for frame in series.frames[1:]:
                results += _solve([_prepare(frame, settings, shared)], call)
        result = joined(results, series.time_step)
        result = replace(result, warnings=[*cautions, *result.warnings])
        reconstructions.append(SeriesReconstruction(series, first, result, choice, plan))
    return reconstructions


def write_scan(
    folder: str | Path,
    name: str,
    reconstructions: Sequence[SeriesReconstruction],
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
    _refuse_series_of_others(folder, name, reconstructions[0].first.volume.sha256)
    if len(reconstructions) == 1:
        return _write(folder, name, reconstructions[0], source, settings_sha256, parts)
    names = [f"{name}_{one.series.entities}" for one in reconstructions]
    sidecar = output_paths(folder, name)[-1]
    for series_name in names:
        _refuse_others(folder, series_name, reconstructions[0].first.volume.sha256)
    sidecar.unlink(missing_ok=True)
    written: list[Path] = []
    for series_name, one in zip(names, reconstructions, strict=True):
        written += _write(folder, series_name, one, source, settings_sha256, parts)
    whole = joined([one.result for one in reconstructions])
    content = make_sidecar(reconstructions[0].first, whole, reconstructions[0].choice.source or source)
    content["model_choice"] = [one.choice.describe(source) for one in reconstructions]
    content["image"] = [
        {"entities": one.series.entities, "shape": list(one.result.image.shape)} for one in reconstructions
    ]
    listed = {"outputs": [path.name for path in written], "settings_sha256": settings_sha256}
    write_json(sidecar, {**content, **listed})
    return [*written, sidecar]


def _write(
    folder: str | Path,
    name: str,
    one: SeriesReconstruction,
    source: ModelSource,
    settings_sha256: str,
    parts: Parts,
) -> list[Path]:
    entries = {"model_choice": [one.choice.describe(source)], **_frame_entries(one.series)}
    if one.plan is not None:
        entries["memory"] = {"budget_bytes": one.plan.budget, "plan": one.plan.describe()}
    used = one.choice.source or source
    return write_outputs(folder, name, one.first, one.result, used, settings_sha256, entries, parts)


def _refuse_others(folder: str | Path, name: str, sha256: str) -> None:
    """Raise ValueError for files of this name that no earlier reconstruction of the input wrote: they may be inputs."""
    existing = [path for path in output_paths(folder, name)[:-1] if path.exists()]
    try:
        same = sidecar_in(folder, name)["input"]["sha256"] == sha256
    except (KeyError, TypeError):
        same = False
    if existing and not same:
        raise ValueError(f"{existing[0]}: is there, of another input than {name}, expected another folder or none")


def _refuse_series_of_others(folder: str | Path, name: str, sha256: str) -> None:
    """Raise ValueError where the files NAME are those of one series, or of a part, of a scan under a shorter name."""
    for length in (k for k, letter in enumerate(name) if letter == "_"):
        content = sidecar_in(folder, name[:length])
        try:
            theirs = f"{name}.nii.gz" in content["outputs"] and content["input"]["sha256"] != sha256
        except (KeyError, TypeError):  # no such scan, or one without series and parts
            continue
        if theirs:
            raise ValueError(f"{name}.nii.gz: is of {name[:length]}, expected another folder or another name")


def _prepare(frame: Frame, settings: Settings, shared: dict[tuple[int, int], PreparedVolume]) -> PreparedVolume:
    donor = shared.get((frame.encoding_space, frame.slab))
    if donor is not None and _shape_of_maps(donor.volume) != _shape_of_maps(frame.volume):
        donor = None

    def with_maps_of(donor: PreparedVolume | None) -> PreparedVolume:
        return prepare_volume(
            frame.volume,
            settings.maps,
            settings.noise_level,
            settings.device,
            settings.progress,
            map_sets=settings.map_sets,
            compress=settings.compress,
            shared=donor,
        )

    prepared = with_maps_of(donor)
    if donor is not None and (donor.empty & ~prepared.empty).any():  # it has no maps of slices that it lacks
        prepared = with_maps_of(None)
    shared.setdefault((frame.encoding_space, frame.slab), prepared)
    return prepared


def _shape_of_maps(volume: RawVolume) -> tuple[bool, tuple[int, int] | None, tuple[int, ...]]:
    """Return what coil images that share their maps have in common."""
    return volume.trajectory is None, volume.grid, volume.kspace.shape[:2]


@final
@dataclass(frozen=True, eq=False)
class _Call:
    """How the frames of a series are solved; `model` is set up for the budget."""

    model: Reconstructor
    solver: SolverSettings | None
    unit: Unit
    settings: Settings
    adaptation: Adaptation | None = None


def _call(choice: Choice, named: Reconstructor, settings: Settings, plan: ScanPlan | None) -> _Call:
    """Return how to solve: what the settings change in the solver of the named model is changed in the chosen one's."""
    solver, own = settings.solver, choice.model.solver
    if choice.model is not named and solver is not None and own is not None and named.solver is not None:
        changed = {
            one.name: getattr(solver, one.name)
            for one in fields(SolverSettings)
            if getattr(solver, one.name) != getattr(named.solver, one.name)
        }
        solver = replace(own, **changed)
    if plan is None:
        return _Call(choice.model, solver, choice.unit, settings)
    fitted = plan.model.solver
    if solver is not None and fitted is not None:
        solver = replace(solver, window=min(solver.window, fitted.window), refine=solver.refine and fitted.refine)
    return _Call(plan.model, solver, choice.unit, replace(settings, batch_size=plan.batch_size))


def _adapted(call: _Call, first: PreparedVolume) -> tuple[_Call, list[DataWarning]]:
    """Return the call with the noise level that fits the first frame, or a warning that it stays that of the scan."""
    settings = call.settings
    try:
        found = adapt(first, call.model, device=settings.device, at_once=settings.batch_size)
    except NotAdaptable as error:
        return call, [
            DataWarning(None, "adaptation", None, None, f"the strength of the prior was not adapted: {error}")
        ]
    log.info("adapted: the model is told %g times the noise level", found.factor)
    return replace(call, adaptation=found), []


def _solve(frames: Sequence[PreparedVolume], call: _Call, keep_residual: bool = False) -> list[Reconstruction]:
    settings = call.settings
    if call.unit != "slice":
        return reconstruct_jointly(
            frames,
            call.model,
            solver=call.solver,
            device=settings.device,
            progress=settings.progress,
            parts=settings.parts,
        )
    return [
        reconstruct_prepared(
            one,
            call.model,
            solver=call.solver,
            device=settings.device,
            batch_size=settings.batch_size,
            progress=settings.progress,
            keep_residual=keep_residual,
            parts=settings.parts,
            adaptation=call.adaptation,
        )
        for one in frames
    ]


def _frame_entries(series: Series) -> dict[str, Any]:
    """Return the entries of the sidecar about the frames of a series; none for a single frame."""
    counters = ("encoding_space", "slab", "contrast", "set", "phase", "repetition")
    frames = [
        {
            **{name: getattr(one, name) for name in counters},
            "seconds": one.seconds,
            "sampling": describe_sampling(one.volume),
        }
        for one in series.frames
    ]
    return {"frames": frames, "time_step_seconds": series.time_step} if len(frames) > 1 else {}

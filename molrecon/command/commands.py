"""What the commands of `molrecon` do, one function each; molrecon.__main__ says what each is for."""

from __future__ import annotations

import argparse
import errno
import filecmp
import json
import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from molrecon.command.arguments import MODEL_METHOD
from molrecon.command.train import plan_training
from molrecon.guarantees.certify import certify, sample_problem, volume_problem
from molrecon.guarantees.certify_report import as_dict, describe
from molrecon.guarantees.robustness import evaluate, select_slices, take_slices
from molrecon.guarantees.robustness_report import describe_robustness, robustness_figure, robustness_table
from molrecon.io import RawVolume, UnreadableInput, atomic_path, expand_inputs, read_volume
from molrecon.io.images import check_suffix, read_image, write_image
from molrecon.reconstructors.base import Reconstructor
from molrecon.reconstructors.classical import CGSense, L1Wavelet, ZeroFilled
from molrecon.reconstructors.mol import MOL
from molrecon.scans.cohort import check_outputs, model_files, reconstruct_cohort
from molrecon.scans.comparison import (
    CG_GRID,
    L1_GRID,
    Comparison,
    Outcome,
    reference_image,
    root_sum_of_squares,
    undersample,
)
from molrecon.scans.data_warnings import DataWarning
from molrecon.scans.manifest import FAILED, INCOMPLETE, MANIFEST, NOT_CONVERGED, OK, UNREADABLE, Entry
from molrecon.scans.methods import load_method
from molrecon.scans.outputs import check_replacement, write_outputs
from molrecon.scans.preparation import PreparedVolume, prepare, read_maps
from molrecon.scans.quality_page import write_png
from molrecon.scans.reconstruction import reconstruct_prepared
from molrecon.scans.settings import Settings
from molrecon.scans.sidecar import ModelSource, describe_sampling, plain, write_json
from molrecon.sensing.find_imager import find_imager
from molrecon.sensing.photographs import sense_photograph
from molrecon.simulation.sample import write_sample
from molrecon.solvers.solver_settings import SolverSettings
from molrecon.training.log import file_log
from molrecon.training.processes import process_group, rank
from molrecon.weights import available_models, load, load_card
from operators.masks import equispaced_fraction_mask, file_seed, random_mask

EXIT_OK, EXIT_USAGE, EXIT_UNREADABLE, EXIT_FAILED, EXIT_NOT_CONVERGED = 0, 2, 3, 4, 5
EXIT_VIOLATED, EXIT_INTERRUPTED = 6, 130

DEMO_ACCELERATION, DEMO_CENTER_FRACTION, DEMO_SEED = 4.0, 0.08, 0

DISK_FAILURES = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)

log = logging.getLogger("molrecon")


class _UsageError(Exception):
    """Arguments that argparse cannot judge and that make no sense all the same."""


def run(args: argparse.Namespace) -> int:
    """Carry out the command that the arguments ask for, and return its exit code."""
    if "device" in args and args.device is None:
        args.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    logging.basicConfig(level=logging.DEBUG if args.verbose else logging.WARNING, format="molrecon: %(message)s")
    logging.getLogger("matplotlib").setLevel(logging.WARNING)
    try:
        with _usage():
            check_replacement(_files_written(args), _files_read(args))
        return _COMMANDS[args.command](args)
    except _UsageError as error:
        return _complain(error, EXIT_USAGE)
    except UnreadableInput as error:
        return _complain(error, EXIT_UNREADABLE)
    except KeyboardInterrupt:
        return _complain("interrupted", EXIT_INTERRUPTED)
    except Exception as error:  # a traceback helps developers only: --verbose shows it
        log.debug("traceback", exc_info=True)
        return _complain(f"{type(error).__name__}: {error}", EXIT_FAILED)


def _complain(message: object, code: int) -> int:
    print(f"molrecon: error: {message}", file=sys.stderr)
    return code


@contextmanager
def _usage() -> Iterator[None]:
    """Turn what the library says about arguments into a usage error; a full disk is none."""
    try:
        yield
    except UnreadableInput:
        raise
    except (ValueError, TypeError, OSError) as error:
        if isinstance(error, OSError) and error.errno in DISK_FAILURES:
            raise
        raise _UsageError(str(error)) from error


def _tell(args: argparse.Namespace, content: dict[str, Any], text: str) -> None:
    """Print the text and write the content where `--json` says, or print the content alone for `--json -`."""
    if args.json == "-":
        print(json.dumps(plain(content), indent=2, allow_nan=False))
        return
    print(text)
    if args.json is not None:
        with _usage():
            write_json(args.json, content)


def _files_read(args: argparse.Namespace) -> list[Path]:
    """Return what the arguments name for reading, scans and images, maps, weights and their cards."""
    named = [getattr(args, name, None) for name in ("inputs", "input", "image", "data", "maps")]
    listed = [item for value in named for item in (value if isinstance(value, list) else [value])]
    models = [getattr(args, "model", None), *getattr(args, "models", [])]
    weights = [file for name in models if name is not None for file in model_files(name)]
    return [*(Path(item) for item in listed if item is not None), *weights]


def _files_written(args: argparse.Namespace) -> list[Path]:
    """Return the single files that the arguments name for writing; the outputs in folders are checked where written."""
    named = [None if getattr(args, "json", None) == "-" else getattr(args, "json", None), getattr(args, "figure", None)]
    if args.command == "cs":
        named.append(_image_out(args))
    return [Path(item) for item in named if item is not None]


def _image_out(args: argparse.Namespace) -> Path:
    return Path(args.out or f"{Path(args.image).stem}-{args.ratio}.png")


def _make_sample(path: Path) -> Path:
    """Write the sample scan, and return its path. Raises ValueError where another file is in its place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        write_sample(temporary)
        if path.exists() and not filecmp.cmp(temporary, path, shallow=False):
            raise ValueError(
                f"{path}: is there, and is not the scan that this command makes, expected another --out, or that file"
                " to be moved away"
            )
    return path


def _demo(args: argparse.Namespace) -> int:
    out = Path(args.out)
    model, source, solver = _load(args)
    with _usage():
        path = _make_sample(out / "input" / "sample.h5")
        check_outputs([path], out, _files_read(args))
    full = read_volume(path)
    mask = random_mask(full.kspace.shape[-1], DEMO_ACCELERATION, DEMO_CENTER_FRACTION, DEMO_SEED)
    prepared = prepare(undersample(full, mask, 0.0, [DEMO_SEED]), device=args.device, progress=True)
    result = reconstruct_prepared(
        prepared, model, solver=solver, device=args.device, batch_size=args.batch_size, progress=True
    )
    settings = Settings(solver=solver, device=args.device, batch_size=args.batch_size)
    written = write_outputs(out, "sample", prepared, result, source, settings.sha256(model))
    comparison = Comparison(prepared, full, device=args.device)
    outcomes = {
        "zero-filled": comparison.zero_filled,
        "cg-sense": replace(
            comparison.score("cg-sense", CGSense(args.cg_regularisation)), regularisation=args.cg_regularisation
        ),
        MODEL_METHOD: comparison.reconstruction(result),
    }
    slices, coils, rows, cols = full.kspace.shape
    print(f"{slices} slices, {coils} coils, {rows} x {cols}; {mask.sum()} of {cols} columns measured")
    print(_table(outcomes))
    if result.solver is not None and result.kind != "none":
        print(
            f"{int(result.converged.sum())} of {slices} slices are within {result.solver.tol:g} of the exact"
            f" equilibrium (at worst {result.error_bound.max():.1e}); the model is {result.certificate.kind}"
        )
    print("\n".join(f"  {item}" for item in (path, *written)))
    _warn(str(path), result.warnings)
    return EXIT_OK if result.converged.all() else EXIT_NOT_CONVERGED


def _reconstruct(args: argparse.Namespace) -> int:
    inputs = expand_inputs(args.inputs)
    model, source, solver = _load(args)
    settings = Settings(
        solver=solver,
        maps=None if args.maps == "espirit" else read_maps(args.maps),
        noise_level=args.noise_level,
        device=args.device,
        batch_size=args.batch_size,
        progress=True,
    )
    out = Path(args.out)
    with _usage():
        check_outputs(inputs, out, _files_read(args))
        out.mkdir(parents=True, exist_ok=True)
    entries = reconstruct_cohort(inputs, out, model, source, settings, resume=args.resume, report=_report)
    statuses = [entry.status for entry in entries]
    print(f"{len(entries)} volumes, {statuses.count(OK)} ok; see {out / MANIFEST}")
    if all(status == UNREADABLE for status in statuses):
        return EXIT_UNREADABLE
    if UNREADABLE in statuses or FAILED in statuses:
        return EXIT_FAILED
    warned = args.strict and any(entry.warnings for entry in entries)
    return EXIT_NOT_CONVERGED if warned or NOT_CONVERGED in statuses or INCOMPLETE in statuses else EXIT_OK


def _warn(path: str, warnings: Sequence[DataWarning]) -> None:
    for warning in warnings:
        print(f"molrecon: warning: {path}: {warning}", file=sys.stderr, flush=True)


def _report(entry: Entry) -> None:
    _warn(entry.input, entry.warnings)
    line = f"{entry.input}: {entry.status}: {entry.message}"
    if entry.status == UNREADABLE:
        line = f"{entry.status}: {entry.message}"  # which names the file
    if entry.status == OK:
        print(line, flush=True)
    else:
        print(f"molrecon: {line}", file=sys.stderr, flush=True)


def _compare(args: argparse.Namespace) -> int:
    methods = {name: _method(name, args) for name in args.methods}
    volume = read_volume(args.input)
    maps = None if args.maps == "espirit" else read_maps(args.maps)
    retrospective = _undersample(volume, args)
    prepared = prepare(retrospective, maps, args.noise_level, args.device, progress=True)
    comparison = Comparison(prepared, volume, device=args.device, batch_size=args.batch_size, progress=True)
    outcomes = {name: _outcome(name, method, comparison, args) for name, method in methods.items()}
    content = _comparison_content(args, prepared, methods, outcomes)
    sampling = content["sampling"]
    measured = (
        f"{sampling['measured']} of {sampling['of']} columns measured (R = {sampling['acceleration']:.3g}),"
        f" noise level {prepared.noise_level:.3g} ({'estimated' if prepared.noise_estimated else 'given'}),"
        f" coil maps {prepared.maps_source.method}"
    )
    _tell(args, content, f"{measured}\n{_table(outcomes)}")
    scores = [outcome.score for outcome in outcomes.values()]
    missed = any(score.error_bound is not None and not score.converged for score in scores)
    return EXIT_NOT_CONVERGED if missed else EXIT_OK


def _method(name: str, args: argparse.Namespace) -> tuple[Reconstructor, ModelSource]:
    with _usage():
        return load_method(args.model if name == MODEL_METHOD else name)


def _outcome(
    name: str, method: tuple[Reconstructor, ModelSource], comparison: Comparison, args: argparse.Namespace
) -> Outcome:
    """Score a method: classical ones at their weight of the arguments, or at their best; others at the goal given."""
    model, _ = method
    if name == "zero-filled":
        return comparison.zero_filled
    if isinstance(model, CGSense):
        grid = CG_GRID if args.cg_regularisation is None else (args.cg_regularisation,)
        return comparison.tuned(name, CGSense, grid)
    if isinstance(model, L1Wavelet):
        grid = L1_GRID if args.l1_regularisation is None else (args.l1_regularisation,)
        return comparison.tuned(name, L1Wavelet, grid)
    return comparison.score(name, model, solver=_solver(model, args))


def _comparison_content(
    args: argparse.Namespace,
    prepared: PreparedVolume,
    methods: dict[str, tuple[Reconstructor, ModelSource]],
    outcomes: dict[str, Outcome],
) -> dict[str, Any]:
    """Return everything that the numbers of a comparison depend on, and the numbers."""
    return {
        "input": str(args.input),
        "sha256": prepared.volume.sha256,
        "sampling": {
            **describe_sampling(prepared.volume),
            "mask": args.mask,
            "nominal_acceleration": args.accel,
            "center_fraction": args.center_fraction,
            "seed": list(_seed(args)),
        },
        "noise": {
            "added_relative_to_maximum": args.noise,
            "noise_level": prepared.noise_level,
            "estimated": prepared.noise_estimated,
        },
        "sensitivity_maps": {"method": prepared.maps_source.method, **prepared.maps_source.detail},
        "reference": "root sum of squares" if prepared.volume.reference_kind == "rss" else "combined with the maps",
        "methods": {
            name: {
                **asdict(outcome.score),
                "regularisation": outcome.regularisation,
                "model": methods[name][1].name,
                "weights_sha256": methods[name][1].weights_sha256,
            }
            for name, outcome in outcomes.items()
        },
    }


def _undersample(volume: RawVolume, args: argparse.Namespace) -> RawVolume:
    seed = _seed(args)
    with _usage():
        draw = random_mask if args.mask == "random" else equispaced_fraction_mask
        mask = draw(volume.kspace.shape[-1], args.accel, args.center_fraction, seed)
        added = args.noise * float(root_sum_of_squares(volume).max()) if args.noise else 0.0
        return undersample(volume, mask, added, seed)


def _seed(args: argparse.Namespace) -> tuple[int, ...]:
    return tuple(file_seed(args.input)) if args.seed is None else (args.seed,)


def _certify(args: argparse.Namespace) -> int:
    with _usage():
        model = load(args.model, MOL).to(args.device)
        if args.data is None:
            if args.maps != "espirit" or args.noise_level is not None:
                raise ValueError("certify: --maps or --noise-level without --data, expected them together")
            problem = sample_problem(model.network.ndim)
        else:
            maps = None if args.maps == "espirit" else read_maps(args.maps)
            problem = volume_problem(read_volume(args.data), maps, args.noise_level, args.device)
        findings = certify(model, problem)
    _tell(args, as_dict(findings), describe(findings))
    if findings.violations:
        return EXIT_VIOLATED
    return EXIT_OK if findings.converged else EXIT_NOT_CONVERGED


def _robustness(args: argparse.Namespace) -> int:
    volume = read_volume(args.input)
    maps = None if args.maps == "espirit" else read_maps(args.maps)
    with _usage():
        slices = select_slices(volume, args.slices)
        models = {label: load_method(name)[0] for label, name in _labels(args.models).items()}
    if maps is not None and len(maps) == len(volume.kspace):
        maps = maps[slices]
    volume = take_slices(volume, slices)
    prepared = prepare(_undersample(volume, args), maps, args.noise_level, args.device, progress=True)
    reference = reference_image(volume, prepared)
    weight = args.cg_regularisation
    if weight is None:
        weight = Comparison(prepared, volume, device=args.device).tuned("cg-sense", CGSense, CG_GRID).regularisation
    methods = {"zero-filled": ZeroFilled(), "cg-sense": CGSense(weight), **models}
    with _usage():
        result = evaluate(
            prepared,
            reference,
            methods,
            args.levels,
            draws=args.draws,
            steps=args.steps,
            seed=_seed(args),
            device=args.device,
            progress=True,
        )
    content = {"input": str(args.input), "slices": slices, "cg_regularisation": weight, **describe_robustness(result)}
    _tell(args, content, robustness_table(result))
    if args.figure is not None:
        title = f"{Path(args.input).name}, slice {slices[result.shown_slice]}, R = {args.accel:g}"
        with _usage():
            write_png(args.figure, robustness_figure(result, title))
    if any(curve.violations for curve in result.curves.values()):
        return EXIT_VIOLATED
    return EXIT_OK if all(curve.converged for curve in result.curves.values()) else EXIT_NOT_CONVERGED


def _cs(args: argparse.Namespace) -> int:
    image = read_image(args.image)
    out = _image_out(args)
    with _usage():
        check_suffix(out)
        imager = find_imager(args.model, args.ratio).to(args.device)
        result = sense_photograph(image, imager)
        write_image(out, result.image)
    content = {"image": args.image, "out": str(out), "ratio": args.ratio, "model": args.model}
    content.update(psnr=result.psnr, ssim=result.ssim, pixels=image.size, measurements=result.measurements)
    rows, cols = image.shape[:2]
    kind = "grey" if image.ndim == 2 else "colour"
    measured = f"{rows} x {cols} {kind}, {result.measurements} numbers measured of {image.size}"
    _tell(args, content, f"{measured}\nPSNR {result.psnr:.2f} dB, SSIM {result.ssim:.4f}: {out}")
    return EXIT_OK


def _labels(names: Sequence[str]) -> dict[str, str]:
    """Return a label for each model: the file's name alone where no two share it, else the path as it was given.

    Raises:
        ValueError: a model given twice.
    """
    stems = [Path(name).stem for name in names]
    labels = [stem if stems.count(stem) == 1 else name for stem, name in zip(stems, names, strict=True)]
    repeated = sorted({label for label in labels if labels.count(label) > 1})
    if repeated:
        raise ValueError(f"robustness: models {', '.join(repeated)} given twice, expected each of them once")
    return dict(zip(labels, names, strict=True))


def _train(args: argparse.Namespace) -> int:
    with _usage():
        args.out.mkdir(parents=True, exist_ok=True)
    with process_group(args.device) as device, file_log(args.out):
        with _usage():
            plan = plan_training(args, device)
            steps = plan.start()
        message = plan.finish(steps)
        if rank() > 0:
            return EXIT_OK
    unusable = plan.unusable()
    for line in unusable:
        print(f"molrecon: unusable: {line}", file=sys.stderr)
    print(message)
    return EXIT_FAILED if unusable else EXIT_OK


def _models(args: argparse.Namespace) -> int:
    for name in available_models():
        print(name)
        for key, value in load_card(name).items():
            print(f"    {key}: {value}")
    return EXIT_OK


def _load(args: argparse.Namespace) -> tuple[Reconstructor, ModelSource, SolverSettings | None]:
    """Return the method of `--model`, where it came from, and the solver settings of the arguments."""
    with _usage():
        model, source = load_method(args.model)
        return model, source, _solver(model, args, strict=True)


def _solver(model: Reconstructor, args: argparse.Namespace, *, strict: bool = False) -> SolverSettings | None:
    """Return the model's settings with what the arguments say; None for a method that iterates nothing.

    Raises:
        ValueError: arguments that the method has no use for, if `strict`.
    """
    given = {name: value for name in ("tol", "max_steps") if (value := getattr(args, name)) is not None}
    if model.solver is None:
        if given and strict:
            raise ValueError(
                f"{args.model}: got {' and '.join('--' + name.replace('_', '-') for name in given)}, expected neither:"
                f" {type(model).__name__} has nothing to iterate to a tolerance"
            )
        return None
    return replace(model.solver, **given)


def _table(outcomes: dict[str, Outcome]) -> str:
    width = max(12, *(len(name) for name in outcomes))
    lines = [
        f"{'method':<{width}} {'PSNR dB':>8} {'SSIM':>7} {'NMSE':>8} {'seconds':>8} {'steps':>6} {'bound':>8}"
        "  converged  weight"
    ]
    against_rss: list[str] = []
    for name, outcome in outcomes.items():
        score = outcome.score
        bound = "-" if score.error_bound is None else f"{score.error_bound:.1e}"
        converged = {None: "-", True: "yes", False: "NO"}[score.converged]
        weight = "-" if outcome.regularisation is None else f"{outcome.regularisation:.3g}"
        lines.append(
            f"{name:<{width}} {score.psnr:8.2f} {score.ssim:7.4f} {score.nmse:8.5f} {score.seconds:8.2f}"
            f" {score.iterations:6d} {bound:>8}  {converged:<9}  {weight}"
            + ("  WORSE THAN ZERO-FILLED" if score.worse_than_zero_filled else "")
        )
        if score.psnr_rss is not None:
            against_rss.append(f"{name} {score.psnr_rss:.2f} dB {score.ssim_rss:.4f}")
    if against_rss:
        lines.append("against the root sum of squares: " + ", ".join(against_rss))
    return "\n".join(lines)


_COMMANDS = {
    "demo": _demo,
    "reconstruct": _reconstruct,
    "compare": _compare,
    "certify": _certify,
    "robustness": _robustness,
    "cs": _cs,
    "train": _train,
    "models": _models,
}

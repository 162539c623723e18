"""The `molrecon` command.

    molrecon demo [--out DIR]                   a synthetic scan, undersampled four times, reconstructed and compared
    molrecon reconstruct INPUT... --out DIR     scans (files or folders of files) to images with a report each
    molrecon compare INPUT --accel R ...        methods side by side on a fully sampled scan
    molrecon models                             the packaged models and their cards

Exit codes:
    0  ok
    2  usage: arguments that make no sense, an unknown model, a scan that is not fully sampled in `compare`
    3  unreadable input (of several inputs: all of them)
    4  some volumes failed; the others are reconstructed, and manifest.json in the output folder lists all of them
    5  everything is written, but some slice did not converge to the tolerance; the outputs say which
       (in `compare`, of the methods with an error bound; l1-wavelet runs a fixed number of iterations)

Existing outputs are replaced, unless `reconstruct --skip-existing` keeps them. Messages go to stderr.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from molrecon.arguments import METHODS, build_parser
from molrecon.cohort import (
    FAILED,
    MANIFEST,
    NOT_CONVERGED,
    OK,
    UNREADABLE,
    Entry,
    Settings,
    check_outputs,
    load_source,
    reconstruct_cohort,
)
from molrecon.compare import Comparison, Outcome, reference_image, root_sum_of_squares, undersample
from molrecon.io import UnreadableInput, expand_inputs, read_volume
from molrecon.io.phantom import make_sample_volume
from molrecon.mol import MOL
from molrecon.outputs import write_outputs
from molrecon.pipeline import reconstruct_prepared
from molrecon.preparation import prepare, read_maps
from molrecon.sidecar import ModelSource, plain, write_json
from molrecon.weights import available_models, load_card
from operators.masks import equispaced_fraction_mask, file_seed, random_mask

EXIT_OK, EXIT_USAGE, EXIT_UNREADABLE, EXIT_FAILED, EXIT_NOT_CONVERGED, EXIT_INTERRUPTED = 0, 2, 3, 4, 5, 130

DEMO_ACCELERATION, DEMO_CENTER_FRACTION, DEMO_SEED = 4.0, 0.08, 0

log = logging.getLogger("molrecon")


class _UsageError(Exception):
    """Arguments that argparse cannot judge and that make no sense all the same."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with the given arguments (None: those of the process) and return its exit code."""
    args = build_parser(__doc__ or "").parse_args(argv)
    logging.basicConfig(level=logging.DEBUG if args.verbose else logging.WARNING, format="molrecon: %(message)s")
    logging.getLogger("matplotlib").setLevel(logging.WARNING)
    try:
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
    """Turn what the library says about arguments into a usage error."""
    try:
        yield
    except UnreadableInput:
        raise
    except (ValueError, TypeError, OSError) as error:
        raise _UsageError(str(error)) from error


def _demo(args: argparse.Namespace) -> int:
    out = Path(args.out)
    model, source = _load(args)
    with _usage():
        path = make_sample_volume(out / "input" / "sample.h5")
    full = read_volume(path)
    mask = random_mask(full.kspace.shape[-1], DEMO_ACCELERATION, DEMO_CENTER_FRACTION, DEMO_SEED)
    prepared = prepare(undersample(full, mask, 0.0, [DEMO_SEED]), device=args.device, progress=True)
    result = reconstruct_prepared(prepared, model, device=args.device, batch_size=args.batch_size, progress=True)
    written = write_outputs(out, "sample", prepared, result, source)
    comparison = Comparison(prepared, reference_image(full, prepared), device=args.device)
    outcomes = {
        "zero-filled": comparison.zero_filled(),
        "cg-sense": comparison.cg_sense(args.cg_regularisation),
        "mol": comparison.reconstruction(result),
    }
    slices, coils, rows, cols = full.kspace.shape
    print(f"{slices} slices, {coils} coils, {rows} x {cols}; {mask.sum()} of {cols} columns measured")
    print(_table(outcomes))
    print(
        f"{int(result.converged.sum())} of {slices} slices are within {result.tol:g} of the exact equilibrium"
        f" (at worst {result.error_bound.max():.1e}); the model is {result.certificate.kind}"
    )
    print("\n".join(f"  {item}" for item in (path, *written)))
    return EXIT_OK if result.converged.all() else EXIT_NOT_CONVERGED


def _reconstruct(args: argparse.Namespace) -> int:
    inputs = expand_inputs(args.inputs)
    model, source = _load(args)
    settings = Settings(
        maps=None if args.maps == "espirit" else read_maps(args.maps),
        noise_level=args.noise_level,
        device=args.device,
        batch_size=args.batch_size,
        progress=True,
    )
    out = Path(args.out)
    with _usage():
        check_outputs(inputs, out)
        out.mkdir(parents=True, exist_ok=True)
    entries = reconstruct_cohort(inputs, out, model, source, settings, skip_existing=args.skip_existing, report=_report)
    statuses = [entry.status for entry in entries]
    print(f"{len(entries)} volumes, {statuses.count(OK)} ok; see {out / MANIFEST}")
    if all(status == UNREADABLE for status in statuses):
        return EXIT_UNREADABLE
    if UNREADABLE in statuses or FAILED in statuses:
        return EXIT_FAILED
    return EXIT_NOT_CONVERGED if NOT_CONVERGED in statuses else EXIT_OK


def _report(entry: Entry) -> None:
    line = f"{entry.input}: {entry.status}: {entry.message}"
    if entry.status == UNREADABLE:
        line = f"{entry.status}: {entry.message}"  # which names the file
    if entry.status == OK:
        print(line, flush=True)
    else:
        print(f"molrecon: {line}", file=sys.stderr, flush=True)


def _compare(args: argparse.Namespace) -> int:
    volume = read_volume(args.input)
    model = _load(args)[0] if "mol" in args.methods else None
    maps = None if args.maps == "espirit" else read_maps(args.maps)
    seed = file_seed(args.input) if args.seed is None else (args.seed,)
    with _usage():
        draw = random_mask if args.mask == "random" else equispaced_fraction_mask
        mask = draw(volume.kspace.shape[-1], args.accel, args.center_fraction, seed)
        added = args.noise * float(root_sum_of_squares(volume).max()) if args.noise else 0.0
        retrospective = undersample(volume, mask, added, seed)
    prepared = prepare(retrospective, maps, args.noise_level, args.device, progress=True)
    comparison = Comparison(
        prepared, reference_image(volume, prepared), device=args.device, batch_size=args.batch_size, progress=True
    )
    outcomes = {name: _run_method(name, comparison, model, args) for name in args.methods}
    content = {"input": str(args.input), "methods": {name: asdict(outcome.score) for name, outcome in outcomes.items()}}
    if args.json == "-":
        print(json.dumps(plain(content), indent=2, allow_nan=False))
    else:
        print(f"{mask.sum()} of {mask.size} columns measured, noise level {prepared.noise_level:.3g}")
        print(_table(outcomes))
        if args.json is not None:
            with _usage():
                write_json(args.json, content)
    scores = [outcome.score for outcome in outcomes.values()]
    missed = any(score.error_bound is not None and not score.converged for score in scores)
    return EXIT_NOT_CONVERGED if missed else EXIT_OK


def _run_method(name: str, comparison: Comparison, model: MOL | None, args: argparse.Namespace) -> Outcome:
    if name == "zero-filled":
        return comparison.zero_filled()
    if name == "cg-sense":
        return comparison.cg_sense(args.cg_regularisation)
    if name == "l1-wavelet":
        return comparison.l1_wavelet(args.l1_regularisation)
    if model is None:
        raise _UsageError(f"method {name!r}, expected one of {', '.join(METHODS)}")
    return comparison.mol(model)


def _models(args: argparse.Namespace) -> int:
    for name in available_models():
        print(name)
        for key, value in load_card(name).items():
            print(f"    {key}: {value}")
    return EXIT_OK


def _load(args: argparse.Namespace) -> tuple[MOL, ModelSource]:
    with _usage():
        model, source = load_source(args.model)
    model.tol = args.tol or model.tol
    model.max_steps = args.max_steps or model.max_steps
    return model, source


def _table(outcomes: dict[str, Outcome]) -> str:
    lines = [
        f"{'method':<12} {'PSNR dB':>8} {'SSIM':>7} {'NMSE':>8} {'seconds':>8} {'steps':>6} {'bound':>8}"
        "  converged  weight"
    ]
    for name, outcome in outcomes.items():
        score = outcome.score
        bound = "-" if score.error_bound is None else f"{score.error_bound:.1e}"
        converged = {None: "-", True: "yes", False: "NO"}[score.converged]
        weight = "-" if outcome.regularisation is None else f"{outcome.regularisation:.3g}"
        lines.append(
            f"{name:<12} {score.psnr:8.2f} {score.ssim:7.4f} {score.nmse:8.5f} {score.seconds:8.2f}"
            f" {score.iterations:6d} {bound:>8}  {converged:<9}  {weight}"
        )
    return "\n".join(lines)


_COMMANDS = {"demo": _demo, "reconstruct": _reconstruct, "compare": _compare, "models": _models}


if __name__ == "__main__":
    sys.exit(main())

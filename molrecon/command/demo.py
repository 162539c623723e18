"""`molrecon demo`: the whole way from a scan to its images, on a scan that it makes itself."""

from __future__ import annotations

import argparse
import filecmp
from dataclasses import replace
from pathlib import Path

from molrecon.command.compare import MODEL_METHOD
from molrecon.command.shared.arguments import add_cg_regularisation, add_model
from molrecon.command.shared.exit_codes import EXIT_NOT_CONVERGED, EXIT_OK
from molrecon.command.shared.messages import usage, warn

HELP = "a real head, scanned in simulation four times too fast, reconstructed"
DESCRIPTION = "Reconstruct a simulated scan of a real head."

ACCELERATION, CENTER_FRACTION, SEED = 4.0, 0.08, 0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("--out", default="demo", metavar="DIR", help="folder for everything (default: %(default)s)")
    add_model(parser)
    add_cg_regularisation(parser, best=False)


def run(args: argparse.Namespace) -> int:
    """Make the scan, reconstruct it, and print how well that went beside what needs no training."""
    from molrecon.command.shared.inputs import chosen_device, load_chosen_model, weights_files
    from molrecon.io import read_volume
    from molrecon.reconstructors.classical import CGSense
    from molrecon.scans.cohort import check_outputs
    from molrecon.scans.comparison import Comparison, undersample
    from molrecon.scans.comparison_report import comparison_table
    from molrecon.scans.outputs import write_outputs
    from molrecon.scans.preparation import prepare
    from molrecon.scans.reconstruction import reconstruct_prepared
    from molrecon.scans.settings import Settings
    from operators.masks import random_mask

    out, device = Path(args.out), chosen_device(args)
    model, source, solver = load_chosen_model(args)
    with usage():
        path = _make_sample(out / "input" / "sample.h5")
        check_outputs([path], out, weights_files(args.model))
    full = read_volume(path)
    mask = random_mask(full.kspace.shape[-1], ACCELERATION, CENTER_FRACTION, SEED)
    prepared = prepare(undersample(full, mask, 0.0, [SEED]), device=device, progress=True)
    result = reconstruct_prepared(
        prepared, model, solver=solver, device=device, batch_size=args.batch_size, progress=True, keep_residual=True
    )
    settings = Settings(solver=solver, device=device, batch_size=args.batch_size)
    written = write_outputs(out, "sample", prepared, result, source, settings.sha256(model))
    comparison = Comparison(prepared, full, device=device)
    outcomes = {
        "zero-filled": comparison.zero_filled,
        "cg-sense": replace(
            comparison.score("cg-sense", CGSense(args.cg_regularisation)), regularisation=args.cg_regularisation
        ),
        MODEL_METHOD: comparison.reconstruction(result),
    }
    slices, coils, rows, cols = full.kspace.shape
    print(f"{slices} slices, {coils} coils, {rows} x {cols}; {mask.sum()} of {cols} columns measured")
    print(comparison_table(outcomes))
    if result.solver is not None and result.kind != "none":
        print(
            f"{int(result.converged.sum())} of {slices} slices are within {result.solver.tol:g} of the exact"
            f" equilibrium (at worst {result.error_bound.max():.1e}); the model is {result.certificate.kind}"
        )
    print("\n".join(f"  {item}" for item in (path, *written)))
    warn(str(path), result.warnings)
    return EXIT_OK if result.converged.all() else EXIT_NOT_CONVERGED


def _make_sample(path: Path) -> Path:
    """Write the sample scan, and return its path. Raises ValueError where another file is in its place."""
    from molrecon.io import atomic_path
    from molrecon.simulation.sample import write_sample

    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        write_sample(temporary)
        if path.exists() and not filecmp.cmp(temporary, path, shallow=False):
            raise ValueError(
                f"{path}: is there, and is not the scan that this command makes, expected another --out, or that file"
                " to be moved away"
            )
    return path

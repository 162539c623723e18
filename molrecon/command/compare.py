"""`molrecon compare`: methods side by side on a scan whose full data are known."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from molrecon.command.shared.argument_types import methods, positive_or_best
from molrecon.command.shared.arguments import (
    add_cg_regularisation,
    add_data,
    add_json,
    add_map_sets,
    add_model,
    add_undersampling,
)
from molrecon.command.shared.exit_codes import EXIT_NOT_CONVERGED, EXIT_OK
from molrecon.command.shared.messages import UsageError, tell, usage
from molrecon.command.shared.reading import conjugation
from molrecon.reconstructors.defaults import L1_REGULARISATION

if TYPE_CHECKING:
    from molrecon.reconstructors.base import Reconstructor
    from molrecon.scans.comparison import Comparison, ScoredMethod

HELP = "methods side by side on a fully sampled scan"
DESCRIPTION = (
    "Undersample a fully sampled scan and reconstruct it by several methods. Metrics are fastMRI's, against the root"
    " sum of squares of the fully sampled scan when the file carries such a reference, else against its coil-combined"
    " image with the same maps (from the undersampled scan). In the table and the JSON, iterations and error_bound are"
    " those of the worst slice; error_bound is the relative distance to the method's own exact solution: null for"
    " methods that know none (their kind is none); converged is null for methods without one. Methods below"
    " zero-filling in PSNR are marked."
)

MODEL_METHOD = "mol"  # among the methods: the model of --model
METHODS = ("zero-filled", "cg-sense", "l1-wavelet", MODEL_METHOD)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    add_undersampling(parser)
    parser.add_argument(
        "--methods",
        type=methods,
        default=list(METHODS),
        metavar="LIST",
        help="comma-separated: zero-filled, cg-sense, l1-wavelet, packaged models, weights files, and mol for the model"
        f" of --model (default: {','.join(METHODS)})",
    )
    add_json(parser)
    add_cg_regularisation(parser, best=True)
    parser.add_argument(
        "--l1-regularisation",
        type=positive_or_best,
        default=L1_REGULARISATION,
        metavar="W",
        help="weight of the L1 term relative to the brightest zero-filled pixel, or best: the one with the highest PSNR"
        " against the reference (default: %(default)s)",
    )
    add_data(parser)
    add_map_sets(parser)
    add_model(parser)


def run(args: argparse.Namespace) -> int:
    """Undersample the scan, reconstruct it by every method, and print the scores."""
    from molrecon.command.shared.inputs import (
        chosen_device,
        maps_files,
        protect,
        read_chosen_maps,
        undersample_chosen,
        undersampling_settings,
        weights_files,
    )
    from molrecon.io import read_volume
    from molrecon.scans.comparison import Comparison
    from molrecon.scans.comparison_report import comparison_table, describe_comparison
    from molrecon.scans.methods import load_method
    from molrecon.scans.preparation import prepare

    device = chosen_device(args)
    protect([args.json], [args.input, *maps_files(args), *weights_files(args.model, *args.methods)])
    with usage():
        methods = {name: load_method(args.model if name == MODEL_METHOD else name) for name in args.methods}
    for name, (model, _) in methods.items():
        if model.ndim not in (None, 2):
            raise UsageError(f"compare: {name} has {model.ndim} spatial axes, expected a method of single planes")
    volume = read_volume(args.input, conjugate=conjugation(args))
    maps = read_chosen_maps(args)
    prepared = prepare(
        undersample_chosen(volume, args), maps, args.noise_level, device, progress=True, map_sets=args.map_sets
    )
    comparison = Comparison(prepared, volume, device=device, batch_size=args.batch_size, progress=True)
    outcomes = {name: _outcome(name, model, comparison, args) for name, (model, _) in methods.items()}
    sources = {name: source for name, (_, source) in methods.items()}
    content = {"input": str(args.input), **describe_comparison(prepared, sources, outcomes)}
    content["sampling"] |= undersampling_settings(args)
    content["noise"] |= {"added_relative_to_maximum": args.noise}
    sampling = content["sampling"]
    measured = (
        f"{sampling['measured']} of {sampling['of']} columns measured (R = {sampling['acceleration']:.3g}),"
        f" noise level {prepared.noise_level:.3g} ({'estimated' if prepared.noise_estimated else 'given'}),"
        f" coil maps {prepared.maps_source.method}{'' if prepared.sets == 1 else f', {prepared.sets} sets'}"
    )
    tell(args, content, f"{measured}\n{comparison_table(outcomes)}")
    scores = [outcome.score for outcome in outcomes.values()]
    missed = any(score.error_bound is not None and not score.converged for score in scores)
    return EXIT_NOT_CONVERGED if missed else EXIT_OK


def _outcome(name: str, model: Reconstructor, comparison: Comparison, args: argparse.Namespace) -> ScoredMethod:
    """Score a method: classical ones at their weight of the arguments, or at their best; others at the goal given."""
    from molrecon.command.shared.inputs import chosen_solver
    from molrecon.reconstructors.classical import CGSense, L1Wavelet
    from molrecon.scans.comparison import CG_GRID, L1_GRID

    if name == "zero-filled":
        return comparison.zero_filled
    if isinstance(model, CGSense):
        grid = CG_GRID if args.cg_regularisation is None else (args.cg_regularisation,)
        return comparison.tuned(name, CGSense, grid)
    if isinstance(model, L1Wavelet):
        grid = L1_GRID if args.l1_regularisation is None else (args.l1_regularisation,)
        return comparison.tuned(name, L1Wavelet, grid)
    return comparison.score(name, model, solver=chosen_solver(model, args))

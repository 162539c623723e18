"""`molrecon robustness`: how much an image suffers from noise and from the worst perturbations of the data."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from molrecon.command.shared.argument_types import count, sizes, whole_numbers
from molrecon.command.shared.arguments import (
    add_cg_regularisation,
    add_data,
    add_device,
    add_json,
    add_undersampling,
)
from molrecon.command.shared.exit_codes import EXIT_NOT_CONVERGED, EXIT_OK, EXIT_VIOLATED
from molrecon.command.shared.messages import tell, usage
from molrecon.command.shared.reading import conjugation
from molrecon.guarantees.defaults import DRAWS, LEVELS, STEPS
from molrecon.reconstructors.defaults import DEFAULT_MODEL

HELP = "PSNR of perturbed data, random and worst-case, with what is guaranteed"
DESCRIPTION = (
    "Undersample a fully sampled scan, perturb what was measured by growing amounts, and score zero-filled, CG-SENSE"
    " and any trained models: white noise, and for each method the perturbation that lowers its PSNR most, found by"
    " projected gradient ascent. Each d is scored twice: with maps, noise level, scale and phase held fixed, for which"
    " the bounds hold and the ascent is made, and with all of them found anew from the perturbed data, as a user"
    " would. Exit code 6: some image moved farther than its bound."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    add_undersampling(parser)
    parser.add_argument(
        "--models",
        nargs="+",
        default=[DEFAULT_MODEL],
        metavar="NAME_OR_FILE",
        help="packaged models or weights files, equilibrium or unrolled (default: the packaged one)",
    )
    parser.add_argument(
        "--levels",
        type=sizes,
        default=list(LEVELS),
        metavar="LIST",
        help=f"sizes |d| / |b|, comma-separated; 0 is always there (default: {','.join(map('{:g}'.format, LEVELS))})",
    )
    parser.add_argument(
        "--steps", type=count, default=STEPS, metavar="N", help="of the ascent, a level (default: %(default)s)"
    )
    parser.add_argument(
        "--draws", type=count, default=DRAWS, metavar="N", help="of noise, a level (default: %(default)s)"
    )
    parser.add_argument(
        "--slices", type=whole_numbers, metavar="LIST", help="comma-separated, from 0 (default: all that hold data)"
    )
    add_json(parser)
    parser.add_argument("--figure", metavar="FILE", help="write the curves and the worst cases at 5 %% there, as PNG")
    add_cg_regularisation(parser, best=True)
    add_data(parser)
    add_device(parser)


def run(args: argparse.Namespace) -> int:
    """Perturb the scan, score the methods at every level, and print and draw the curves."""
    from molrecon.command.shared.inputs import (
        chosen_device,
        maps_files,
        protect,
        read_chosen_maps,
        sampling_seed,
        undersample_chosen,
        weights_files,
    )
    from molrecon.guarantees.robustness import evaluate, select_slices, take_slices
    from molrecon.guarantees.robustness_report import describe_robustness, robustness_figure, robustness_table
    from molrecon.io import read_volume
    from molrecon.reconstructors.classical import CGSense, ZeroFilled
    from molrecon.scans.comparison import CG_GRID, Comparison, reference_image
    from molrecon.scans.methods import load_method
    from molrecon.scans.preparation import prepare
    from molrecon.scans.quality_page import write_png

    device = chosen_device(args)
    protect([args.json, args.figure], [args.input, *maps_files(args), *weights_files(*args.models)])
    volume = read_volume(args.input, conjugate=conjugation(args))
    maps = read_chosen_maps(args)
    with usage():
        slices = select_slices(volume, args.slices)
        models = {label: load_method(name)[0] for label, name in _labels(args.models).items()}
    if maps is not None and len(maps) == len(volume.kspace):
        maps = maps[slices]
    volume = take_slices(volume, slices)
    prepared = prepare(undersample_chosen(volume, args), maps, args.noise_level, device, progress=True)
    reference = reference_image(volume, prepared)
    weight = args.cg_regularisation
    if weight is None:
        weight = Comparison(prepared, volume, device=device).tuned("cg-sense", CGSense, CG_GRID).regularisation
    methods = {"zero-filled": ZeroFilled(), "cg-sense": CGSense(weight), **models}
    with usage():
        result = evaluate(
            prepared,
            reference,
            methods,
            args.levels,
            draws=args.draws,
            steps=args.steps,
            seed=sampling_seed(args),
            device=device,
            progress=True,
        )
    content = {"input": str(args.input), "slices": slices, "cg_regularisation": weight, **describe_robustness(result)}
    tell(args, content, robustness_table(result))
    if args.figure is not None:
        title = f"{Path(args.input).name}, slice {slices[result.shown_slice]}, R = {args.accel:g}"
        with usage():
            write_png(args.figure, robustness_figure(result, title))
    if any(curve.violations for curve in result.curves.values()):
        return EXIT_VIOLATED
    return EXIT_OK if all(curve.converged for curve in result.curves.values()) else EXIT_NOT_CONVERGED


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

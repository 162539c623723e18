"""`molrecon certify`: what is guaranteed about a model, and a search for contradictions of it."""

from __future__ import annotations

import argparse

from molrecon.command.shared.arguments import ESTIMATED_MAPS, add_data, add_device
from molrecon.command.shared.exit_codes import EXIT_NOT_CONVERGED, EXIT_OK, EXIT_VIOLATED
from molrecon.command.shared.messages import tell, usage
from molrecon.command.shared.reading import conjugation

HELP = "what is guaranteed about a model, and a search for violations of it"
DESCRIPTION = (
    "Print what is guaranteed about a model, and look for contradictions of it on a scan: one equilibrium from five"
    " starts, decrease of the error bound, local Lipschitz constant and monotonicity, random and worst-case"
    " perturbations of k-space and coil maps. Exit code 0: none was found, 6: some were, 5: none was found but the"
    " solver did not converge. Finding none proves nothing; a certificate of kind certified is a proof."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument(
        "model", metavar="MODEL", help="packaged model, safetensors file, or published MOL weights (.pth.tar)"
    )
    parser.add_argument(
        "--data",
        metavar="FILE",
        help="the scan; its brightest slice is used, undersampled fourfold if it is fully sampled (default: a small"
        " simulated one)",
    )
    parser.add_argument(
        "--json",
        metavar="FILE",
        help="write the findings there as well: the certificate's fields kind, lipschitz, monotonicity, contraction,"
        " robustness at the top; - prints them, and nothing else, to stdout",
    )
    add_data(parser)
    add_device(parser)


def run(args: argparse.Namespace) -> int:
    """Put the model to the test, and print what was found."""
    from molrecon.command.shared.inputs import chosen_device, maps_files, protect, read_chosen_maps, weights_files
    from molrecon.guarantees.certify import certify, sample_problem, volume_problem
    from molrecon.guarantees.certify_report import as_dict, describe
    from molrecon.io import read_volume
    from molrecon.reconstructors.mol import MOL
    from molrecon.weights import load

    device = chosen_device(args)
    protect([args.json], [args.data, *maps_files(args), *weights_files(args.model)])
    with usage():
        model = load(args.model, MOL).to(device)
        if args.data is None:
            if args.maps != ESTIMATED_MAPS or args.noise_level is not None or conjugation(args) is not None:
                raise ValueError("certify: --maps, --noise-level or --conjugate without --data, expected them together")
            problem = sample_problem(model.network.ndim)
        else:
            volume = read_volume(args.data, conjugate=conjugation(args))
            problem = volume_problem(volume, read_chosen_maps(args), args.noise_level, device)
        findings = certify(model, problem)
    tell(args, as_dict(findings), describe(findings))
    if findings.violations:
        return EXIT_VIOLATED
    return EXIT_OK if findings.converged else EXIT_NOT_CONVERGED

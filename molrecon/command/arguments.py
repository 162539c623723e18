"""The arguments of the `molrecon` command."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from molrecon.command.argument_types import at_least_one, count, device, fraction, not_negative, positive, seed
from molrecon.guarantees.defaults import DRAWS, LEVELS, STEPS
from molrecon.reconstructors.defaults import CG_REGULARISATION, DEFAULT_BATCH_SIZE, DEFAULT_MODEL, L1_REGULARISATION
from molrecon.sensing.ratios import DEFAULT_IMAGER, MEASUREMENTS

MODEL_METHOD = "mol"  # among the methods of `compare`: the model of --model
METHODS = ("zero-filled", "cg-sense", "l1-wavelet", MODEL_METHOD)


def build_parser(description: str) -> argparse.ArgumentParser:
    """Return the parser; `description` is the text above the list of commands, with the exit codes."""
    parser = argparse.ArgumentParser(
        prog="molrecon", description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", action="version", version=f"molrecon {_version()} (torch {_torch_version()})")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_CommandParser)
    _add_demo(
        commands.add_parser(
            "demo",
            help="reconstruct a simulated scan of a real head",
            description="Reconstruct a simulated scan of a real head.",
        )
    )
    _add_reconstruct(
        commands.add_parser(
            "reconstruct",
            help="reconstruct scans",
            description="Reconstruct scans. For every input NAME the folder receives NAME.nii.gz, NAME.h5 (fastMRI"
            " submission), NAME.png (quality page) and NAME.json (sidecar), records/NAME.json what became of it, and"
            " manifest.json lists all that was ever reconstructed there. Existing files are replaced."
            " Inputs of the same name get their parent folder's name in front.",
        )
    )
    _add_compare(
        commands.add_parser(
            "compare",
            help="methods side by side on a fully sampled scan",
            description="Undersample a fully sampled scan and reconstruct it by several methods. Metrics are"
            " fastMRI's, against the root sum of squares of the fully sampled scan when the file carries such a"
            " reference, else against its coil-combined image with the same maps (from the undersampled scan)."
            " In the table and the JSON, iterations and error_bound are those of the worst slice; error_bound is the"
            " relative distance to the method's own exact solution: null for methods that know none (their kind is"
            " none); converged is null for methods without one. Methods below zero-filling in PSNR are marked.",
        )
    )
    _add_certify(
        commands.add_parser(
            "certify",
            help="a model's certificate, and a search for violations of it",
            description="Print what is guaranteed about a model, and look for contradictions of it on a scan: one"
            " equilibrium from five starts, decrease of the error bound, local Lipschitz constant and monotonicity,"
            " random and worst-case perturbations of k-space and coil maps. Exit code 0: none was found, 6: some were,"
            " 5: none was found but the solver did not converge. Finding none proves nothing; a certificate of kind"
            " certified is a proof.",
        )
    )
    _add_robustness(
        commands.add_parser(
            "robustness",
            help="PSNR of perturbed data, random and worst-case",
            description="Undersample a fully sampled scan, perturb what was measured by growing amounts, and score"
            " zero-filled, CG-SENSE and any trained models: white noise, and for each method the perturbation that"
            " lowers its PSNR most, found by projected gradient ascent. Each d is scored twice: with maps, noise level,"
            " scale and phase held fixed, for which the bounds hold and the ascent is made, and with all of them found"
            " anew from the perturbed data, as a user would. Exit code 6: some image moved farther than its bound.",
        )
    )
    _add_cs(
        commands.add_parser(
            "cs",
            help="compressed sensing of a photograph",
            description="Measure a grey or colour image by simulation, 33 x 33 blocks by random numbers, every colour"
            " channel apart; reconstruct it from the measurements alone, save it, and print PSNR and SSIM.",
        )
    )
    train = commands.add_parser(
        "train",
        help="train a reconstructor of your own",
        description="Train a reconstructor on fastMRI files (undersampled anew for every problem), or on image stacks"
        " with simulated coils. The folder receives NAME.safetensors and its card NAME.json, log.csv, train.log and"
        " checkpoint.pt, from which the same command goes on where it was stopped; another command, with other data or"
        " settings, is refused. Several GPUs or processes:"
        " torchrun --nproc-per-node N -m molrecon train ... Exit code 4: trained, but some of the files could not be"
        " used; they are listed.",
    )
    train.later = _add_train
    models = commands.add_parser("models", help="list the packaged models", description="List the packaged models.")
    _add_verbose(models)
    return parser


class _CommandParser(argparse.ArgumentParser):
    """The parser of one command, which can wait for some of its arguments until it is asked to parse."""

    later: Callable[[argparse.ArgumentParser], None] | None = None

    def parse_known_args(self, *args: Any, **kwargs: Any) -> Any:
        if self.later is not None:
            self.later(self)
            self.later = None
        return super().parse_known_args(*args, **kwargs)


def _add_train(parser: argparse.ArgumentParser) -> None:
    from molrecon.command.train import add_train_arguments  # their defaults need torch

    add_train_arguments(parser)
    _add_device(parser)
    _add_verbose(parser)


def _add_demo(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", default="demo", metavar="DIR", help="folder for everything (default: %(default)s)")
    _add_model(parser)
    _add_cg_regularisation(parser, best=False)


def _add_reconstruct(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "inputs",
        nargs="+",
        metavar="INPUT",
        help="fastMRI or ISMRMRD HDF5, .npy (coil, rows, cols) or (slice, coil, rows, cols), BART .cfl, or a folder",
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for the outputs")
    parser.add_argument(
        "--resume",
        "--skip-existing",
        action="store_true",
        help="keep complete outputs of an earlier run with the same input, weights and settings, by their hashes",
    )
    parser.add_argument(
        "--strict",
        action="store_true",
        help="exit with code 5 when there are warnings about the data, which are printed in any case",
    )
    _add_data(parser)
    _add_model(parser)


def _add_compare(parser: argparse.ArgumentParser) -> None:
    _add_undersampling(parser)
    parser.add_argument(
        "--methods",
        type=_methods,
        default=list(METHODS),
        metavar="LIST",
        help="comma-separated: zero-filled, cg-sense, l1-wavelet, packaged models, weights files, and mol for the model"
        f" of --model (default: {','.join(METHODS)})",
    )
    _add_json(parser)
    _add_cg_regularisation(parser, best=True)
    parser.add_argument(
        "--l1-regularisation",
        type=_positive_or_best,
        default=L1_REGULARISATION,
        metavar="W",
        help="weight of the L1 term relative to the brightest zero-filled pixel, or best: the one with the highest PSNR"
        " against the reference (default: %(default)s)",
    )
    _add_data(parser)
    _add_model(parser)


def _add_certify(parser: argparse.ArgumentParser) -> None:
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
    _add_data(parser)
    _add_device(parser)
    _add_verbose(parser)


def _add_robustness(parser: argparse.ArgumentParser) -> None:
    _add_undersampling(parser)
    parser.add_argument(
        "--models",
        nargs="+",
        default=[DEFAULT_MODEL],
        metavar="NAME_OR_FILE",
        help="packaged models or weights files, equilibrium or unrolled (default: the packaged one)",
    )
    parser.add_argument(
        "--levels",
        type=_levels,
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
        "--slices", type=_slices, metavar="LIST", help="comma-separated, from 0 (default: all that hold data)"
    )
    _add_json(parser)
    parser.add_argument("--figure", metavar="FILE", help="write the curves and the worst cases at 5 %% there, as PNG")
    _add_cg_regularisation(parser, best=True)
    _add_data(parser)
    _add_device(parser)
    _add_verbose(parser)


def _add_cs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--image", required=True, metavar="FILE", help="8-bit image: PNG, TIFF, BMP, JPEG, ...")
    parser.add_argument(
        "--ratio",
        type=int,
        choices=tuple(MEASUREMENTS),
        default=25,
        help="measured numbers over pixels, in percent (default: %(default)s)",
    )
    parser.add_argument(
        "--model",
        default=DEFAULT_IMAGER,
        metavar="NAME",
        help="packaged imager, safetensors file that examples/train_cs.py wrote, or published ISTA-Net+ weights"
        " (cs_ratio_R.pkl) (default: %(default)s, for 10 and 25 %%)",
    )
    parser.add_argument("--out", metavar="FILE", help="image to write (default: IMAGE-RATIO.png in this folder)")
    parser.add_argument("--json", metavar="FILE", help="write the numbers there as well; - prints them to stdout only")
    _add_device(parser)
    _add_verbose(parser)


def _add_undersampling(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("input", metavar="INPUT", help="a fully sampled scan")
    parser.add_argument("--accel", type=at_least_one, default=4.0, metavar="R", help="acceleration (default: 4)")
    parser.add_argument(
        "--mask",
        choices=("random", "equispaced"),
        default="random",
        help="fastMRI's kinds of mask (default: %(default)s)",
    )
    parser.add_argument(
        "--center-fraction", type=fraction, default=0.08, metavar="f", help="share of central columns (default: 0.08)"
    )
    parser.add_argument(
        "--noise",
        type=not_negative,
        default=0.0,
        metavar="SIGMA",
        help="standard deviation of the complex noise that is added, relative to the maximum of the image (root sum of"
        " squares of the coils); default: 0",
    )
    parser.add_argument(
        "--seed",
        type=seed,
        metavar="S",
        help="of mask and noise: the mask is operators.random_mask's or equispaced_fraction_mask's with the seed [S]"
        " (default: from the file's name, as fastMRI does)",
    )


def _add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--maps",
        default="espirit",
        metavar="espirit|FILE",
        help="coil sensitivity maps: estimated from the calibration region (default), or .npy or BART .cfl"
        " (slices or 1, coil, rows, cols)",
    )
    parser.add_argument(
        "--noise-level",
        type=not_negative,
        metavar="SIGMA",
        help="complex noise standard deviation of a k-space sample, in the units of the input (default: estimated)",
    )


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model",
        default=DEFAULT_MODEL,
        metavar="NAME_OR_FILE",
        help="packaged model, weights file, or a method without training: zero-filled, cg-sense, l1-wavelet"
        " (default: %(default)s)",
    )
    _add_device(parser)
    parser.add_argument(
        "--tol", type=positive, metavar="T", help="relative error bound to reach (default: the model's)"
    )
    parser.add_argument("--max-steps", type=count, metavar="N", help="most iterations a slice (default: the model's)")
    parser.add_argument(
        "--batch-size",
        type=count,
        default=DEFAULT_BATCH_SIZE,
        metavar="N",
        help="slices at a time (default: %(default)s)",
    )
    _add_verbose(parser)


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--json", metavar="FILE", help="write the numbers there as well; - prints them, and nothing else, to stdout"
    )


def _add_verbose(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--verbose", action="store_true", help="show log messages, and tracebacks of errors")


def _add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--device",
        type=device,
        metavar="D",
        help="cpu, cuda, cuda:1, ... (default: cuda where there is one, else cpu)",
    )


def _add_cg_regularisation(parser: argparse.ArgumentParser, best: bool) -> None:
    also = ", or best: the one with the highest PSNR against the reference" if best else ""
    parser.add_argument(
        "--cg-regularisation",
        type=_positive_or_best if best else positive,
        default=CG_REGULARISATION,
        metavar="W",
        help=f"weight of CG-SENSE's Tikhonov term{also} (default: %(default)s)",
    )


def _positive_or_best(text: str) -> float | None:
    return None if text == "best" else positive(text)


def _levels(text: str) -> list[float]:
    return [not_negative(part) for part in text.split(",")]


def _slices(text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r}, expected whole numbers, comma-separated")
    return [int(part) for part in parts]


def _methods(text: str) -> list[str]:
    names = list(dict.fromkeys(name.strip() for name in text.split(",")))
    if "" in names:
        raise argparse.ArgumentTypeError(f"{text!r}, expected methods, comma-separated")
    return names


def _version() -> str:
    try:
        return metadata.version("molrecon")
    except metadata.PackageNotFoundError:
        return "(not installed)"


def _torch_version() -> str:
    """Return `torch.__version__` without the second that importing torch takes; it names the build, metadata do not."""
    spec = find_spec("torch")
    if spec is None or spec.origin is None:
        return "(not installed)"
    found = re.search(
        r"^__version__ = ['\"](.+)['\"]$", Path(spec.origin).with_name("version.py").read_text("utf-8"), re.M
    )
    return metadata.version("torch") if found is None else found[1]

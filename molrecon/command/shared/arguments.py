"""The arguments that several commands share. They are said here once; `inputs` makes of them what they name."""

from __future__ import annotations

import argparse

from molrecon.command.shared.argument_types import (
    at_least_one,
    count,
    count_or_auto,
    device,
    fraction,
    not_negative,
    positive,
    positive_or_best,
    seed,
)
from molrecon.command.shared.reading import add_conjugate
from molrecon.reconstructors.defaults import (
    AUTOMATIC,
    CG_REGULARISATION,
    DEFAULT_BATCH_SIZE,
    DEFAULT_MODEL,
    SERIES_MODEL,
)

ESTIMATED_MAPS = "espirit"  # what --maps says where no file holds them


def add_undersampling(parser: argparse.ArgumentParser) -> None:
    """Add the scan that is undersampled, and how."""
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


def add_data(parser: argparse.ArgumentParser) -> None:
    """Add how scans are read, the coil maps and the noise level."""
    add_conjugate(parser)
    parser.add_argument(
        "--maps",
        default=ESTIMATED_MAPS,
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


def add_map_sets(parser: argparse.ArgumentParser) -> None:
    """Add the number of sets of estimated coil maps."""
    parser.add_argument(
        "--map-sets",
        type=int,
        choices=(1, 2),
        help="sets of coil maps to estimate; two explain an object that is larger than the field of view, of which"
        " methods that take one set use the first (default: as many as the data ask for)",
    )


def add_compression(parser: argparse.ArgumentParser) -> None:
    """Add the compression of coils."""
    parser.add_argument(
        "--virtual-coils",
        dest="compress",
        type=count_or_auto,
        metavar="N|auto",
        help="mix the coils to N virtual ones before anything else is done, which takes less time by as much; auto: as"
        " few as lose a tenth of the noise's energy at most. The sidecar says what they leave out (default: all coils)",
    )


def add_adaptation(parser: argparse.ArgumentParser) -> None:
    """Add the adaptation of a learned prior's strength."""
    parser.add_argument(
        "--adapt",
        action="store_true",
        help="choose the strength of a learned prior by measured lines that are withheld from a few slices, in place of"
        " the noise level alone; for irregular sampling. Certificate and bound are those of the strength chosen, which"
        " the sidecar says",
    )


def add_memory(parser: argparse.ArgumentParser) -> None:
    """Add the memory that a process may hold."""
    parser.add_argument(
        "--memory",
        metavar="SIZE",
        help="what each process may hold at most, such as 8GiB: tiles of the network, slices at a time and precision"
        " are chosen for it, and large arrays put on the disk of --out (default: no limit)",
    )


def add_model(parser: argparse.ArgumentParser, *, by_scan: bool = False) -> None:
    """Add the method that reconstructs, where it runs, and how far; if `by_scan`, it may follow from each scan."""
    also = (
        f"auto: {DEFAULT_MODEL} for slices and the planes of 3D scans, {SERIES_MODEL} for series whose frames are"
        " accelerated too much to stand alone; or a "
    )
    parser.add_argument(
        "--model",
        default=AUTOMATIC if by_scan else DEFAULT_MODEL,
        metavar="auto|NAME_OR_FILE" if by_scan else "NAME_OR_FILE",
        help=f"{also if by_scan else ''}packaged model, weights file, or a method without training: zero-filled,"
        " cg-sense, l1-wavelet (default: %(default)s)",
    )
    add_device(parser)
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


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add the file of the numbers."""
    parser.add_argument(
        "--json", metavar="FILE", help="write the numbers there as well; - prints them, and nothing else, to stdout"
    )


def add_verbose(parser: argparse.ArgumentParser) -> None:
    """Add what every command has."""
    parser.add_argument("--verbose", action="store_true", help="show log messages, and tracebacks of errors")


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add the device; where the user names none, it is chosen before the command runs."""
    parser.add_argument(
        "--device",
        type=device,
        metavar="D",
        help="cpu, cuda, cuda:1, ... (default: cuda where there is one, else cpu)",
    )


def add_cg_regularisation(parser: argparse.ArgumentParser, best: bool) -> None:
    """Add the weight of CG-SENSE; if `best`, it may be found from the reference."""
    also = ", or best: the one with the highest PSNR against the reference" if best else ""
    parser.add_argument(
        "--cg-regularisation",
        type=positive_or_best if best else positive,
        default=CG_REGULARISATION,
        metavar="W",
        help=f"weight of CG-SENSE's Tikhonov term{also} (default: %(default)s)",
    )

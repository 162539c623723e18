"""How scans are read: the arguments for it, and what they choose."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from molrecon.scans.scan import Reading

CONJUGATE = {"yes": True, "no": False, "auto": None}


def add_conjugate(parser: argparse.ArgumentParser) -> None:
    """Add whether MRD data are conjugated."""
    parser.add_argument(
        "--conjugate",
        choices=tuple(CONJUGATE),
        default="auto",
        help="conjugate ISMRMRD data, without which images of some vendors are upside down and mirrored (default: auto,"
        " as the vendor in the header asks for)",
    )


def add_geometry(parser: argparse.ArgumentParser) -> None:
    """Add the image that scans without a geometry take theirs from."""
    parser.add_argument(
        "--geometry",
        metavar="FILE",
        help="a NIfTI or DICOM image (or a folder with a DICOM series) of the same exam, in the place of the scan:"
        " where the voxels are in the patient is taken from it for scans that do not say (fastMRI, .npy, BART). It"
        " needs as many slices and the same field of view, and has to look like the scan",
    )
    parser.add_argument(
        "--geometry-axes",
        choices=("found", "stored"),
        default="found",
        help="how rows, columns and slices of that image lie to those of the scan: found by looking at both (default),"
        " or stored: they are the same, for images of another contrast",
    )


def conjugation(args: argparse.Namespace) -> bool | None:
    """Return what `--conjugate` says, as the readers take it."""
    return CONJUGATE[args.conjugate]


def geometry_files(args: argparse.Namespace) -> list[Path]:
    """Return the file or folder of `--geometry`, if it names one."""
    return [] if args.geometry is None else [Path(args.geometry)]


def chosen_reading(args: argparse.Namespace) -> Reading:
    """Return how the scans are read: with the geometry of `--geometry`, else of a series that is the DICOM template.

    Raises:
        UsageError: axes without an image, or DICOM without pydicom. UnreadableInput: an image that cannot be used.
    """
    from molrecon.command.shared.messages import UsageError
    from molrecon.io import read_placed_image
    from molrecon.scans.scan import Reading

    image = args.geometry
    if image is None and args.dicom_template is not None and Path(args.dicom_template).is_dir():
        image = args.dicom_template
    if image is None:
        if args.geometry_axes != "found":
            raise UsageError("reconstruct: --geometry-axes without --geometry, expected both")
        return Reading(conjugation(args))
    try:
        return Reading(conjugation(args), read_placed_image(image), args.geometry_axes)
    except ModuleNotFoundError:
        raise UsageError(
            "reconstruct: a geometry from DICOM needs pydicom, expected it: pip install 'molrecon[dicom]'"
        ) from None

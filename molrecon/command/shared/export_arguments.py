"""Arguments of outputs beside the ordinary ones: DICOM and BIDS."""

from __future__ import annotations

import argparse


def add_exports(parser: argparse.ArgumentParser) -> None:
    """Add the options for DICOM and BIDS."""
    parser.add_argument(
        "--dicom",
        nargs="?",
        const="classic",
        choices=("classic", "enhanced"),
        help="write DICOM as well, of scans that say where they were in the patient: classic, a folder NAME.dicom with"
        " a file a slice (default), or enhanced, one file NAME.dcm. Needs pydicom",
    )
    parser.add_argument(
        "--dicom-template",
        metavar="FILE|DIR",
        help="a DICOM file of the same exam: patient, study and frame of reference come from it alone (default: patient"
        " ANON, a study for each input). A folder with a series in the place of the scans also tells where scans lie"
        " that do not say, as --geometry does",
    )
    parser.add_argument(
        "--bids",
        metavar="DIR",
        help="write BIDS derivatives into this data set as well; what an input is comes from --subject, or from a table"
        " (tabs) given as --inputs-from, with the columns input, subject and, as wanted, session, suffix, run",
    )
    parser.add_argument("--subject", metavar="L", help="label of the subject; several inputs are its runs 1, 2, ...")
    parser.add_argument("--session", default="", metavar="L", help="label of the session (default: none)")
    parser.add_argument(
        "--suffix",
        metavar="S",
        help="of BIDS: T1w, T2w, PDw, FLAIR, ... (default: what the sequence in each header tells, where it does; not"
        " with --shard)",
    )

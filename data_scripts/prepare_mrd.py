"""Lay out public ISMRMRD (MRD) raw data of a scanner: Cartesian, radial and spiral.

Where from (CC BY 4.0, Physikalisch-Technische Bundesanstalt; 16 coils, 3 T):

  https://zenodo.org/records/15223816    2D Cartesian MR raw data, Kolbitsch, 2025, version v2
    cart_t1.mrd                                     51 MB    every line
    cart_t1_msense_integrated.mrd                   44 MB    every second line, with calibration lines between them
    cart_t1_partial_echo_partial_fourier.mrd        46 MB    asymmetric in both directions
  https://zenodo.org/records/14617082    2D Radial MR raw data and Pulseq sequences, Schuenke, 2025, version v1
    radial2D_24spokes_golden_angle_with_traj.h5     0.9 MB   24 spokes, with their coordinates
  https://zenodo.org/records/18749100    2D Multi-echo TSE spiral MR raw data, Schuenke and Kolbitsch, 2026, version v1
    spiral_tse_tr_4000_te_16_nechos_10_nspirals_160_with_traj.mrd    21 MB    spirals in ten echoes, with coordinates

Put the files into one folder and run: python data_scripts/prepare_mrd.py --source FOLDER --out DATA
With --download what is missing there is fetched first. A file that does not have its hash is never laid out.

The sha256 in the table are those of files whose md5, which stand below, are the ones that Zenodo shows.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from data_scripts import _common as common
from molrecon.io import atomic_path

# Name -> Zenodo's record, and the md5 that it shows.
FILES = {
    "cart_t1.mrd": (15223816, "45a3698b0c3b14de224172b7be46ac34"),
    "cart_t1_msense_integrated.mrd": (15223816, "4678ea99f7f9bcdd48127abef044dfe6"),
    "cart_t1_partial_echo_partial_fourier.mrd": (15223816, "6c069c1e804e25b3942bf10f6abde2db"),
    "radial2D_24spokes_golden_angle_with_traj.h5": (14617082, "9a82b5f9c6f27a3db64fd8f7be65cfa3"),
    "spiral_tse_tr_4000_te_16_nechos_10_nspirals_160_with_traj.mrd": (18749100, "a8ba3d8375a7bed3af36d535386fd709"),
}
BLOCK = 1 << 20
SECONDS = 60  # without an answer, until a download is given up

Opener = Callable[[str], AbstractContextManager[BinaryIO]]


def url_of(name: str) -> str:
    """Return where Zenodo serves a file of FILES."""
    return f"https://zenodo.org/api/records/{FILES[name][0]}/files/{name}/content"


def open_url(url: str) -> AbstractContextManager[BinaryIO]:
    """Open a file of the network for reading. Raises OSError."""
    return urllib.request.urlopen(url, timeout=SECONDS)


def download(name: str, folder: Path, *, opener: Opener = open_url) -> None:
    """Fetch a file of FILES into a folder, whole and with the md5 that Zenodo shows, or not at all.

    Raises:
        common.Unusable: what came has another md5.
        OSError: nothing came.
    """
    folder.mkdir(parents=True, exist_ok=True)
    digest = hashlib.md5(usedforsecurity=False)
    with atomic_path(folder / name) as temporary:
        with opener(url_of(name)) as source, temporary.open("wb") as file:
            while block := source.read(BLOCK):
                digest.update(block)
                file.write(block)
        if digest.hexdigest() != FILES[name][1]:
            raise common.Unusable(f"{url_of(name)}: md5 {digest.hexdigest()}, expected {FILES[name][1]}")


def fetch_missing(
    source: Path, out: Path, checksums: Mapping[str, str], *, opener: Opener = open_url
) -> dict[str, str]:
    """Download what is neither below source nor laid out, and return why for each file that did not come."""
    failed: dict[str, str] = {}
    there = {common.sha256(path) for path in common.files_below(source, (".mrd", ".h5"))} if source.is_dir() else set()
    for path, expected in checksums.items():
        laid_out = out / path
        if expected in there or (laid_out.is_file() and common.sha256(laid_out) == expected):
            continue
        try:
            download(Path(path).name, source, opener=opener)
        except (OSError, common.Unusable) as error:
            failed[path] = str(error)
    return failed


def main(arguments: Sequence[str] | None = None, *, opener: Opener = open_url) -> int:
    """Return the exit code: 0 all there, 1 files missing or corrupt, 2 bad arguments."""
    parser: argparse.ArgumentParser = common.parser(__doc__)
    parser.add_argument("--download", action="store_true", help="fetch what is missing in the source folder first")
    options = parser.parse_args(arguments)
    try:
        table = common.read_checksums(common.CHECKSUMS / "mrd.sha256")
        if options.download:
            for path, reason in fetch_missing(options.source, options.out, table, opener=opener).items():
                print(f"not downloaded: {path} ({reason})", file=sys.stderr)
            options.source.mkdir(parents=True, exist_ok=True)
        reports = [common.lay_out(options.source, options.out, table)]
    except common.Unusable as error:
        parser.error(str(error))
    return common.finish("MRD raw data", reports, __doc__)


if __name__ == "__main__":
    raise SystemExit(main())

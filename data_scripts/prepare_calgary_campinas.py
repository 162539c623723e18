"""Lay out the Calgary-Campinas (CC359) multi-channel raw data you have downloaded, and check every volume.

Where from: https://sites.google.com/view/calgary-campinas-dataset/home, Raw-data/Multi-channel:
train_val_12_channel.zip (47 and 20 volumes, fully sampled), test_12_channel.zip and test_32_channel.zip (50 volumes
each, undersampled). The place of the files has moved before, so this script downloads nothing. Unpack them first.
Licence: Creative Commons Attribution-NoDerivatives 4.0. Cite Souza et al., NeuroImage 170 (2018).

A volume is hybrid data (x, ky, kz, 2 * channels): already transformed along the readout, NOT centred (zero frequency
first), real and imaginary parts alternating in the last axis.

Result: calgary_campinas/<12 or 32>-channel/<folder>/e*.h5, the folder being the one the volume lies in (Train, Val,
Test-R=5, Test-R=10). The publishers give no hashes. The first run writes calgary_campinas/SHA256SUMS; later runs
compare with it, and so can a colleague who got yours (--checksums).

Run: python data_scripts/prepare_calgary_campinas.py --source FOLDER --out DATA
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import h5py

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from data_scripts import _common as common
from molrecon.io import atomic_path

ROOT = "calgary_campinas"
CHANNELS = (12, 32)
KY = 218


def channels_of(path: Path) -> int:
    """Return the number of channels, 12 or 32, of a volume whose structure is sound.

    Raises:
        Unusable: not HDF5, truncated, or kspace that is not (x, 218, kz, 24 or 64).
    """
    try:
        with h5py.File(path, "r") as file:
            shape = file["kspace"].shape
            file["kspace"][shape[0] - 1]
    except (OSError, KeyError, AttributeError, IndexError, ValueError) as error:
        raise common.Unusable(f"{path}: {error}, expected a Calgary-Campinas volume with kspace") from error
    if len(shape) != 4 or shape[1] != KY or shape[3] not in {2 * n for n in CHANNELS}:
        raise common.Unusable(f"{path}: kspace of shape {shape}, expected (x, {KY}, kz, 24 or 64)")
    return int(shape[3]) // 2


def lay_out(source: Path, out: Path, checksums: dict[str, str], link: bool) -> tuple[common.Report, dict[str, str]]:
    """Place every volume below source; also the table of what lies in out now, known hashes included."""
    report, table = common.Report(), dict(checksums)
    for path in common.files_below(source, {".h5", ".hdf5"}):
        try:
            channels = channels_of(path)
        except common.Unusable as error:
            report.corrupt.append(str(error))
            continue
        name = f"{ROOT}/{channels}-channel/{path.parent.name}/{path.name}"
        target, digest = out / name, common.sha256(path)
        if table.setdefault(name, digest) != digest:
            report.corrupt.append(f"{name} ({path} has sha256 {digest}, expected {table[name]})")
        elif target.is_file() and common.sha256(target) == digest:
            report.kept.append(name)
        else:
            common.place(path, target, link)
            report.placed.append(name)
    done = {*report.placed, *report.kept, *(line.split(" (")[0] for line in report.corrupt)}
    for name in sorted(set(table) - done):
        target = out / name
        if not target.is_file():
            report.missing.append(name)
        elif common.sha256(target) != table[name]:
            report.corrupt.append(f"{name} (in the data folder, not as in the table of hashes)")
        else:
            report.kept.append(name)
    return report, table


def main(arguments: Sequence[str] | None = None) -> int:
    """Return the exit code: 0 all there, 1 files missing or corrupt, 2 bad arguments."""
    parser = common.parser(__doc__)
    parser.add_argument(
        "--checksums", type=Path, help="a table of sha256 to compare with (default: that of the last run)"
    )
    parser.add_argument("--link", action="store_true", help="hard links instead of copies")
    options = parser.parse_args(arguments)
    last = options.out / ROOT / "SHA256SUMS"
    try:
        known = options.checksums or (last if last.is_file() else None)
        report, table = lay_out(
            options.source, options.out, common.read_checksums(known) if known else {}, options.link
        )
    except common.Unusable as error:
        parser.error(str(error))
    if table:
        last.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(last) as temporary:
            temporary.write_text("".join(f"{digest}  {name}\n" for name, digest in sorted(table.items())), "utf-8")
    elif not report.corrupt:
        report.missing.append(f"any .h5 volume below {options.source}")
    return common.finish("Calgary-Campinas", [report], __doc__)


if __name__ == "__main__":
    raise SystemExit(main())

"""Lay out the fastMRI data you have downloaded: check the archives, unpack them, check every volume.

Where from: https://fastmri.med.nyu.edu. Accept the data use agreement there; an e-mail brings personal links that
expire, to archives of about 90 GB each (knee_multicoil_val.tar.xz, brain_multicoil_val_batch_0.tar.xz, ...) and to a
list of their sha256. There is no public link, so this script downloads nothing.
Licence: the fastMRI data use agreement: internal research or education, no redistribution, no attempt to identify
anybody. Cite Zbontar et al., arXiv:1811.08839, and Knoll et al., Radiology: AI 2 (2020).

--source is a folder with archives, or with .h5 volumes already unpacked, or both, at any depth. Archives are compared
with --checksums (the list from the e-mail). Result: fastmri/<knee or brain>/<split>/file*.h5; the split, such as
multicoil_val, is the name of the folder a volume lies in.

Run: python data_scripts/prepare_fastmri.py --source FOLDER --checksums SHA256 --out DATA
"""

from __future__ import annotations

import lzma
import shutil
import sys
import tarfile
import zlib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import h5py

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from data_scripts import _common as common
from molrecon.io import atomic_path

ARCHIVES = (".tar.xz", ".tar.gz", ".tgz", ".tar")
SPLITS = tuple(
    f"{kind}_{part}" for kind in ("multicoil", "singlecoil") for part in ("train", "val", "test", "challenge")
)


def check_volume(path: Path) -> str:
    """Return the anatomy, "knee" or "brain", of a fastMRI volume whose structure is sound.

    Raises:
        Unusable: not HDF5, truncated, without kspace of rank 3 or 4, or without an ISMRMRD header.
    """
    try:
        with h5py.File(path, "r") as file:
            shape, acquisition = file["kspace"].shape, str(file.attrs.get("acquisition", ""))
            file["kspace"][shape[0] - 1]
            if "ismrmrd_header" not in file:
                raise KeyError("no ismrmrd_header")
    except (OSError, KeyError, AttributeError, IndexError, ValueError) as error:
        raise common.Unusable(f"{path}: {error}, expected a fastMRI volume with kspace and ismrmrd_header") from error
    if len(shape) not in {3, 4}:
        raise common.Unusable(f"{path}: kspace of shape {shape}, expected (slices, [coils,] rows, cols)")
    return "brain" if acquisition.upper().startswith("AX") or "brain" in path.name else "knee"


def target_of(path: Path, out: Path) -> Path:
    """Where a checked volume belongs.

    Raises:
        Unusable: unsound, or not in a folder named like a split.
    """
    anatomy = check_volume(path)
    splits = [parent.name for parent in path.parents if parent.name in SPLITS]
    if not splits:
        raise common.Unusable(f"{path}: in folder {path.parent.name}, expected one of {', '.join(SPLITS)}")
    return out / "fastmri" / anatomy / splits[0] / path.name


def lay_out_volumes(source: Path, out: Path, link: bool) -> common.Report:
    """Place every .h5 below source; a volume that lies in out with the same bytes is kept."""
    report = common.Report()
    for path in common.files_below(source, {".h5"}):
        try:
            target = target_of(path, out)
        except common.Unusable as error:
            report.corrupt.append(str(error))
            continue
        name = target.relative_to(out).as_posix()
        if target.is_file() and (target.samefile(path) or common.sha256(target) == common.sha256(path)):
            report.kept.append(name)
        else:
            common.place(path, target, link)
            report.placed.append(name)
    return report


def check_archives(archives: Sequence[Path], checksums: dict[str, str]) -> tuple[list[Path], common.Report]:
    """The archives whose sha256 is the listed one, and the others reported; an unlisted one is not trusted."""
    listed = {PurePosixPath(name).name: digest for name, digest in checksums.items()}
    sound, report = [], common.Report()
    for path in archives:
        expected = listed.get(path.name)
        digest = common.sha256(path) if expected else None
        if expected is None:
            report.corrupt.append(f"{path} (not in the list of --checksums, so it cannot be checked)")
        elif digest != expected:
            report.corrupt.append(f"{path} (sha256 {digest}, expected {expected})")
        else:
            sound.append(path)
    return sound, report


def unpack(archive: Path, out: Path) -> common.Report:
    """Write the .h5 members of an archive to their places; those already there with the same size are kept."""
    report = common.Report()
    anatomy = archive.name.split("_")[0]
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                path = PurePosixPath(member.name)
                if not member.isfile() or path.suffix != ".h5" or path.name.startswith("."):
                    continue
                split = next((part for part in reversed(path.parts[:-1]) if part in SPLITS), None)
                if split is None or anatomy not in {"knee", "brain"}:
                    report.corrupt.append(f"{member.name} in {archive} (no folder named like a split)")
                    continue
                target = out / "fastmri" / anatomy / split / path.name
                name = target.relative_to(out).as_posix()
                if target.is_file() and target.stat().st_size == member.size:
                    report.kept.append(name)
                    continue
                content = tar.extractfile(member)
                if content is None:  # only for members that are no files
                    continue
                target.parent.mkdir(parents=True, exist_ok=True)
                try:
                    with atomic_path(target) as temporary:
                        with temporary.open("wb") as file:
                            shutil.copyfileobj(content, file, 1 << 20)
                        check_volume(temporary)
                except common.Unusable as error:
                    report.corrupt.append(f"{member.name} in {archive} ({error})")
                else:
                    report.placed.append(name)
    except (tarfile.TarError, lzma.LZMAError, zlib.error, EOFError, OSError) as error:
        report.corrupt.append(f"{archive} ({error})")
    return report


def main(arguments: Sequence[str] | None = None) -> int:
    """Return the exit code: 0 all there, 1 files missing or corrupt, 2 bad arguments."""
    parser = common.parser(__doc__)
    parser.add_argument("--checksums", type=Path, help="the list of sha256 of the archives, from the e-mail")
    parser.add_argument("--link", action="store_true", help="hard links instead of copies of unpacked volumes")
    options = parser.parse_args(arguments)
    try:
        archives = common.files_below(options.source, ARCHIVES)
        if archives and options.checksums is None:
            parser.error(f"--source has archives ({archives[0].name}, ...): give their list of sha256 as --checksums")
        sound, checked = check_archives(archives, common.read_checksums(options.checksums) if archives else {})
        reports = [checked, *(unpack(archive, options.out) for archive in sound)]
        reports.append(lay_out_volumes(options.source, options.out, options.link))
    except common.Unusable as error:
        parser.error(str(error))
    if not any(report.placed or report.kept or report.corrupt for report in reports):
        reports.append(common.Report(missing=[f"any .h5 volume or archive below {options.source}"]))
    return common.finish("fastMRI", reports, __doc__)


if __name__ == "__main__":
    raise SystemExit(main())

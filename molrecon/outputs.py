"""The four files of a reconstruction, and names for them that no two inputs share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from molrecon.io import write_nifti, write_submission
from molrecon.pipeline import Reconstruction
from molrecon.preparation import PreparedVolume
from molrecon.report import make_preview, quality_page, write_png
from molrecon.sidecar import ModelSource, describe, write_json

SUFFIXES = (".nii.gz", ".h5", ".png", ".json")


def write_outputs(
    folder: str | Path, name: str, prepared: PreparedVolume, result: Reconstruction, source: ModelSource
) -> list[Path]:
    """Write NAME.nii.gz, NAME.h5 (fastMRI submission), NAME.png (quality page) and NAME.json (sidecar); return them.

    Each file is written whole or not at all, and replaces an older one. The sidecar comes last: where it is, the other
    three are complete. An older sidecar is removed first, so that it never describes newer images.
    """
    image, submission, page, sidecar = output_paths(folder, name)
    sidecar.unlink(missing_ok=True)
    write_nifti(image, result.image, result.voxel_size)
    write_submission(submission, result.image)
    write_png(page, quality_page(make_preview(prepared, result), prepared, result, name))
    write_json(sidecar, describe(prepared, result, source))
    return [image, submission, page, sidecar]


def output_paths(folder: str | Path, name: str) -> list[Path]:
    """Return the paths that `write_outputs` writes, the sidecar last."""
    return [Path(folder) / f"{name}{suffix}" for suffix in SUFFIXES]


def output_names(inputs: Sequence[Path]) -> list[str]:
    """Return one output name per input, all different: the file name without suffix where that is enough.

    Inputs of one name in different folders get as many parent folders in front as tell them apart
    (`day1_scan`, `day2_scan`); inputs in one folder that differ in the suffix only keep it (`scan_h5`, `scan_npy`).

    Raises:
        ValueError: the same file twice.
    """
    resolved = [path.resolve() for path in inputs]
    for path, count in Counter(resolved).items():
        if count > 1:
            raise ValueError(f"output_names: {path} is listed {count} times, expected every input once")
    whole = [path.with_name(path.name.replace(".", "_")) for path in resolved]
    short = [path.with_name(path.stem) for path in resolved]
    paths = [long if short.count(stem) > 1 else stem for stem, long in zip(short, whole, strict=True)]
    depth = [1] * len(paths)
    while True:
        names = ["_".join(path.parts[-n:]) for path, n in zip(paths, depth, strict=True)]
        shared = _shared(names)
        longer = [k for k in shared if depth[k] < len(paths[k].parts) - 1]  # the root is no name
        if not longer:
            break
        for k in longer:
            depth[k] += 1
    for n, k in enumerate(shared, start=1):  # b_c and b/c: told apart by a number
        names[k] = f"{names[k]}-{n}"
    return names


def _shared(names: list[str]) -> list[int]:
    counts = Counter(name.casefold() for name in names)  # some file systems do not tell case apart
    return [k for k, name in enumerate(names) if counts[name.casefold()] > 1]

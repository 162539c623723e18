"""The data that the arguments of `molrecon train` name. Imports torch."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch

from molrecon.io import UnreadableInput
from molrecon.training.fastmri_folder import FastMRIFolder
from molrecon.training.image_stacks import Scans, hold_out, read_stack

FASTMRI_SUFFIXES = (".h5", ".hdf5")


def training_data(args: argparse.Namespace, device: torch.device) -> FastMRIFolder | Scans:
    """Return what problems are drawn from: a folder of fastMRI files, or stacks of images whose scans are simulated.

    Raises:
        UnreadableInput: data that cannot be used.
        ValueError: fastMRI files and others together.
    """
    if any(_is_fastmri(path) for path in args.data):
        if len(args.data) > 1 or not args.data[0].is_dir() or len(args.validation or []) > 1:
            raise ValueError(
                "DATA of fastMRI files: expected one folder of them, and one for --validation at most; got"
                f" {', '.join(map(str, (*args.data, *(args.validation or []))))}"
            )
        return _fastmri(args, device)
    training = [read_stack(path) for path in args.data]
    if args.validation:
        validation = [read_stack(path) for path in args.validation]
    else:
        splits = [hold_out(stack) for stack in training]
        training, validation = [split[0] for split in splits], [split[1] for split in splits]
    return Scans(
        training,
        validation,
        size=args.size,
        rows=args.rows,
        batch=args.batch,
        first=max(1, min(48, args.steps)),
        seed=args.seed,
        device=device,
        name=_names(args.data),
    )


def _fastmri(args: argparse.Namespace, device: torch.device) -> FastMRIFolder:
    build = partial(
        FastMRIFolder,
        args.data[0],
        args.validation[0] if args.validation else None,
        rows=args.rows,
        batch=args.batch,
        seed=args.seed,
        device=device,
    )
    if not args.self_supervised:
        return build()
    # Fully sampled files are undersampled anew, as ever, and validated by their references. Others are as measured.
    measured = build(as_measured=True)
    try:
        full = build()
    except UnreadableInput:
        return measured
    return full if len(full.rejected) <= len(measured.rejected) else measured


def _is_fastmri(path: Path) -> bool:
    if not path.exists():
        raise UnreadableInput(path, "no such file or folder", "fastMRI files or image stacks")
    if path.is_dir():
        return any(item.suffix in FASTMRI_SUFFIXES for item in path.iterdir())
    return path.suffix in FASTMRI_SUFFIXES


def _names(paths: Sequence[Path]) -> str:
    return "image stacks " + ", ".join(path.name for path in paths)

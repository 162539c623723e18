"""What the shared arguments name: the device, the model and its settings, coil maps, the undersampled scan, files.

Imports torch: commands import it when they run.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from molrecon.command.shared.arguments import ESTIMATED_MAPS
from molrecon.command.shared.messages import UsageError, usage
from molrecon.io import RawVolume
from molrecon.reconstructors.base import Reconstructor
from molrecon.scans.cohort import model_files
from molrecon.scans.comparison import root_sum_of_squares, undersample
from molrecon.scans.methods import load_method
from molrecon.scans.outputs import check_replacement
from molrecon.scans.preparation import read_maps
from molrecon.scans.sidecar import ModelSource
from molrecon.solvers.solver_settings import SolverSettings
from operators.masks import equispaced_fraction_mask, file_seed, random_mask


def chosen_device(args: argparse.Namespace) -> torch.device:
    """Return the device of `--device`, or the GPU if there is one. Raises UsageError if it cannot be used here."""
    if args.device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(args.device)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:  # torch without CUDA raises AssertionError
        reason = str(error).splitlines()[0]
        raise UsageError(f"argument --device: {args.device!r} cannot be used here ({reason})") from error
    return device


def load_chosen_model(args: argparse.Namespace) -> tuple[Reconstructor, ModelSource, SolverSettings | None]:
    """Return the method of `--model`, where it came from, and the solver settings of the arguments."""
    with usage():
        model, source = load_method(args.model)
        options = _solver_options(args)
        if model.solver is None and options:
            raise ValueError(
                f"{args.model}: got {' and '.join('--' + name.replace('_', '-') for name in options)}, expected"
                f" neither: {type(model).__name__} has nothing to iterate to a tolerance"
            )
        return model, source, chosen_solver(model, args)


def chosen_solver(model: Reconstructor, args: argparse.Namespace) -> SolverSettings | None:
    """Return the model's settings with what the arguments say; None for a method that iterates nothing."""
    return None if model.solver is None else replace(model.solver, **_solver_options(args))


def _solver_options(args: argparse.Namespace) -> dict[str, Any]:
    return {name: value for name in ("tol", "max_steps") if (value := getattr(args, name)) is not None}


def read_chosen_maps(args: argparse.Namespace) -> np.ndarray | None:
    """Return the coil maps of `--maps` as `read_maps` does, None where they are to be estimated."""
    return None if args.maps == ESTIMATED_MAPS else read_maps(args.maps)


def undersample_chosen(volume: RawVolume, args: argparse.Namespace) -> RawVolume:
    """Return the fully sampled volume as it would have been measured with the mask and the noise of the arguments."""
    seed = sampling_seed(args)
    with usage():
        draw = random_mask if args.mask == "random" else equispaced_fraction_mask
        mask = draw(volume.kspace.shape[-1], args.accel, args.center_fraction, seed)
        added = args.noise * float(root_sum_of_squares(volume).max()) if args.noise else 0.0
        return undersample(volume, mask, added, seed)


def undersampling_settings(args: argparse.Namespace) -> dict[str, Any]:
    """Return the arguments that made the mask, for a report."""
    return {
        "mask": args.mask,
        "nominal_acceleration": args.accel,
        "center_fraction": args.center_fraction,
        "seed": list(sampling_seed(args)),
    }


def sampling_seed(args: argparse.Namespace) -> tuple[int, ...]:
    """Return the seed of mask and noise: that of `--seed`, or of the file's name."""
    return tuple(file_seed(args.input)) if args.seed is None else (args.seed,)


def protect(outputs: Iterable[str | Path | None], inputs: Iterable[str | Path | None]) -> None:
    """Raise UsageError if an output would replace an input, or has no folder; None and `-` stand for no file."""
    named = [Path(path) for path in outputs if path is not None and path != "-"]
    for path in named:
        if not path.parent.is_dir():  # before anything is computed, which would be lost
            raise UsageError(f"{path}: there is no folder {path.parent}, expected one that is there")
    with usage():
        check_replacement(named, (path for path in inputs if path is not None))


def maps_files(args: argparse.Namespace) -> list[Path]:
    """Return the file of `--maps`, if it names one."""
    return [] if args.maps == ESTIMATED_MAPS else [Path(args.maps)]


def weights_files(*names: str) -> list[Path]:
    """Return the files of models, weights and cards; the packaged ones are no user's to protect."""
    return [file for name in names for file in model_files(name)]

"""Weights of compressed-sensing imagers: safetensors files with a card, as those of the reconstructors of MRI."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from molrecon.defaults import MEASUREMENTS
from molrecon.unrolled.assembly import assemble, names
from molrecon.unrolled.equilibrium_stage import EquilibriumStage
from molrecon.unrolled.gradient import GIN
from molrecon.unrolled.imager import BlockImager
from molrecon.weights import available_models, weights_path
from molrecon.weights.published_ista import load_published_imager
from molrecon.weights.stored import UNFIT, read_settings, read_weights, write_weights

_KEY = "imager"  # of the settings in a file's header


def available_imagers() -> list[str]:
    """Return the names of the packaged imagers."""
    return available_models(_KEY)


def save_imager(imager: BlockImager, path: str | Path, card: dict[str, Any], *, half: bool = False) -> None:
    """Write weights and matrices as safetensors, with what is needed to build the imager, and the card beside it.

    Args:
        imager: with one of the hosts and data steps of `molrecon.unrolled.assembly`.
        path: ends in .safetensors; the card gets the same name with .json.
        card: data, split, steps, seed, scores, licence of the data, intended use.
        half: store in half precision, in half the bytes. What is measured with the rounded Phi is reconstructed with
            it, so that only weights and initialisation lose anything.

    Raises:
        TypeError: another host or data step.
        ValueError: another ending of the name.
    """
    host, data_step = names(imager.model)
    settings = {"host": host, "data_step": data_step, "n_stages": imager.model.host.n_stages}
    if isinstance(imager.model.data_step, GIN):
        settings["gradient_scale"] = imager.model.data_step.scale
    if isinstance(imager.model, EquilibriumStage):
        settings["equilibrium"] = True
    else:
        settings["repeats"] = imager.model.repeats
    kind = torch.float16 if half else torch.float32
    state = {key: value.to(kind) for key, value in imager.state_dict().items()}
    write_weights(path, state, {_KEY: settings}, card)


def load_imager(name_or_path: str | Path) -> BlockImager:
    """Return an imager in evaluation mode.

    Args:
        name_or_path: a packaged imager's name or a safetensors file written by `save_imager`.

    Raises:
        FileNotFoundError: no such name or file.
        ValueError: the file is not one of an imager.
    """
    path = weights_path(name_or_path)
    try:
        settings = read_settings(path)[_KEY]
        state = read_weights(path)
        at_equilibrium = settings.pop("equilibrium", False)
        settings.setdefault("gradient_scale", 1.0)  # of files from before there was a choice
        model = assemble(**settings)
        imager = BlockImager(EquilibriumStage(model) if at_equilibrium else model, torch.empty_like(state["phi"]))
        imager.load_state_dict(state)
    except UNFIT as error:
        raise ValueError(f"{path}: not an imager of molrecon ({error}), expected a file of save_imager") from error
    return imager.eval()


def find_imager(name_or_path: str | Path, ratio: int) -> BlockImager:
    """Return the imager of a sampling ratio in percent, in evaluation mode.

    Args:
        name_or_path: a packaged imager's name with or without its ratio at the end, a file written by `save_imager`,
            or published ISTA-Net+ weights (`cs_ratio_R.pkl`, with the matrices beside it).
        ratio: one of `MEASUREMENTS`.

    Raises:
        FileNotFoundError: no such imager, or none of this ratio.
        ValueError: the file is something else, or an imager of another ratio.
    """
    if Path(name_or_path).suffix == ".pkl":
        expected = Path(name_or_path).with_name(f"cs_ratio_{ratio}.pkl")
        if Path(name_or_path) != expected:
            raise ValueError(f"{name_or_path}: not the weights for {ratio} %, expected {expected}")
        return load_published_imager(expected.parent, ratio)
    of_ratio = f"{name_or_path}-{ratio}"
    try:
        imager = load_imager(of_ratio if of_ratio in available_models() else name_or_path)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{name_or_path}: neither a file nor a packaged imager for {ratio} %, expected one of"
            f" {', '.join(available_imagers())}"
        ) from error
    if len(imager.phi) != MEASUREMENTS[ratio]:
        raise ValueError(f"{name_or_path}: takes {len(imager.phi)} numbers a block, expected {MEASUREMENTS[ratio]}")
    return imager

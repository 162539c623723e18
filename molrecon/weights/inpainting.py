"""Weights of GLOW-Prox: safetensors files with a card, as those of the reconstructors of MRI."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from molrecon.unrolled.glow_prox import GlowProx
from molrecon.weights import available_models, weights_path
from molrecon.weights.stored import UNFIT, read_settings, read_weights, write_weights

_KEY = "glow_prox"  # of the settings in a file's header


def available_inpainters() -> list[str]:
    """Return the names of the packaged GLOW-Prox models."""
    return available_models(_KEY)


def save_inpainter(model: GlowProx, path: str | Path, card: dict[str, Any]) -> None:
    """Write weights, what is needed to build the model, and the card beside it.

    Args:
        model: to be saved, calibrated.
        path: ends in .safetensors; the card gets the same name with .json.
        card: data, split, steps, seed, scores, licence of the data, intended use.

    Raises:
        ValueError: another ending of the name.
    """
    write_weights(path, model.state_dict(), {_KEY: model.settings()}, card)


def load_inpainter(name_or_path: str | Path) -> GlowProx:
    """Return a GLOW-Prox in evaluation mode.

    Args:
        name_or_path: a packaged model's name or a safetensors file written by `save_inpainter`.

    Raises:
        FileNotFoundError: no such name or file.
        ValueError: the file is not one of a GLOW-Prox.
        ImportError: normflows is not installed.
    """
    path = weights_path(name_or_path)
    try:
        model = GlowProx(**read_settings(path)[_KEY])
        model.load_state_dict(read_weights(path))
    except UNFIT as error:
        raise ValueError(f"{path}: not a GLOW-Prox ({error}), expected a file of save_inpainter") from error
    return model.eval()

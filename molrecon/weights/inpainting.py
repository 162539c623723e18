"""Weights of GLOW-Prox: safetensors files with a card, as those of the reconstructors of MRI."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from molrecon.io import atomic_path
from molrecon.unrolled.glow_prox import GlowProx
from molrecon.weights import available_models, weights_path

_KEY = "glow_prox"  # of the settings in a file's header


def available_inpainters() -> list[str]:
    """Return the names of the packaged GLOW-Prox models."""
    return [name for name in available_models() if _KEY in _settings(weights_path(name))]


def _settings(path: Path) -> dict[str, Any]:
    with safe_open(path, framework="pt") as stored:
        settings: dict[str, Any] = json.loads((stored.metadata() or {})["molrecon"])
    return settings


def save_inpainter(model: GlowProx, path: str | Path, card: dict[str, Any]) -> None:
    """Write weights, what is needed to build the model, and the card beside it.

    Args:
        model: to be saved, calibrated.
        path: ends in .safetensors; the card gets the same name with .json.
        card: data, split, steps, seed, scores, licence of the data, intended use.

    Raises:
        ValueError: another ending of the name.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"save_inpainter: {path}, expected a name that ends in .safetensors")
    state = {key: value.detach().contiguous().cpu() for key, value in model.state_dict().items()}
    with atomic_path(path.with_suffix(".json")) as temporary:
        temporary.write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    with atomic_path(path) as temporary:
        save_file(state, temporary, metadata={"molrecon": json.dumps({_KEY: model.settings()})})


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
        model = GlowProx(**_settings(path)[_KEY])
        model.load_state_dict(load_file(path))
    except (SafetensorError, KeyError, TypeError, RuntimeError, ValueError) as error:
        raise ValueError(f"{path}: not a GLOW-Prox ({error}), expected a file of save_inpainter") from error
    return model.eval()

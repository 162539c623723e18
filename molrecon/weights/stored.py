"""A file of weights: safetensors whose header says how to build the model, and a card as JSON beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from molrecon.io import atomic_path

# What reading a file of something else, or of a model with other settings, raises.
UNFIT = (SafetensorError, KeyError, TypeError, RuntimeError, ValueError)
_HEADER = "molrecon"


def write_weights(
    path: str | Path, state: Mapping[str, Tensor], settings: dict[str, Any], card: dict[str, Any]
) -> None:
    """Write tensors and settings as safetensors, and the card with the same name and .json.

    Args:
        path: ends in .safetensors.
        state: by name, on any device, as the file shall hold them.
        settings: JSON values, what is needed to build the model again.
        card: data, split, steps, seed, scores, licence of the data, intended use.

    Raises:
        ValueError: another ending of the name.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"weights: {path}, expected a name that ends in .safetensors")
    tensors = {key: value.detach().contiguous().cpu() for key, value in state.items()}
    # Both are complete before either replaces an older one: a card never describes other weights.
    with atomic_path(path.with_suffix(".json")) as new_card, atomic_path(path) as new_weights:
        new_card.write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
        # Not save_file: its files are their owner's alone, whatever the umask.
        new_weights.write_bytes(save(tensors, metadata={_HEADER: json.dumps(settings)}))


def read_settings(path: Path) -> dict[str, Any]:
    """Return the settings of a file of `write_weights`.

    Raises:
        one of `UNFIT`: the file is something else.
    """
    with safe_open(path, framework="pt") as stored:
        settings: dict[str, Any] = json.loads((stored.metadata() or {})[_HEADER])
    return settings


def read_weights(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a file, those in half precision converted to single.

    Raises:
        SafetensorError: the file is something else.
    """
    return {key: value.float() if value.dtype == torch.float16 else value for key, value in load_file(path).items()}

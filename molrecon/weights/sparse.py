"""Weights of networks of the LISTA family: safetensors files with a card, and the dictionary in them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from molrecon.io import atomic_path
from molrecon.unrolled.lista import ALISTA, LISTA, LISTACP, CodeNetwork, SupportSelection
from molrecon.weights import available_models, weights_path

_NETWORKS: dict[str, Callable[..., CodeNetwork]] = {network.__name__: network for network in (LISTA, LISTACP, ALISTA)}
_KEY = "codes"  # of the settings in a file's header
_DICTIONARY = "dictionary"


def available_code_networks() -> list[str]:
    """Return the names of the packaged networks of sparse codes."""
    return [name for name in available_models() if _KEY in _settings(weights_path(name))]


def _settings(path: Path) -> dict[str, Any]:
    with safe_open(path, framework="pt") as stored:
        settings: dict[str, Any] = json.loads((stored.metadata() or {})["molrecon"])
    return settings


def save_code_network(
    model: CodeNetwork, dictionary: Tensor, path: str | Path, card: dict[str, Any], *, half: bool = False
) -> None:
    """Write weights and dictionary as safetensors, with what is needed to build the network, and the card beside it.

    Args:
        model: LISTA, LISTACP or ALISTA.
        dictionary: D (m, n).
        path: ends in .safetensors; the card gets the same name with .json.
        card: problem, steps, seed, scores, licence of the data, intended use.
        half: store matrices in half precision, in half the bytes; steps and thresholds stay as they are. What is
            measured with the rounded D is coded with it.

    Raises:
        ValueError: another ending of the name.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"save_code_network: {path}, expected a name that ends in .safetensors")
    state = {_DICTIONARY: dictionary, **model.state_dict()}
    kind = torch.float16 if half else torch.float32
    stored = {k: v.detach().to(kind if v.ndim >= 2 else torch.float32).contiguous().cpu() for k, v in state.items()}
    settings = {"network_class": type(model).__name__, **model.settings()}
    with atomic_path(path.with_suffix(".json")) as temporary:
        temporary.write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    with atomic_path(path) as temporary:
        save_file(stored, temporary, metadata={"molrecon": json.dumps({_KEY: settings})})


def load_code_network(name_or_path: str | Path) -> tuple[CodeNetwork, Tensor]:
    """Return a network in evaluation mode, and its dictionary (m, n) float32.

    Args:
        name_or_path: a packaged network's name or a safetensors file written by `save_code_network`.

    Raises:
        FileNotFoundError: no such name or file.
        ValueError: the file is not one of such a network.
    """
    path = weights_path(name_or_path)
    try:
        settings = _settings(path)[_KEY]
        state = {key: value.float() for key, value in load_file(path).items()}
        dictionary = state.pop(_DICTIONARY)
        if settings.get("selection"):
            settings["selection"] = SupportSelection(**settings["selection"])
        model = _NETWORKS[settings.pop("network_class")](dictionary, **settings)
        model.load_state_dict(state)
    except (SafetensorError, KeyError, TypeError, RuntimeError, ValueError) as error:
        raise ValueError(
            f"{path}: not a network of sparse codes ({error}), expected a file of save_code_network"
        ) from error
    return model.eval(), dictionary

"""Weights of networks of the LISTA family: safetensors files with a card, and the dictionary in them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from molrecon.unrolled.lista import ALISTA, LISTA, LISTACP, CodeNetwork, SupportSelection
from molrecon.weights import available_models, weights_path
from molrecon.weights.stored import UNFIT, read_settings, read_weights, write_weights

_NETWORKS: dict[str, Callable[..., CodeNetwork]] = {network.__name__: network for network in (LISTA, LISTACP, ALISTA)}
_KEY = "codes"  # of the settings in a file's header
_DICTIONARY = "dictionary"


def available_code_networks() -> list[str]:
    """Return the names of the packaged networks of sparse codes."""
    return available_models(_KEY)


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
    state = {_DICTIONARY: dictionary, **model.state_dict()}
    kind = torch.float16 if half else torch.float32
    stored = {key: value.to(kind if value.ndim >= 2 else torch.float32) for key, value in state.items()}
    write_weights(path, stored, {_KEY: {"network_class": type(model).__name__, **model.settings()}}, card)


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
        settings = read_settings(path)[_KEY]
        state = read_weights(path)
        dictionary = state.pop(_DICTIONARY)
        if settings.get("selection"):
            settings["selection"] = SupportSelection(**settings["selection"])
        model = _NETWORKS[settings.pop("network_class")](dictionary, **settings)
        model.load_state_dict(state)
    except UNFIT as error:
        raise ValueError(
            f"{path}: not a network of sparse codes ({error}), expected a file of save_code_network"
        ) from error
    return model.eval(), dictionary

"""Packaged weights: safetensors files, each with a card; loading and saving them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from molrecon.deep_equilibrium import DeepEquilibrium
from molrecon.defaults import DEFAULT_MODEL
from molrecon.mol import MOL
from molrecon.networks import PlainNetwork, ResidualNetwork, ScoreNetwork, SpectralNetwork, UNet
from molrecon.unrolled.admm_net import ADMMNet
from molrecon.unrolled.modl import MoDL
from molrecon.unrolled.post_processing import PostProcessing
from molrecon.unrolled.varnet import VarNet
from molrecon.weights.stored import UNFIT, read_settings, read_weights, write_weights

FOLDER = Path(__file__).parent

Reconstructor = MOL | DeepEquilibrium | MoDL | ADMMNet | VarNet | PostProcessing

_NETWORKS: dict[str, Callable[..., ScoreNetwork]] = {
    network.__name__: network for network in (PlainNetwork, ResidualNetwork, SpectralNetwork, UNet)
}
_MODELS: dict[str, Callable[..., Reconstructor]] = {
    model.__name__: model for model in (MOL, DeepEquilibrium, MoDL, ADMMNet, VarNet, PostProcessing)
}


def available_models(kind: str | None = None) -> list[str]:
    """Return the names of the packaged models: all, or those whose settings have the key `kind`."""
    paths = sorted(FOLDER.glob("*.safetensors"))
    return [path.stem for path in paths if kind is None or kind in read_settings(path)]


def weights_path(name_or_path: str | Path) -> Path:
    """Return the safetensors file of a packaged model's name or of a path.

    Raises:
        FileNotFoundError: neither a packaged model nor a file; the message lists the models there are.
    """
    packaged = FOLDER / f"{name_or_path}.safetensors"
    path = packaged if packaged.is_file() else Path(name_or_path)
    if not path.is_file():
        raise FileNotFoundError(
            f"weights: {name_or_path} is neither a file nor a packaged model, expected one of"
            f" {', '.join(available_models())}"
        )
    return path


def load_model(name_or_path: str | Path = DEFAULT_MODEL) -> MOL:
    """Return an equilibrium model in evaluation mode.

    Args:
        name_or_path: a packaged model's name or a safetensors file written by `save_model`.

    Raises:
        FileNotFoundError: no such model or file.
        ValueError: the file is not a safetensors file of a monotone equilibrium model of molrecon.
    """
    model = load_reconstructor(name_or_path)
    if not isinstance(model, MOL):
        raise ValueError(f"{weights_path(name_or_path)}: holds a {type(model).__name__}, expected an equilibrium model")
    return model


def load_reconstructor(name_or_path: str | Path) -> Reconstructor:
    """Return any packaged or saved reconstructor in evaluation mode; see `load_model`."""
    path = weights_path(name_or_path)
    try:
        settings = read_settings(path)
        # Files of version 0.1 name neither class: they hold a MOL with a ResidualNetwork. Later ones of MoDL did not
        # name it either, but their number of unrolls.
        network = _NETWORKS[settings.pop("network_class", ResidualNetwork.__name__)](**settings.pop("network"))
        guess = MoDL.__name__ if "n_unrolls" in settings else MOL.__name__
        model = _MODELS[settings.pop("model_class", guess)](network, **settings)
        model.load_state_dict(read_weights(path))
    except UNFIT as error:
        raise ValueError(f"{path}: not a molrecon model ({error}), expected a file written by save_model") from error
    return model.eval()


def save_model(model: Reconstructor, path: str | Path, card: dict[str, Any]) -> None:
    """Write the weights as safetensors, with what is needed to build the model, and the card beside it as JSON.

    Args:
        model: a reconstructor with one of this package's networks.
        path: ends in .safetensors; the card gets the same name with .json.
        card: data, split, steps, seed, scores, licence of the data, intended use.

    Raises:
        TypeError: a network of another package, which could not be built again from the file.
        ValueError: another ending of the name.
    """
    network = model.network
    if type(network).__name__ not in _NETWORKS:
        raise TypeError(f"save_model: network is {type(network).__name__}, expected one of {', '.join(_NETWORKS)}")
    settings = {"network_class": type(network).__name__, "network": network.settings()}
    settings |= {"model_class": type(model).__name__, **model.settings()}
    write_weights(path, model.state_dict(), settings, card)


def load_card(name_or_path: str | Path = DEFAULT_MODEL) -> dict[str, Any]:
    """Return the model's card; empty when the file has none."""
    path = weights_path(name_or_path).with_suffix(".json")
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def weights_hash(name_or_path: str | Path = DEFAULT_MODEL) -> str:
    """Return the sha256 of the weights file in hexadecimal."""
    return hashlib.sha256(weights_path(name_or_path).read_bytes()).hexdigest()

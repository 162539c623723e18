"""Packaged weights: safetensors files, each with a card; loading and saving them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from molrecon.io import atomic_path
from molrecon.mol import MOL
from molrecon.networks import PlainNetwork, ResidualNetwork, ScoreNetwork, SpectralNetwork
from molrecon.unrolled.modl import MoDL

FOLDER = Path(__file__).parent
DEFAULT_MODEL = "mol-brain-2d"

_NETWORKS: dict[str, Callable[..., ScoreNetwork]] = {
    network.__name__: network for network in (PlainNetwork, ResidualNetwork, SpectralNetwork)
}


def available_models() -> list[str]:
    """Return the names of the packaged models."""
    return sorted(path.stem for path in FOLDER.glob("*.safetensors"))


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
        ValueError: the file is not a safetensors file of an equilibrium model of molrecon.
    """
    model = load_reconstructor(name_or_path)
    if not isinstance(model, MOL):
        raise ValueError(f"{weights_path(name_or_path)}: holds a {type(model).__name__}, expected an equilibrium model")
    return model


def load_reconstructor(name_or_path: str | Path) -> MOL | MoDL:
    """Return any packaged or saved reconstructor, equilibrium or unrolled, in evaluation mode; see `load_model`."""
    path = weights_path(name_or_path)
    try:
        with safe_open(path, framework="pt") as stored:
            settings = json.loads((stored.metadata() or {})["molrecon"])
            state = {key: stored.get_tensor(key) for key in stored.keys()}  # noqa: SIM118
        # Files of version 0.1 name neither class: they hold a MOL with a ResidualNetwork.
        build = _NETWORKS[settings.get("network_class", ResidualNetwork.__name__)]
        network, phase_reference = build(**settings["network"]), settings["phase_reference"]
        model: MOL | MoDL
        if "n_unrolls" in settings:
            model = MoDL(network, n_unrolls=settings["n_unrolls"], phase_reference=phase_reference)
        else:
            model = MOL(network, phase_reference=phase_reference)
        model.load_state_dict(state)
    except (SafetensorError, KeyError, TypeError, RuntimeError, ValueError) as error:
        raise ValueError(f"{path}: not a molrecon model ({error}), expected a file written by save_model") from error
    return model.eval()


def save_model(model: MOL | MoDL, path: str | Path, card: dict[str, Any]) -> None:
    """Write the weights as safetensors, with what is needed to build the model, and the card beside it as JSON.

    Args:
        model: a reconstructor with one of this package's networks.
        path: ends in .safetensors; the card gets the same name with .json.
        card: data, split, steps, seed, scores, licence of the data, intended use.

    Raises:
        TypeError: a network of another package, which could not be built again from the file.
        ValueError: another ending of the name.
    """
    path = Path(path)
    network = model.network
    if type(network).__name__ not in _NETWORKS:
        raise TypeError(f"save_model: network is {type(network).__name__}, expected one of {', '.join(_NETWORKS)}")
    if path.suffix != ".safetensors":
        raise ValueError(f"save_model: {path}, expected a name that ends in .safetensors")
    settings: dict[str, Any] = {"network_class": type(network).__name__, "network": network.settings()}
    settings["phase_reference"] = model.phase_reference
    if isinstance(model, MoDL):
        settings["n_unrolls"] = model.n_unrolls
    state = {key: value.detach().contiguous().cpu() for key, value in model.state_dict().items()}
    with atomic_path(path.with_suffix(".json")) as temporary:
        temporary.write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    with atomic_path(path) as temporary:
        save_file(state, temporary, metadata={"molrecon": json.dumps(settings)})


def load_card(name_or_path: str | Path = DEFAULT_MODEL) -> dict[str, Any]:
    """Return the model's card; empty when the file has none."""
    path = weights_path(name_or_path).with_suffix(".json")
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def weights_hash(name_or_path: str | Path = DEFAULT_MODEL) -> str:
    """Return the sha256 of the weights file in hexadecimal."""
    return hashlib.sha256(weights_path(name_or_path).read_bytes()).hexdigest()

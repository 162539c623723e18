"""A file of weights: safetensors whose header says how to build the model, and a card as JSON beside it.

The header holds `{"class": "molrecon.reconstructors.mol:MOL", "settings": {...}}`: a class by its import path, and its
constructor's arguments. An argument that is itself a module or a dataclass is written the same way. So a model of any
package can be stored, without a list of classes that it would have to be in.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from molrecon.io.atomic import atomic_path

_HEADER = "molrecon"
_CLASS, _SETTINGS = "class", "settings"


class UnusableWeights(Exception):
    """The file is something else, or of a class whose constructor or weights have changed."""


def write_model(model: nn.Module, path: Path, card: dict[str, Any], *, half: bool) -> None:
    """Write a model and its card, see `molrecon.weights.save`."""
    if path.suffix != ".safetensors":
        raise ValueError(f"save: {path}, expected a name that ends in .safetensors")
    header = {_HEADER: json.dumps(describe_model(model))}
    tensors = {key: _stored(value, half) for key, value in model.state_dict().items()}
    # Both are complete before either replaces an older one: a card never describes other weights.
    with atomic_path(path.with_suffix(".json")) as new_card, atomic_path(path) as new_weights:
        new_card.write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
        # Not save_file: its files are their owner's alone, whatever the umask.
        new_weights.write_bytes(save(tensors, metadata=header))


def read_model(path: Path) -> nn.Module:
    """Return the model of a file.

    A class with a class method `rebuild(settings, state)` is built by that, where its constructor wants tensors;
    every other one is called with its settings. Then the weights are loaded.

    Raises:
        UnusableWeights: the file is something else, or does not fit its class any more.
        ImportError: a class that cannot be imported.
    """
    header = read_header(path)
    try:
        state = {key: _single(value) for key, value in load_file(path).items()}
        model = _decoded(header, state)
        if not isinstance(model, nn.Module):
            raise UnusableWeights(f"{type(model).__name__} is no model")
        floating = {value.dtype for value in state.values() if value.is_floating_point()}
        if floating == {torch.float64}:
            model.double()  # weights of double precision are not rounded
        model.load_state_dict(state)
    except (SafetensorError, KeyError, TypeError, RuntimeError, ValueError) as error:
        raise UnusableWeights(str(error)) from error
    return model


def read_class(path: Path) -> type:
    """Return the class of the model in a file. Raises as `read_model`."""
    return _imported(read_header(path)[_CLASS])


def read_header(path: Path) -> dict[str, Any]:
    """Return what builds the model of a file: "class" and "settings". Raises UnusableWeights."""
    try:
        with safe_open(path, framework="pt") as stored:
            header = json.loads((stored.metadata() or {})[_HEADER])
        header[_CLASS], header[_SETTINGS]
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise UnusableWeights(f"{type(error).__name__}: {error}") from error
    return dict(header)


def describe_model(model: nn.Module) -> dict[str, Any]:
    """Return what a file says about a model besides its weights: class and settings, as JSON has them.

    Raises:
        TypeError: a part of the model that could not be built again from it.
    """
    described: dict[str, Any] = _encoded(model, type(model).__name__)
    return described


def _stored(value: Tensor, half: bool) -> Tensor:
    kind = torch.float16 if half and value.ndim >= 2 and value.dtype == torch.float32 else value.dtype
    stored = value.detach().to(kind).contiguous().cpu()
    if bool(value.isfinite().all()) and not bool(stored.isfinite().all()):
        largest = float(value.abs().amax())
        raise ValueError(f"save: values up to {largest:.3g}, expected at most 65504 in half precision")
    return stored


def _single(value: Tensor) -> Tensor:
    return value.float() if value.dtype == torch.float16 else value


def _encoded(value: Any, where: str) -> Any:
    """Return a constructor's argument as JSON has it."""
    if isinstance(value, nn.Module) or (is_dataclass(value) and not isinstance(value, type)):
        kind = type(value)
        if "<locals>" in kind.__qualname__ or kind.__module__ == "__main__":
            raise TypeError(
                f"save: {where} is a {kind.__name__} defined in {kind.__module__}, expected a class that can be"
                " imported from a module: the file could not be loaded elsewhere"
            )
        if isinstance(value, nn.Module):
            if not callable(getattr(value, "settings", None)):
                raise TypeError(
                    f"save: {where} is a {kind.__name__}, expected a module whose method `settings` returns its"
                    " constructor's arguments"
                )
            settings = value.settings()  # type: ignore[operator]
        else:
            settings = {f.name: getattr(value, f.name) for f in fields(value) if f.compare}
        encoded = {key: _encoded(item, f"{where}.{key}") for key, item in settings.items()}
        return {_CLASS: f"{kind.__module__}:{kind.__qualname__}", _SETTINGS: encoded}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        return [_encoded(item, where) for item in value]
    raise TypeError(f"save: {where} is {value!r}, expected a JSON value, a module or a dataclass")


def _decoded(value: Any, state: Mapping[str, Tensor]) -> Any:
    if isinstance(value, list):
        return [_decoded(item, state) for item in value]
    if not isinstance(value, dict):
        return value
    kind = _imported(value[_CLASS])
    settings = {key: _decoded(item, state) for key, item in value[_SETTINGS].items()}
    if hasattr(kind, "rebuild"):
        return kind.rebuild(settings, state)
    return kind(**settings)


def _imported(path: str) -> Any:
    """Return a module's or dataclass' class; nothing else that can be imported is ever called."""
    module, _, name = path.partition(":")
    kind = importlib.import_module(module)
    for attribute in name.split("."):
        if not hasattr(kind, attribute):
            raise ImportError(f"{module} has no {name}")
        kind = getattr(kind, attribute)
    if not (isinstance(kind, type) and (issubclass(kind, nn.Module) or is_dataclass(kind))):
        raise UnusableWeights(f"{path} is no class of models")
    return kind

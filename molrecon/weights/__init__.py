"""Trained models as files: one store for all of them, the packaged ones, and their cards."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, TypeVar, overload

from torch import nn

from molrecon.reconstructors.defaults import DEFAULT_MODEL
from molrecon.weights.stored import UnusableWeights, read_class, read_model, write_model

FOLDER = Path(__file__).parent
PUBLISHED_SUFFIXES = (".tar", ".pth", ".pt")  # of MOL weights that other groups have published

Model = TypeVar("Model", bound=nn.Module)


def available_models(kind: type[nn.Module] = nn.Module) -> list[str]:
    """Return the names of the packaged models: all, or those of a class."""
    return [name for name, path in _packaged().items() if kind is nn.Module or issubclass(read_class(path), kind)]


def weights_path(name_or_path: str | Path) -> Path:
    """Return the file of a packaged model's name or of a path.

    Raises:
        FileNotFoundError: neither a packaged model nor a file; the message lists the models there are.
    """
    path = _packaged().get(str(name_or_path), Path(name_or_path))
    if not path.is_file():
        raise FileNotFoundError(
            f"weights: {name_or_path} is neither a file nor a packaged model, expected one of"
            f" {', '.join(available_models())}"
        )
    return path


@overload
def load(name_or_path: str | Path = ...) -> nn.Module: ...
@overload
def load(name_or_path: str | Path, kind: type[Model]) -> Model: ...
def load(name_or_path: str | Path = DEFAULT_MODEL, kind: type[nn.Module] = nn.Module) -> nn.Module:
    """Return any packaged or saved model in evaluation mode, on the CPU.

    A file names the classes of its model by their import paths, and they are imported: of a file that names other
    packages than molrecon, know where it comes from. Its numbers cannot run anything.

    Args:
        name_or_path: a packaged model's name, a file written by `save`, or MOL weights published with MnM-MOL
            (.pth.tar, .pth, .pt).
        kind: the class, or a base class, that is expected.

    Raises:
        FileNotFoundError: no such model or file.
        ValueError: the file is something else, or holds a model of another kind.
        ImportError: the file names a class, or a class needs a package, that is not installed.
    """
    path = weights_path(name_or_path)
    if path.suffix in PUBLISHED_SUFFIXES:
        from molrecon.weights.published import load_published_mol

        model: nn.Module = load_published_mol(path)
    else:
        try:
            model = read_model(path)
        except UnusableWeights as error:
            raise ValueError(f"{path}: not a molrecon model ({error}), expected a file written by save") from error
    if not isinstance(model, kind):
        raise ValueError(f"{path}: holds a {type(model).__name__}, expected a {kind.__name__}")
    return model.eval()


def save(model: nn.Module, path: str | Path, card: dict[str, Any], *, half: bool = False) -> None:
    """Write a model as safetensors, with what is needed to build it again, and the card beside it as JSON.

    Args:
        model: of any package, with a method `settings` that returns its constructor's arguments: JSON values, and
            modules and dataclasses of which the same holds.
        path: ends in .safetensors; the card gets the same name with .json.
        card: data, split, steps, seed, scores, licence of the data, intended use.
        half: store arrays of two and more axes in half precision, in half the bytes; they are single precision again
            when loaded. Numbers and vectors (steps) are not rounded.

    Raises:
        TypeError: a part of the model that could not be built again from the file.
        ValueError: another ending of the name; numbers that half precision cannot hold.
    """
    write_model(model, Path(path), card, half=half)


def load_card(name_or_path: str | Path = DEFAULT_MODEL) -> dict[str, Any]:
    """Return the model's card; empty when the file has none."""
    path = weights_path(name_or_path).with_suffix(".json")
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def weights_hash(name_or_path: str | Path = DEFAULT_MODEL) -> str:
    """Return the sha256 of the weights file in hexadecimal."""
    return hashlib.sha256(weights_path(name_or_path).read_bytes()).hexdigest()


def _packaged() -> dict[str, Path]:
    """Return the files of the packaged models by name, in alphabetical order."""
    return {path.stem: path for path in sorted(FOLDER.glob("*/*.safetensors"), key=lambda path: path.stem)}

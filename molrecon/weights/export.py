"""A model as a folder that a hub of models takes: weights, what builds the model, and a page about it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from molrecon.io.atomic import write_atomically
from molrecon.reconstructors.base import Reconstructor
from molrecon.weights import load, load_card, weights_path
from molrecon.weights.model_page import model_page
from molrecon.weights.stored import UnusableWeights, read_header

WEIGHTS_FILE, CONFIG_FILE, PAGE_FILE = "model.safetensors", "config.json", "README.md"


def export_models(names: Sequence[str | Path], folder: str | Path) -> list[Path]:
    """Write `folder/NAME/{model.safetensors,config.json,README.md}` for each model, and return the folders.

    `molrecon.load` takes the weights from there. Files that are there already are left alone if they are the same;
    others stop the export before anything is written.

    Args:
        names: packaged models, or safetensors files, which are called by their stem.
        folder: is made if it is not there.

    Raises:
        FileNotFoundError: no such model.
        ValueError: a file of something else, two models of one name, or other files in the place of the new ones.
    """
    paths = [weights_path(name) for name in names]
    stems = [path.stem for path in paths]
    if repeated := sorted({stem for stem in stems if stems.count(stem) > 1}):
        raise ValueError(f"export: {', '.join(repeated)} more than once, expected models of different names")
    contents = {Path(folder) / path.stem / name: content for path in paths for name, content in _contents(path).items()}
    missing = {path: content for path, content in contents.items() if not path.exists()}
    for path, content in contents.items():
        if path not in missing and not (path.is_file() and path.read_bytes() == content):
            raise ValueError(f"{path}: is there, and differs from the file to write, expected another folder")
    for path, content in missing.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content)
    return [Path(folder) / stem for stem in stems]


def _contents(path: Path) -> dict[str, bytes]:
    try:
        header = read_header(path)
    except UnusableWeights as error:
        raise ValueError(f"{path}: not a molrecon model ({error}), expected a file written by save") from error
    model, card, weights = load(path), load_card(path), path.read_bytes()
    config = {
        "library_name": "molrecon",
        "architectures": [type(model).__name__],
        **header,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
        "card": card,
    }
    page = model_page(path.stem, card, tags=_tags(model), properties=_properties(model, config))
    return {
        WEIGHTS_FILE: weights,
        CONFIG_FILE: (json.dumps(config, indent=2) + "\n").encode(),
        PAGE_FILE: page.encode(),
    }


def _tags(model: nn.Module) -> list[str]:
    """Return what a hub's visitors may look for."""
    domain = ["mri", "medical-imaging", "image-reconstruction"] if isinstance(model, Reconstructor) else []
    return ["inverse-problems", *domain, type(model).__name__.lower()]


def _properties(model: nn.Module, config: dict[str, Any]) -> dict[str, str]:
    properties = {"class": f"`{config['class']}`", "parameters": f"{config['parameters']:,}"}
    if isinstance(model, Reconstructor):
        certificate = model.certificate()
        properties["certificate"] = certificate.kind
        if certificate.kind != "none":
            properties["Lipschitz bound of the denoiser"] = f"{certificate.lipschitz:.6g}"
            properties["monotonicity"] = f"{certificate.monotonicity:.6g}"
    return properties | {"sha256 of the weights": f"`{config['weights_sha256']}`"}

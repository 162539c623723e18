"""The page about a model, Markdown with YAML before it, as Hugging Face's hub and `huggingface_hub` read it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

SCORED = {"validation": "data held out for validation", "test": "data held out for the test"}
METRICS = ("psnr", "ssim", "nmse")
FREE = "none needed"  # what a card says of the licence of simulated data

USE = """```python
from molrecon import load

model = load("model.safetensors")
```

The file holds what builds the model; `config.json` repeats it to be read. Research use only: no medical device.
"""
RECONSTRUCT = """A scan is reconstructed by `molrecon reconstruct scan.h5 --model model.safetensors --out images`.
"""


def model_page(name: str, card: Mapping[str, Any], *, tags: Sequence[str], properties: Mapping[str, str]) -> str:
    """Return the page.

    Args:
        name: of the model.
        card: its card, see `molrecon.weights.save`; all of it is on the page. Scores that begin with `validation_` or
            `test_`, and are a PSNR, an SSIM or an NMSE, are the model's own: the YAML names them as `model-index`.
        tags: for the hub.
        properties: rows of the table before those of the card, by their names.
    """
    tag = _pipeline_tag(tags, card)
    page = ["---", *_licence(str(card.get("licence", ""))), "library_name: molrecon"]
    page += [f"pipeline_tag: {tag}"] if tag else []
    page += ["tags:", *(f"- {_quoted(item)}" for item in tags)]
    page += _model_index(name, card.get("scores", {}), tag or "other")
    page += ["---", "", f"# {name}", "", f"{card.get('model', card.get('problem', 'A model of molrecon'))}.", "", USE]
    rows = {key.replace("_", " "): _cell(value) for key, value in card.items() if key not in ("name", "scores")}
    page += [RECONSTRUCT] if "mri" in tags else []
    page += _table("", {**properties, **rows})
    if scores := _flat(card.get("scores", {})):
        page += ["", "## Scores", "", *_table("score", {key: _cell(value) for key, value in scores.items()})]
    return "\n".join(page) + "\n"


def _licence(text: str) -> list[str]:
    """Return the YAML of the licence: the weights are no freer than the data that they were trained on."""
    if FREE in text:
        return ["license: mit"]
    return ["license: other", "license_name: terms-of-the-training-data"]


def _pipeline_tag(tags: Sequence[str], card: Mapping[str, Any]) -> str | None:
    """Return the hub's word for models from images to images; None for codes of vectors, for which it has none."""
    makes_images = "model" in card or "mri" in tags
    return "image-to-image" if makes_images else None


def _model_index(name: str, scores: Mapping[str, Any], task: str) -> list[str]:
    lines = []
    for start, data in SCORED.items():
        metrics = []
        for key, value in _flat(scores).items():
            words = key.split("_")
            metric = next((word for word in METRICS if word in words), None)
            if words[0] == start and metric is not None:
                metrics.append(
                    f"    - {{type: {metric}, name: {_quoted(key.replace('_', ' '))}, value: {_number(value)}}}"
                )
        if metrics:
            lines += [f"  - task: {{type: {task}}}", f"    dataset: {{type: {start}, name: {_quoted(data)}}}"]
            lines += ["    metrics:", *metrics]
    return ["model-index:", f"- name: {_quoted(name)}", "  results:", *lines] if lines else []


def _flat(scores: Mapping[str, Any]) -> dict[str, Any]:
    """Return one number a key: of a mapping each, of a list, by layers or steps, the last."""
    flat = {}
    for key, value in scores.items():
        if isinstance(value, Mapping):
            flat.update({f"{key}_{item}": number for item, number in value.items()})
        elif isinstance(value, list):
            flat[f"{key}_last"] = value[-1]
        else:
            flat[key] = value
    return flat


def _table(title: str, rows: Mapping[str, str]) -> list[str]:
    return [f"| {title} | |", "|---|---|", *(f"| {key.replace('_', ' ')} | {value} |" for key, value in rows.items())]


def _cell(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return " ".join(text.replace("|", "\\|").split())


def _number(value: float) -> str:
    """Return a number of YAML, which takes 1e-07 for a word and 1.0e-07 for a number."""
    text = repr(float(value))
    return text if "." in text else text.replace("e", ".0e")


def _quoted(text: str) -> str:
    """Return a string of YAML: JSON's are."""
    return json.dumps(text, ensure_ascii=False)

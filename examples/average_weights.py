"""Average the weights of trainings that began at the same ones: `python examples/average_weights.py A B --out C`.

    python examples/average_weights.py A B [...] --out C.safetensors [--first G.safetensors]

A, B are packaged models or files of one kind and size; with --first their guides give way to G. Every parameter of C is
the mean of theirs. Where trainings went on from common weights, by other seeds, guides or limits, that is better than
each of them, at no cost (Wortsman et al., Model soups, ICML 2022). What a strictly monotone network guarantees holds
for all values of its parameters, and so for the mean: certificate and m stay.

Errors: models whose parameters differ in name or shape.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # to run from a checkout that is not installed

from molrecon.reconstructors.learned import LearnedReconstructor
from molrecon.reconstructors.mol import MOL
from molrecon.weights import load, save, weights_hash


@torch.no_grad()
def average(models: Sequence[LearnedReconstructor]) -> LearnedReconstructor:
    """Return a copy of the first of the models with the mean of the parameters of all.

    Raises:
        ValueError: parameters that differ in name or shape.
    """
    shapes = [{name: tuple(parameter.shape) for name, parameter in model.named_parameters()} for model in models]
    for number, other in enumerate(shapes[1:], start=2):
        if other != shapes[0]:
            differing = sorted(set(other.items()) ^ set(shapes[0].items()))[0]
            raise ValueError(f"average: model {number} differs from the first in {differing}, expected equal shapes")
    averaged, terms = deepcopy(models[0]), [dict(model.named_parameters()) for model in models]
    for name, parameter in averaged.named_parameters():
        parameter.copy_(torch.stack([term[name] for term in terms]).mean(0))
    return averaged


def with_first(model: MOL, first: LearnedReconstructor) -> MOL:
    """Return a model with the same parameters that another one guides."""
    guided = MOL(**{**model.settings(), "first": first})
    guided.log_data_weight = model.log_data_weight
    return guided


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", metavar="NAME_OR_FILE")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--first", metavar="NAME_OR_FILE", help="what guides the average in place of their own guides")
    arguments = parser.parse_args()
    models = [load(name, LearnedReconstructor) for name in arguments.models]
    if arguments.first is not None:
        first = load(arguments.first, LearnedReconstructor)
        models = [with_first(model, first) if isinstance(model, MOL) else model for model in models]
    card = {"name": arguments.out.stem, "average_of": [weights_hash(name) for name in arguments.models]}
    save(average(models), arguments.out, card)


if __name__ == "__main__":
    main()

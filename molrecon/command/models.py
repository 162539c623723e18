"""`molrecon models`: the packaged models, their cards, and folders that a hub of models takes."""

from __future__ import annotations

import argparse

from molrecon.command.shared.exit_codes import EXIT_OK
from molrecon.command.shared.messages import usage

HELP = "the packaged models and their cards"
DESCRIPTION = (
    "List the packaged models with their cards, or export them: for each model NAME the folder receives"
    " NAME/model.safetensors, which every command takes as a model, NAME/config.json and NAME/README.md, a page as"
    " Hugging Face's hub reads it. Other files in their places are not replaced."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help="packaged models or safetensors files (default: all packaged ones)",
    )
    parser.add_argument("--export", metavar="DIR", help="write each of them to a folder of its own in DIR")


def run(args: argparse.Namespace) -> int:
    """Print the models and their cards, or export the models."""
    from molrecon.weights import available_models, load_card
    from molrecon.weights.export import export_models

    names = args.names or available_models()
    with usage():
        if args.export is not None:
            print("\n".join(map(str, export_models(names, args.export))))
            return EXIT_OK
        cards = {name: load_card(name) for name in names}
    for name, card in cards.items():
        print(name)
        for key, value in card.items():
            print(f"    {key}: {value}")
    return EXIT_OK

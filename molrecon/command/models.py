"""`molrecon models`: the packaged models and their cards."""

from __future__ import annotations

import argparse

from molrecon.command.exit_codes import EXIT_OK

HELP = "the packaged models and their cards"
DESCRIPTION = "List the packaged models."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""


def run(args: argparse.Namespace) -> int:
    """Print the name and the card of every packaged model."""
    from molrecon.weights import available_models, load_card

    for name in available_models():
        print(name)
        for key, value in load_card(name).items():
            print(f"    {key}: {value}")
    return EXIT_OK

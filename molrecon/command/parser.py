"""The `molrecon` command: its parser, and the way from the arguments to the command that they ask for.

A command is a module of this package with the members of `Command`, and its name in COMMANDS. Modules of commands
import torch, and whatever else takes long, inside their functions: help and wrong arguments do not wait for it.
"""

from __future__ import annotations

import argparse
import logging
import re
import sys
from collections.abc import Sequence
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol, cast

from molrecon import __version__
from molrecon.command.shared.arguments import add_verbose
from molrecon.command.shared.exit_codes import (
    EXIT_CODES,
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_UNREADABLE,
    EXIT_USAGE,
)
from molrecon.command.shared.messages import UsageError, complain

COMMANDS = (
    "demo",
    "info",
    "reconstruct",
    "status",
    "report",
    "serve",
    "compare",
    "certify",
    "robustness",
    "cs",
    "train",
    "models",
)

DESCRIPTION = """Deep-equilibrium MRI reconstruction with certificates.

Begin with `molrecon demo`; `molrecon COMMAND --help` says what a command takes and writes.
"""
EPILOG = f"""{EXIT_CODES}

Existing outputs are replaced, unless `reconstruct --resume` finds that they would come out the same. No command
replaces its inputs. Messages go to stderr.
"""

log = logging.getLogger("molrecon")


class Command(Protocol):
    """What the module of a command holds.

    Attributes:
        HELP: a few words for the list of commands.
        DESCRIPTION: what its own help opens with.
    """

    HELP: str
    DESCRIPTION: str

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        """Add the arguments; `--verbose` is there for every command."""

    @staticmethod
    def run(args: argparse.Namespace) -> int:
        """Carry the command out, and return its exit code.

        First thing, it makes sure that nothing it writes replaces what it reads: `inputs.protect`, or `check_outputs`.
        """


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with the given arguments (None: those of the process) and return its exit code."""
    args = build_parser().parse_args(argv)
    return dispatch(find_command(args.command), args)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="molrecon",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=partial(argparse.RawDescriptionHelpFormatter, max_help_position=20),
    )
    parser.add_argument("--version", action=_ShowVersion)
    commands = parser.add_subparsers(title="commands", dest="command", required=True, metavar="COMMAND")
    for name in COMMANDS:
        command = find_command(name)
        subparser = commands.add_parser(name, help=command.HELP, description=command.DESCRIPTION)
        command.add_arguments(subparser)
        add_verbose(subparser)
    return parser


def find_command(name: str) -> Command:
    """Return the module of a command."""
    return cast(Command, import_module(f"molrecon.command.{name}"))


def dispatch(command: Command, args: argparse.Namespace) -> int:
    """Run a command, turn what it raises into a message, and return the exit code."""
    from molrecon.io import UnreadableInput

    logging.basicConfig(level=logging.DEBUG if args.verbose else logging.WARNING, format="molrecon: %(message)s")
    logging.getLogger("matplotlib").setLevel(logging.WARNING)
    if "device" in args:  # it computes: torch is loaded anyway
        from molrecon.scans.memory.allocator import tune_for

        tune_for(getattr(args, "memory", None))
    try:
        return command.run(args)
    except UsageError as error:
        return complain(error, EXIT_USAGE)
    except UnreadableInput as error:
        return complain(error, EXIT_UNREADABLE)
    except BrokenPipeError:  # whoever read the output has seen enough
        sys.stdout = None  # else Python flushes it once more, and complains
        return EXIT_OK
    except KeyboardInterrupt:
        return complain("interrupted", EXIT_INTERRUPTED)
    except Exception as error:  # a traceback helps developers only: --verbose shows it
        log.debug("traceback", exc_info=True)
        return complain(f"{type(error).__name__}: {error}", EXIT_FAILED)


class _ShowVersion(argparse.Action):
    """argparse's own action, but the versions are looked up when they are asked for: that takes a while."""

    def __init__(self, option_strings: Sequence[str], dest: str) -> None:
        super().__init__(option_strings, dest, nargs=0, help="show program's version number and exit")

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        print(f"molrecon {__version__} (torch {_torch_version()})")
        parser.exit()


def _torch_version() -> str:
    """Return `torch.__version__` without the second that importing torch takes; it names the build, metadata do not."""
    spec = find_spec("torch")
    if spec is None or spec.origin is None:
        return "(not installed)"
    text = Path(spec.origin).with_name("version.py").read_text("utf-8")
    match = re.search(r"^__version__ = ['\"](.+)['\"]$", text, re.M)
    return "(unknown)" if match is None else match[1]

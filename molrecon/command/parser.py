"""The `molrecon` command: its parser, and the way from the arguments to the command that they ask for.

A command is a module of this package with the members of `Command`, and its name in COMMANDS. Modules of commands
import torch, and whatever else takes long, inside their functions: help and wrong arguments do not wait for it.
"""

from __future__ import annotations

import argparse
import logging
import re
from collections.abc import Sequence
from importlib import import_module, metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol, cast

from molrecon.command.exit_codes import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_UNREADABLE, EXIT_USAGE
from molrecon.command.messages import UsageError, complain
from molrecon.command.shared_arguments import add_verbose

COMMANDS = (
    "demo",
    "reconstruct",
    "compare",
    "certify",
    "robustness",
    "cs",
    "train",
    "models",
)

DESCRIPTION = """The `molrecon` command.

    molrecon demo [--out DIR]                   a real head, scanned in simulation four times too fast, reconstructed
    molrecon reconstruct INPUT... --out DIR     scans (files or folders of files) to images with a report each
    molrecon compare INPUT --accel R ...        methods side by side on a fully sampled scan
    molrecon certify MODEL [--data FILE]        what is guaranteed about a model, and a search for violations of it
    molrecon robustness INPUT --accel R ...     PSNR of perturbed data, random and worst-case, with what is guaranteed
    molrecon cs --image FILE --ratio R          compressed sensing of a photograph, simulated and reconstructed
    molrecon train DATA... --out DIR            a reconstructor of your own, on fastMRI files or image stacks
    molrecon models                             the packaged models and their cards

Exit codes:
    0  ok
    2  usage: arguments that make no sense, an unknown model, a scan that is not fully sampled in `compare`
    3  unreadable input (of several inputs: all of them)
    4  some volumes failed; the others are reconstructed, and manifest.json in the output folder lists all of them
       (of any command: the disk is full; older files are as they were)
       (of `train`: some files could not be used; it is trained on the others)
    5  everything is written, but some slice did not converge to the tolerance; the outputs say which
       (in `compare`, of the methods with an error bound; l1-wavelet runs a fixed number of iterations);
       or a volume is incomplete: its file holds image data that were left out, such as further repetitions;
       or, with `reconstruct --strict`, there are warnings: data that do not fit the coil maps, the noise level or the
       image, and remarks about the file
    6  `certify` or `robustness` saw a model break what it promises; the output says how

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

        First thing, it makes sure that nothing it writes replaces what it reads: `files.protect`, or `check_outputs`.
        """


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with the given arguments (None: those of the process) and return its exit code."""
    args = build_parser().parse_args(argv)
    return dispatch(find_command(args.command), args)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="molrecon", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", action="version", version=f"molrecon {_version()} (torch {_torch_version()})")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name in COMMANDS:
        command = find_command(name)
        own = commands.add_parser(name, help=command.HELP, description=command.DESCRIPTION)
        command.add_arguments(own)
        add_verbose(own)
    return parser


def find_command(name: str) -> Command:
    """Return the module of a command."""
    return cast(Command, import_module(f"molrecon.command.{name}"))


def dispatch(command: Command, args: argparse.Namespace) -> int:
    """Run a command, turn what it raises into a message, and return the exit code."""
    from molrecon.io import UnreadableInput

    logging.basicConfig(level=logging.DEBUG if args.verbose else logging.WARNING, format="molrecon: %(message)s")
    logging.getLogger("matplotlib").setLevel(logging.WARNING)
    try:
        return command.run(args)
    except UsageError as error:
        return complain(error, EXIT_USAGE)
    except UnreadableInput as error:
        return complain(error, EXIT_UNREADABLE)
    except KeyboardInterrupt:
        return complain("interrupted", EXIT_INTERRUPTED)
    except Exception as error:  # a traceback helps developers only: --verbose shows it
        log.debug("traceback", exc_info=True)
        return complain(f"{type(error).__name__}: {error}", EXIT_FAILED)


def _version() -> str:
    try:
        return metadata.version("molrecon")
    except metadata.PackageNotFoundError:
        return "(not installed)"


def _torch_version() -> str:
    """Return `torch.__version__` without the second that importing torch takes; it names the build, metadata do not."""
    spec = find_spec("torch")
    if spec is None or spec.origin is None:
        return "(not installed)"
    found = re.search(
        r"^__version__ = ['\"](.+)['\"]$", Path(spec.origin).with_name("version.py").read_text("utf-8"), re.M
    )
    return metadata.version("torch") if found is None else found[1]

"""What the commands say: results on stdout, errors and warnings on stderr."""

from __future__ import annotations

import argparse
import errno
import json
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from molrecon.scans.data_warnings import DataWarning

DISK_FAILURES = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


class UsageError(Exception):
    """Arguments that argparse cannot judge and that make no sense all the same."""


@contextmanager
def usage() -> Iterator[None]:
    """Turn what the library says about arguments into a usage error; a full disk is none."""
    try:
        yield
    except (ValueError, TypeError, OSError) as error:
        from molrecon.io import UnreadableInput

        full_disk = isinstance(error, OSError) and error.errno in DISK_FAILURES
        if full_disk or isinstance(error, UnreadableInput):
            raise
        raise UsageError(str(error)) from error


def complain(message: object, code: int) -> int:
    """Print an error, and return the exit code that goes with it."""
    print(f"molrecon: error: {message}", file=sys.stderr)
    return code


def warn(path: str, warnings: Sequence[DataWarning]) -> None:
    """Print what is doubtful about the data of a file."""
    for warning in warnings:
        print(f"molrecon: warning: {path}: {warning}", file=sys.stderr, flush=True)


def tell(args: argparse.Namespace, content: dict[str, Any], text: str) -> None:
    """Print the text and write the content where `--json` says, or print the content alone for `--json -`."""
    from molrecon.scans.sidecar import plain, write_json

    if args.json == "-":
        print(json.dumps(plain(content), indent=2, allow_nan=False))
        return
    print(text)
    if args.json is not None:
        with usage():
            write_json(args.json, content)


def hide_folders(without: Callable[[str], str]) -> None:
    """Have the log handlers of this process print texts as `without` returns them."""
    from molrecon.scans.cohort.without_folders import FormatterWithoutFolders

    for handler in logging.getLogger().handlers:
        handler.setFormatter(FormatterWithoutFolders(handler.formatter or logging.Formatter(), without))

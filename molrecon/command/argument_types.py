"""Kinds of arguments of the `molrecon` command: each takes the text of one, or says what was expected."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def number(text: str) -> float:
    """Return any number."""
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}, expected a number") from None


def not_negative(text: str) -> float:
    """Return a finite number that is not negative."""
    value = number(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text}, expected a number that is not negative")
    return value


def positive(text: str) -> float:
    """Return a finite positive number."""
    value = number(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text}, expected a positive number")
    return value


def at_least_one(text: str) -> float:
    """Return a finite number of 1 or more."""
    value = number(text)
    if not 1 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text}, expected 1 or more")
    return value


def fraction(text: str) -> float:
    """Return a number from 0 to 1."""
    value = number(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text}, expected 0 to 1")
    return value


def count(text: str) -> int:
    """Return a whole number of 1 or more."""
    if not (text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text}, expected a whole number of 1 or more")
    return int(text)


def seed(text: str) -> int:
    """Return a whole number from 0 to 2^32 - 1."""
    if not (text.isdecimal() and int(text) < 2**32):
        raise argparse.ArgumentTypeError(f"{text}, expected a whole number from 0 to 2^32 - 1")
    return int(text)


def device(text: str) -> torch.device:
    """Return a torch device that can be used here."""
    import torch

    try:
        device = torch.device(text)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:  # torch without CUDA raises AssertionError
        raise argparse.ArgumentTypeError(f"{text!r} cannot be used here ({str(error).splitlines()[0]})") from None
    return device

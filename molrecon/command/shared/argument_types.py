"""Kinds of arguments of the `molrecon` command: each takes the text of one, or says what was expected."""

from __future__ import annotations

import argparse

DEVICES = ("cpu", "cuda", "mps", "xpu")


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


def positive_or_best(text: str) -> float | None:
    """Return a finite positive number, or None for the word best."""
    return None if text == "best" else positive(text)


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


def count_or_auto(text: str) -> int | str:
    """Return a whole number of 1 or more, or the word auto."""
    return text if text == "auto" else count(text)


def seed(text: str) -> int:
    """Return a whole number from 0 to 2^32 - 1."""
    if not (text.isdecimal() and int(text) < 2**32):
        raise argparse.ArgumentTypeError(f"{text}, expected a whole number from 0 to 2^32 - 1")
    return int(text)


def port(text: str) -> int:
    """Return the number of a port, 0 to 65535."""
    if not (text.isdecimal() and int(text) < 2**16):
        raise argparse.ArgumentTypeError(f"{text}, expected a whole number from 0 to 65535")
    return int(text)


def device(text: str) -> str:
    """Return the name of a device; whether it can be used here is for torch to say, once the command runs."""
    kind, colon, index = text.partition(":")
    if kind not in DEVICES or (colon and not index.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text!r}, expected {', '.join(DEVICES)}, or one of them with its number")
    return text


def file_stem(text: str) -> str:
    """Return the name of a file without a folder."""
    if not text or text in (".", "..") or "/" in text or "\\" in text:
        raise argparse.ArgumentTypeError(f"{text!r}, expected a name without a folder")
    return text


def devices(text: str) -> list[str]:
    """Return names of devices from a list with commas."""
    return [device(one.strip()) for one in text.split(",") if one.strip()]


def whole_numbers(text: str) -> list[int]:
    """Return whole numbers from a list with commas."""
    numbers = [item.strip() for item in text.split(",")]
    if not all(item.isdecimal() for item in numbers):
        raise argparse.ArgumentTypeError(f"{text!r}, expected whole numbers, comma-separated")
    return [int(item) for item in numbers]


def sizes(text: str) -> list[float]:
    """Return numbers that are not negative from a list with commas."""
    return [not_negative(item) for item in text.split(",")]


def methods(text: str) -> list[str]:
    """Return names from a list with commas, each of them once."""
    names = list(dict.fromkeys(name.strip() for name in text.split(",")))
    if "" in names:
        raise argparse.ArgumentTypeError(f"{text!r}, expected methods, comma-separated")
    return names

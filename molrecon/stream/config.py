"""What a peer may ask for: one of the configurations of a list, and a few parameters. Never a module or a file."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from typing import Any, Literal, final

Pixels = Literal["float32", "uint16"]

MOLRECON, CG_SENSE, NULL = "molrecon", "molrecon-cgsense", "null"
CONFIGS = {
    MOLRECON: "the model that the server was started with",
    CG_SENSE: "CG-SENSE, which needs no model",
    NULL: "nothing: the data are read, and no image is sent",
}
NAME_KEYS = ("config", "customconfig")  # of the parameters, in the order in which they overrule each other
MOST_STEPS = 100_000


class Refused(ValueError):
    """A scan that this server does not reconstruct; the message is for the operator of the scanner."""


@final
@dataclass(frozen=True)
class Request:
    """What is to be done with a scan.

    Attributes:
        config: as it was named; `checked` tells whether it is one of CONFIGS.
        tol: relative error bound to reach; None: the model's own.
        max_steps: most iterations a slice; None: the model's own.
        pixels: float32 in the units of the data, or uint16 of which 4095 is the brightest pixel of the scan.
        ignored: parameters that mean nothing here.
    """

    config: str = ""
    tol: float | None = None
    max_steps: int | None = None
    pixels: Pixels = "float32"
    ignored: tuple[str, ...] = ()

    def named(self, text: str) -> Request:
        """Return the request with the configuration that a config message names, or describes in JSON."""
        return self.with_json(text) if text.lstrip().startswith("{") else replace(self, config=text.strip())

    def with_json(self, text: str) -> Request:
        """Return the request with `{"parameters": {...}}` of a text in JSON. Values may be strings, as scanners send.

        Raises:
            Refused: a parameter whose value makes no sense.
            ValueError: no JSON object.
        """
        parameters = _parameters(text)
        config, ignored = self.config, []
        tol, max_steps, pixels = self.tol, self.max_steps, self.pixels
        for name, value in parameters.items():
            if name in NAME_KEYS:
                continue
            if name == "tol":
                tol = _number(name, value, "a number above 0 and below 1", 0 < _float(value) < 1)
            elif name == "maxsteps":
                number = _number(
                    name, value, f"a whole number from 1 to {MOST_STEPS}", 1 <= _float(value) <= MOST_STEPS
                )
                max_steps = int(number)
            elif name == "pixels":
                pixels = _pixels(value)
            else:
                ignored.append(str(name)[:40])
        for key in NAME_KEYS:
            if isinstance(named := parameters.get(key), str) and named.strip():
                config = named.strip()
        return Request(config, tol, max_steps, pixels, tuple(ignored))

    def checked(self) -> Request:
        """Return the request itself. Raises Refused unless its configuration is on the list."""
        if self.config not in CONFIGS:
            raise Refused(f"config {self.config[:80]!r}, expected one of {', '.join(CONFIGS)}")
        return self


def _parameters(text: str) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except RecursionError as error:
        raise ValueError("JSON nested too deeply") from error
    parameters = content.get("parameters", {}) if isinstance(content, dict) else None
    if not isinstance(parameters, dict):
        raise ValueError('JSON of another kind, expected {"parameters": {...}}')
    return parameters


def _float(value: object) -> float:
    try:
        return float(value) if isinstance(value, (str, int, float)) else math.nan
    except (ValueError, OverflowError):
        return math.nan


def _number(name: str, value: object, expected: str, sound: bool) -> float:
    if not (sound and math.isfinite(_float(value))):
        raise Refused(f"parameter {name} is {str(value)[:40]!r}, expected {expected}")
    return _float(value)


def _pixels(value: object) -> Pixels:
    if value == "float32":
        return "float32"
    if value == "uint16":
        return "uint16"
    raise Refused(f"parameter pixels is {str(value)[:40]!r}, expected float32 or uint16")

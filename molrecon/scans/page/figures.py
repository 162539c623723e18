"""The figures of a volume that the page of a cohort compares, and which of them stand out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np

OUTLIER_Z = 3.5
FEWEST = 5  # values: of fewer, none can be told to stand out
SMALLEST_SPREAD = math.log(1.1) / OUTLIER_Z  # of logarithms: what is within a tenth of the median is never odd


@final
@dataclass(frozen=True)
class Quantity:
    """A positive figure of a volume, small where nothing is wrong.

    Attributes:
        key: of `figures`.
        title: for people.
        low_stands_out: whether a value far below the others is as odd as one far above.
    """

    key: str
    title: str
    low_stands_out: bool = True


QUANTITIES = (
    Quantity("error_bound", "error bound", low_stands_out=False),
    Quantity("noise", "noise / maximum"),
    Quantity("seconds", "seconds"),
    Quantity("n_steps", "iterations"),
)


def figures(sidecar: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is worth comparing of a volume, from its sidecar (`sidecar.make_sidecar`); empty for another file.

    Keys: `kind` of the bounds, `slices`, the worst `error_bound`, the `noise` level relative to the image's maximum,
    `seconds`, and `n_steps`, the most iterations of a slice. None where a figure is unknown.
    """
    try:
        steps = [int(one["n_steps"]) for one in sidecar["slices"]]
        return {
            "kind": sidecar["summary"]["kind"],
            "slices": len(steps),
            "error_bound": sidecar["summary"]["worst_error_bound"],
            "noise": sidecar["noise"]["relative_to_image_maximum"],
            "seconds": sidecar["seconds"],
            "n_steps": max(steps, default=None),
        }
    except (KeyError, TypeError, ValueError):
        return {}


def positive(value: Any) -> float | None:
    """Return a value as a number if it is positive and finite, else None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if value > 0 and math.isfinite(value) else None


def short(value: float) -> str:
    """Return a positive number in at most two digits, or all of those before the point."""
    return f"{value:.0f}" if 10 <= value < 1e6 else f"{value:.2g}"


def robust_z(values: Sequence[float | None]) -> list[float]:
    """Return `z = (v - median) / (1.4826 MAD)` of the logarithms v of positive values; 0 where there is no value.

    MAD is the median of `|v - median|`; 1.4826 MAD counts as 0.027 at least, so that no value within a tenth of the
    median has a z beyond 3.5, however much alike the others are. Of fewer than 5 values all z are 0.

    Reference: Iglewicz and Hoaglin, How to detect and handle outliers, 1993.
    """
    logarithms = [(k, math.log(value)) for k, value in enumerate(values) if value is not None]
    scores = [0.0] * len(values)
    if len(logarithms) < FEWEST:
        return scores
    logs = np.array([value for _, value in logarithms])
    deviations = logs - np.median(logs)
    spread = max(1.4826 * float(np.median(np.abs(deviations))), SMALLEST_SPREAD)
    for (k, _), z in zip(logarithms, deviations / spread, strict=True):
        scores[k] = float(z)
    return scores


def stands_out(z: float, quantity: Quantity) -> bool:
    """Tell whether a volume with this z is an outlier."""
    return (abs(z) if quantity.low_stands_out else z) > OUTLIER_Z

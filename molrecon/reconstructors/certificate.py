"""What is guaranteed about a model's equilibrium, and how it follows from a bound of its denoiser."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

from molrecon.solvers.solution import Kind


@final
@dataclass(frozen=True)
class Certificate:
    """What is guaranteed about a model's equilibrium.

    Attributes:
        kind: "certified" when every number follows from true upper bounds, "estimated" when any of them was only
            observed or assumed, "none" when nothing is known: then all numbers are NaN.
        lipschitz: upper bound of Lip(H), the denoiser.
        monotonicity: m, with `Re <F(x) - F(y), x - y> >= m |x - y|^2` for the score F = I - H; `1 - lipschitz`.
        contraction: q, the factor by which one plain step brings two images closer (at alpha = 1).
        robustness: c, with `|x*(b1) - x*(b2)| <= c |b1 - b2|` at lambda = 1; it is `sqrt(lambda) c` at others.
    """

    kind: Kind
    lipschitz: float
    monotonicity: float
    contraction: float
    robustness: float


NO_CERTIFICATE = Certificate("none", math.nan, math.nan, math.nan, math.nan)


def certificate(lipschitz: float, *, certified: bool) -> Certificate:
    """Return the certificate that follows from a bound of Lip(H).

    `Lip(H) <= 1 - m` gives monotonicity m and, at alpha = 1, contraction `1 - m` (the resolvent is non-expansive).
    Robustness: from `m |dx|^2 + lambda |A dx|^2 <= lambda |A dx| |db|` (monotonicity of F applied to two equilibria)
    follows `|dx|^2 <= max_t (lambda t |db| - lambda t^2) / m = lambda |db|^2 / (4 m)`, so `c = 1 / (2 sqrt(m))`. It is
    not finite without monotonicity.
    """
    m = 1.0 - lipschitz
    robustness = 0.5 / math.sqrt(m) if m > 0 else math.inf
    kind: Kind = "certified" if certified and m > 0 else "estimated"
    return Certificate(kind, lipschitz, m, lipschitz, robustness)

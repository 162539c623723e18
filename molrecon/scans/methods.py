"""Reconstruction methods by the names that commands use: three without training, and everything that has weights."""

from __future__ import annotations

from molrecon.reconstructors.base import Reconstructor
from molrecon.reconstructors.classical import CGSense, L1Wavelet, ZeroFilled
from molrecon.scans.sidecar import ModelSource
from molrecon.weights import load, weights_hash

UNTRAINED: dict[str, type[ZeroFilled] | type[CGSense] | type[L1Wavelet]] = {
    "zero-filled": ZeroFilled,
    "cg-sense": CGSense,
    "l1-wavelet": L1Wavelet,
}


def load_method(name: str) -> tuple[Reconstructor, ModelSource]:
    """Return a method and where it came from.

    Args:
        name: one of UNTRAINED, with its default settings, a packaged model, or a file of weights (see
            `molrecon.weights.load`).

    Raises:
        FileNotFoundError: no such method, model or file.
        ValueError: a file of something else, or of a model that reconstructs no k-space.
    """
    if name in UNTRAINED:
        return UNTRAINED[name](), ModelSource(name, None)
    return load(name, Reconstructor), ModelSource(name, weights_hash(name))

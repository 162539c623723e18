"""Reconstruction methods by the names that commands use: three without training, and everything that has weights."""

from __future__ import annotations

import hashlib

from molrecon.reconstructors.base import Reconstructor
from molrecon.reconstructors.classical import CGSense, L1Wavelet, ZeroFilled
from molrecon.reconstructors.defaults import AUTOMATIC, DEFAULT_MODEL, SERIES_MODEL
from molrecon.scans.kinds.choice import Automatic
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
            `molrecon.weights.load`). AUTOMATIC: the packaged models of slices and series, of which each scan gets the
            one that fits it (`molrecon.scans.kinds.choice`); its hash is that of their two hashes.

    Raises:
        FileNotFoundError: no such method, model or file.
        ValueError: a file of something else, or of a model that reconstructs no k-space.
    """
    if name in UNTRAINED:
        return UNTRAINED[name](), ModelSource(name, None)
    if name == AUTOMATIC:
        slices, series = load_method(DEFAULT_MODEL), load_method(SERIES_MODEL)
        sources = slices[1], series[1]
        digest = hashlib.sha256("".join(str(source.weights_sha256) for source in sources).encode()).hexdigest()
        return Automatic(slices[0], series[0], sources), ModelSource(name, digest)
    return load(name, Reconstructor), ModelSource(name, weights_hash(name))

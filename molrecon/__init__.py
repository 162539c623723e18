"""Deep-equilibrium MRI reconstruction with certificates: monotone operator learning and what it is compared with.

Six lines: `from molrecon import load, read_volume, reconstruct_volume`, then

    model = load("mol-guided-2d")
    result = reconstruct_volume(read_volume("scan.h5"), model)
    result.image            # (slices, rows, cols) magnitudes in the units of the scan
    result.error_bound      # of each slice: how far at most from its unique equilibrium
    result.certificate      # what is guaranteed about the model

Importing molrecon imports nothing else: each name below brings its own module along when it is first asked for.
"""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from molrecon.io import RawVolume, UnreadableInput, read_volume
    from molrecon.reconstructors.base import Reconstructor
    from molrecon.reconstructors.certificate import Certificate
    from molrecon.reconstructors.mol import MOL
    from molrecon.scans.cohort.run import reconstruct_file
    from molrecon.scans.reconstruction import Reconstruction, reconstruct_volume
    from molrecon.scans.settings import Settings
    from molrecon.solvers.solution import Solution
    from molrecon.solvers.solver_settings import SolverSettings
    from molrecon.stream import process
    from molrecon.weights import available_models, load

__version__ = "0.2.0"

__all__ = [
    "MOL",
    "Reconstructor",
    "Certificate",
    "RawVolume",
    "Reconstruction",
    "Settings",
    "Solution",
    "SolverSettings",
    "UnreadableInput",
    "available_models",
    "load",
    "process",
    "read_volume",
    "reconstruct_file",
    "reconstruct_volume",
]

# Where each name is defined; a test holds this against the imports above, which type checkers and editors read.
_HOMES = {
    "MOL": "molrecon.reconstructors.mol",
    "Certificate": "molrecon.reconstructors.certificate",
    "RawVolume": "molrecon.io",
    "Reconstruction": "molrecon.scans.reconstruction",
    "Reconstructor": "molrecon.reconstructors.base",
    "Settings": "molrecon.scans.settings",
    "Solution": "molrecon.solvers.solution",
    "SolverSettings": "molrecon.solvers.solver_settings",
    "UnreadableInput": "molrecon.io",
    "available_models": "molrecon.weights",
    "load": "molrecon.weights",
    "process": "molrecon.stream",
    "read_volume": "molrecon.io",
    "reconstruct_file": "molrecon.scans.cohort.run",
    "reconstruct_volume": "molrecon.scans.reconstruction",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        value = getattr(importlib.import_module(_HOMES[name]), name)
        globals()[name] = value  # the next time it is found without this function
        return value
    if not name.startswith("_") and find_spec(f"{__name__}.{name}"):
        return importlib.import_module(f"{__name__}.{name}")  # `import molrecon` alone serves `molrecon.io.read_npy`
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

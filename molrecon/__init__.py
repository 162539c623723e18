"""Deep-equilibrium MRI reconstruction with certificates: monotone operator learning and what it is compared with.

Six lines: `from molrecon import load, read_volume, reconstruct_volume`, then

    model = load("mol-brain-2d")
    result = reconstruct_volume(read_volume("scan.h5"), model)
    result.image            # (slices, rows, cols) magnitudes in the units of the scan
    result.error_bound      # of each slice: how far at most from its unique equilibrium
    result.certificate      # what is guaranteed about the model
"""

from molrecon.cohort import Settings, reconstruct_file
from molrecon.io import RawVolume, UnreadableInput, read_volume
from molrecon.lipschitz import Certificate
from molrecon.mol import MOL
from molrecon.pipeline import Reconstruction, reconstruct_volume
from molrecon.reconstructor import Reconstructor
from molrecon.solution import Solution
from molrecon.solver_settings import SolverSettings
from molrecon.weights import available_models, load

__version__ = "0.1.0"

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
    "read_volume",
    "reconstruct_file",
    "reconstruct_volume",
]

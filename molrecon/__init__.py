"""Deep-equilibrium MRI reconstruction with certificates: monotone operator learning and what it is compared with.

Six lines: `from molrecon import load_model, read_volume, reconstruct_volume`, then

    model = load_model()
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
from molrecon.solution import Solution
from molrecon.weights import available_models, load_model

__version__ = "0.1.0"

__all__ = [
    "MOL",
    "Certificate",
    "RawVolume",
    "Reconstruction",
    "Settings",
    "Solution",
    "UnreadableInput",
    "available_models",
    "load_model",
    "read_volume",
    "reconstruct_file",
    "reconstruct_volume",
]

"""From a raw volume to an image volume with a report on every slice.

volume = molrecon.io.read_volume("scan.h5")
model = molrecon.weights.load("mol-guided-2d", Reconstructor)
result = reconstruct_volume(volume, model)
result.image         # (slices, rows, cols) float32, in the units of the input
result.error_bound   # (slices,): each slice is within this relative distance of the exact equilibrium

volume   `reconstruct_volume`, and `reconstruct_prepared`, its second half
slices   any method on the slices of a prepared volume, a few at a time
report   solved slices with the checks of their data and the warnings
result   what comes out, a `Reconstruction`
device   a model on a device, and the caller's own left where it is
adaptation   the strength of a learned prior, judged by withheld lines
"""

from __future__ import annotations

from molrecon.scans.reconstruction.adaptation import Adaptation, NotAdaptable, adapt
from molrecon.scans.reconstruction.device import on_device
from molrecon.scans.reconstruction.report import assemble_reconstruction
from molrecon.scans.reconstruction.result import Reconstruction, Unit
from molrecon.scans.reconstruction.slices import Method, SliceSolutions, solve_slices
from molrecon.scans.reconstruction.volume import reconstruct_prepared, reconstruct_volume

__all__ = [
    "Adaptation",
    "Method",
    "NotAdaptable",
    "Reconstruction",
    "SliceSolutions",
    "Unit",
    "adapt",
    "assemble_reconstruction",
    "on_device",
    "reconstruct_prepared",
    "reconstruct_volume",
    "solve_slices",
]

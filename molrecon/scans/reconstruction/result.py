"""A reconstructed volume, with what is known about every slice of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, final

import numpy as np

from molrecon.io.geometry import Geometry
from molrecon.reconstructors.certificate import Certificate
from molrecon.scans.data_checks import SliceChecks
from molrecon.scans.data_warnings import DataWarning
from molrecon.scans.reconstruction.adaptation import Adaptation
from molrecon.solvers.solution import Kind
from molrecon.solvers.solver_settings import SolverSettings

Unit = Literal["slice", "volume", "series"]


@final
@dataclass(frozen=True, eq=False)
class Reconstruction:
    """A reconstructed volume, or a series of volumes (`joined`).

    Of a series the image is (time, slices, rows, cols), and what is (slices,) holds the slices of all frames one after
    another.

    Attributes:
        image: (slices, rows, cols) float32, magnitude in the units of the input, comparable with the root sum of
            squares of the coil images; cropped to the recon matrix.
        method: the class of the reconstructor.
        error_bound: (slices,), upper bound of the relative distance to the exact solution of the method's own equation;
            a guarantee when `kind` is "certified", NaN when it is "none". 0 in slices without data. Where several
            slices are one problem (`unit`) each has the bound of them all: of `|x - x*| / |x|` with norms over them.
        kind: what the bounds rest on, see `Solution`.
        residuals: as in `Solution`, one array per slice.
        converged: (slices,) bool, the goal of `solver` was reached. n_steps: (slices,) int.
        empty: (slices,) bool, the slice holds no data and is delivered as zeros.
        voxel_size: mm (row, column, slice), or None.
        noise_level: the complex noise standard deviation that was used, in the units of kspace.
        scale: (slices,), the intensity by which the model divided each slice, in the units of the image; 1 where empty.
        certificate: what is guaranteed about the model.
        solver: goals and limits of the iterations; None for a method that iterates nothing.
        seconds: from the raw data to the image, sensitivity maps included.
        left_out: what the file holds and the image does not, as in `RawVolume`.
        checks: how well the data of each slice fit their model and image; empty slices have none, and of a 3D scan
            `report.CHECKED_PLANES` slices are checked.
        warnings: what the checks, the noise estimates and the reader of the file give reason to warn of; those of the
            whole volume first, then slice by slice.
        geometry: where the voxels are in the patient, or None.
        time_step: of a series, seconds from frame to frame; None where it is unknown.
        unit: what one problem was: a "slice", all slices of a 3D scan ("volume"), or a slice at all times ("series").
        last_residual: (slices, rows, cols) float32, magnitude of `Solution.last_residual`, in the units of the image:
            what is left of the method's equation, pixel by pixel, and no map of the error. Of a series that of its
            first frame. None where it was not asked for, or the method has none.
        complex_image: complex64 of the shape of the image, which is its magnitude; the phase is relative to that of the
            coil maps, and of several sets that of the first. None where it was not asked for.
        adaptation: the noise level that the model was told; None: that of the scan.
        noise: standard deviation and amplification, of the shape of the image each, see `NoiseMaps`; None likewise.
    """

    image: np.ndarray
    method: str
    error_bound: np.ndarray
    kind: Kind
    residuals: list[np.ndarray]
    converged: np.ndarray
    n_steps: np.ndarray
    empty: np.ndarray
    voxel_size: tuple[float, float, float] | None
    noise_level: float
    scale: np.ndarray
    certificate: Certificate
    solver: SolverSettings | None
    seconds: float
    left_out: Mapping[str, int] = field(default_factory=dict)
    checks: list[SliceChecks] = field(default_factory=list)
    warnings: list[DataWarning] = field(default_factory=list)
    geometry: Geometry | None = None
    time_step: float | None = None
    unit: Unit = "slice"
    last_residual: np.ndarray | None = None
    complex_image: np.ndarray | None = None
    noise: tuple[np.ndarray, np.ndarray] | None = None
    adaptation: Adaptation | None = None

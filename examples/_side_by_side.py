"""Zero-filling, CG-SENSE and a model of volumes or series on one simulated scan, for the examples of both."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import final

import numpy as np
import torch

from molrecon.reconstructors.base import Reconstructor
from molrecon.reconstructors.classical import CGSense, ZeroFilled
from molrecon.scans.metrics import psnr, ssim
from molrecon.scans.reconstruction import Reconstruction
from molrecon.scans.scan import Scan
from molrecon.scans.scan_reconstruction import reconstruct_scan
from molrecon.scans.settings import Settings
from molrecon.simulation.problem import Problem
from operators import centred_ifft


@final
@dataclass(frozen=True, eq=False)
class SideBySide:
    """What methods made of one simulated problem.

    Attributes:
        magnitudes: "reference", "zero-filled", "CG-SENSE", "MOL"; (n, rows, cols) float32 each.
        result: of MOL.
        plan: how it stayed inside the memory, in a sentence; empty without a budget.
    """

    magnitudes: dict[str, np.ndarray]
    result: Reconstruction
    plan: str

    def lines(self) -> list[str]:
        """Return PSNR and SSIM of every method, and how far MOL is from its equilibrium, a line each."""
        reference = self.magnitudes["reference"]
        scores = [
            f"{name:<12} PSNR {psnr(reference, image):.2f} dB  SSIM {ssim(reference, image):.4f}"
            for name, image in self.magnitudes.items()
            if name != "reference"
        ]
        bound, steps = self.result.error_bound.max(), self.result.n_steps.max()
        return [
            *scores,
            f"MOL is within {bound:.1e} of its exact equilibrium ({self.result.certificate.kind}) after {steps}"
            f" iterations, which see a {self.result.unit} at a time",
        ]


def scan_of(problem: Problem) -> Scan:
    """Return a problem (1, coil, n, rows, cols) as a scan: of a volume, or with n repetitions where n is time."""
    kspace, mask = problem.kspace[0], problem.operator.sampling_mask[0].numpy()
    if problem.operator.encoding.fourier_ndim == 3:
        planes = centred_ifft(kspace, (1,)).transpose(0, 1).numpy()
        return Scan.from_arrays(planes, mask, volumetric=True)
    return Scan.from_arrays(kspace.transpose(0, 1)[:, None].numpy(), mask[:, None])


@torch.no_grad()
def side_by_side(
    problem: Problem,
    mol: Reconstructor,
    cg_weight: float,
    axes: tuple[int, int, int] = (0, 1, 2),
    *,
    tol: float,
    memory: int | None = None,
) -> SideBySide:
    """Return zero-filling, CG-SENSE and MOL on a problem of one volume or series.

    Args:
        problem: a batch of 1 with three axes.
        mol: of three axes.
        cg_weight: of CG-SENSE.
        axes: order in which the images' axes are returned; SSIM is of the planes along the first.
        tol: error bound to reach.
        memory: bytes that the process may take; None: as many as it takes.

    Raises:
        ValueError: another batch or number of axes.
    """
    if len(problem.reference) != 1 or problem.reference.ndim != 4 or mol.solver is None:
        raise ValueError(f"side_by_side: reference {tuple(problem.reference.shape)}, expected (1, n, rows, cols)")
    maps = problem.operator.sensitivity_maps[0].transpose(0, 1).numpy()  # (n or 1, coil, rows, cols)
    settings = Settings(
        solver=replace(mol.solver, tol=tol), maps=maps, noise_level=float(problem.noise_level), memory=memory
    )
    (found,) = reconstruct_scan(scan_of(problem), mol, settings)
    images = {
        "reference": problem.reference,
        "zero-filled": ZeroFilled()(problem.kspace, problem.operator).value,
        "CG-SENSE": CGSense(cg_weight)(problem.kspace, problem.operator).value,
    }
    magnitudes = {name: image[0].abs() for name, image in images.items()}
    magnitudes["MOL"] = torch.from_numpy(found.result.image).reshape(magnitudes["reference"].shape)
    ordered = {name: image.permute(axes).contiguous().cpu().numpy() for name, image in magnitudes.items()}
    return SideBySide(ordered, found.result, "" if found.plan is None else found.plan.describe())

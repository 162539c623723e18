"""Zero-filling, CG-SENSE and MOL on one simulated volume or series, for the examples of both."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
import torch

from molrecon.reconstructors.classical import CGSense, ZeroFilled
from molrecon.reconstructors.mol import MOL
from molrecon.scans.metrics import psnr, ssim
from molrecon.simulation.problem import Problem
from molrecon.solvers.solution import Solution


@final
@dataclass(frozen=True, eq=False)
class SideBySide:
    """What methods made of one simulated problem.

    Attributes:
        magnitudes: "reference", "zero-filled", "CG-SENSE", "MOL"; (n, rows, cols) float32 each.
        solution: of MOL.
        certificate: its kind.
    """

    magnitudes: dict[str, np.ndarray]
    solution: Solution
    certificate: str

    def lines(self) -> list[str]:
        """Return PSNR and SSIM of every method, and how far MOL is from its equilibrium, a line each."""
        reference = self.magnitudes["reference"]
        scores = [
            f"{name:<12} PSNR {psnr(reference, image):.2f} dB  SSIM {ssim(reference, image):.4f}"
            for name, image in self.magnitudes.items()
            if name != "reference"
        ]
        bound, steps = float(self.solution.error_bound), int(self.solution.n_steps)
        return [
            *scores,
            f"MOL is within {bound:.1e} of its exact equilibrium ({self.certificate}) after {steps} iterations",
        ]


@torch.no_grad()
def side_by_side(problem: Problem, mol: MOL, cg_weight: float, axes: tuple[int, int, int] = (0, 1, 2)) -> SideBySide:
    """Return zero-filling, CG-SENSE and MOL on a problem of one volume or series.

    Args:
        problem: a batch of 1 with three axes.
        mol: at its own tolerance.
        cg_weight: of CG-SENSE.
        axes: order in which the images' axes are returned; SSIM is of the planes along the first.

    Raises:
        ValueError: another batch or number of axes.
    """
    if len(problem.reference) != 1 or problem.reference.ndim != 4:
        raise ValueError(f"side_by_side: reference {tuple(problem.reference.shape)}, expected (1, n, rows, cols)")
    solution = mol(problem.kspace, problem.operator, problem.noise_level)
    images = {
        "reference": problem.reference,
        "zero-filled": ZeroFilled()(problem.kspace, problem.operator).value,
        "CG-SENSE": CGSense(cg_weight)(problem.kspace, problem.operator).value,
        "MOL": solution.value,
    }
    magnitudes = {name: image[0].abs().permute(axes).contiguous().cpu().numpy() for name, image in images.items()}
    return SideBySide(magnitudes, solution, mol.certificate().kind)

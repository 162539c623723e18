"""Training without references: the network gets a part of the measured samples and is judged by the others.

Source: Yaman, Hosseini, Moeller, Ellermann, Ugurbil, Akcakaya, Self-supervised learning of physics-guided
reconstruction neural networks without fully sampled reference data (SSDU), Magn Reson Med 84, 2020.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from molrecon.simulation.problem import Problem
from molrecon.solvers.batched import norm
from operators.withholding import Choice, withhold

SHARE = 0.4  # of the samples outside the kept centre; the paper's rho

KspaceLoss = Callable[[Tensor], Tensor]


def split(
    problem: Problem, rng: np.random.Generator, share: float = SHARE, choice: Choice = "gaussian"
) -> tuple[Problem, KspaceLoss]:
    """Return the problem of the samples Theta, and the loss of an image at the other samples, Lambda.

    Theta and Lambda part the measured samples. What is parted follows the mask of each sample of the batch: whole lines
    where it does not vary along an axis, single samples where it varies along all of them. Theta keeps the fully
    sampled centre that the sensitivity maps come from: a block of at most 24 samples along each undersampled axis and
    of at most half of what was measured. Of the others, the share rho goes to Lambda (in the paper the centre kept is
    4 x 4, and rho refers to all).

    The loss of an image x is `|y - A x|_2 / |y|_2 + |y - A x|_1 / |y|_1` on Lambda, y what was measured there, the mean
    over the batch. `problem.reference` is handed on and never looked at.

    Args:
        problem: the measurement, of any number of spatial axes.
        rng: source of the choice; every sample of the batch has its own, also where they share the mask.
        share: rho, between 0 and 1.
        choice: "gaussian", more often near the centre of k-space, with the density `exp(-d^2 / (2 (n / 4)^2))` of the
            distance d from it along undersampled axes of n samples, or "uniform".

    Returns:
        the problem with Theta as its mask, and image (batch, *spatial) -> scalar loss, differentiable.

    Raises:
        ValueError: a share out of range, an unknown choice, or a mask with fewer than two samples outside its centre.
    """
    kept, judged = withhold(problem.operator, len(problem.kspace), rng, share, choice)
    target = judged.sampling(problem.kspace)
    given = Problem(kept.sampling(problem.kspace), kept, problem.reference, problem.noise_level)
    return given, lambda image: normalised_l1_l2(judged(image), target)


def normalised_l1_l2(kspace: Tensor, target: Tensor) -> Tensor:
    """Return the batch mean of `|y - k|_2 / |y|_2 + |y - k|_1 / |y|_1`; a sample whose target y is zero adds nothing.

    Args:
        kspace: k (batch, ...) complex.
        target: y, shape of k.

    Source: Yaman et al. 2020, equation 9.
    """
    error = kspace - target
    tiny = torch.finfo(target.dtype).tiny
    two, one = norm(target), target.abs().flatten(1).sum(1)
    loss = norm(error) / two.clamp_min(tiny) + error.abs().flatten(1).sum(1) / one.clamp_min(tiny)
    return torch.where(two > 0, loss, torch.zeros_like(loss)).mean()

"""Measured samples that are withheld from a reconstruction, to judge it by what it says of them."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from operators.sense import Sense
from operators.soft_sense import SoftSense

WIDEST_CENTRE = 24  # samples along each axis: what ESPIRiT uses
GAUSSIAN_WIDTH = 0.25  # standard deviation of the Gaussian choice as a fraction of each axis

Choice = Literal["uniform", "gaussian"]


def withhold(
    operator: Sense | SoftSense, batch: int, rng: np.random.Generator, share: float, choice: Choice = "uniform"
) -> tuple[Sense | SoftSense, Sense | SoftSense]:
    """Return the operators of the samples that are kept, and of those that are withheld (`withheld_samples`).

    Args:
        operator: A, of samples on the grid.
        batch: of the k-space, each sample of which has a choice of its own.
        rng, share, choice: as of `withheld_samples`, which also says what is raised.
    """
    masks = operator.sampling_mask.expand(batch, *operator.sampling_mask.shape[1:])
    kind, maps, ndim = type(operator), operator.sensitivity_maps, operator.encoding.fourier_ndim
    withheld = withheld_samples(masks, ndim, rng, share, choice)
    return kind(maps, masks & ~withheld, ndim), kind(maps, withheld, ndim)


def withheld_samples(
    masks: Tensor, fourier_ndim: int, rng: np.random.Generator, share: float, choice: Choice = "uniform"
) -> Tensor:
    """Return a part of what masks sample, drawn for each: whole lines where a mask does not vary along an axis.

    The fully sampled centre, which the sensitivity maps come from, is no part of it: a block of at most 24 samples
    along each undersampled axis and of at most half of what was measured. Of the others the share is drawn, at least
    one and not all.

    Args:
        masks: (batch, *spatial) bool, True where sampled.
        fourier_ndim: how many of the last axes are of k-space.
        rng: source of the choice.
        share: between 0 and 1.
        choice: "uniform", or "gaussian": more often near the centre of k-space, with the density
            `exp(-d^2 / (2 (n / 4)^2))` of the distance d from it along undersampled axes of n samples.

    Returns:
        bool of the masks' shape, on their device.

    Raises:
        ValueError: a share out of range, an unknown choice, or a mask with fewer than two samples outside its centre.
    """
    if not 0 < share < 1 or choice not in ("uniform", "gaussian"):
        raise ValueError(
            f"withheld_samples: share {share} and choice {choice!r}, expected 0 to 1 and gaussian or uniform"
        )
    withheld = [_withheld(mask, fourier_ndim, rng, share, choice) for mask in masks.cpu().numpy()]
    return torch.from_numpy(np.stack(withheld)).to(masks.device)


def _withheld(
    mask: np.ndarray, fourier_ndim: int, rng: np.random.Generator, share: float, choice: Choice
) -> np.ndarray:
    """Return the withheld samples of one mask (*spatial), of its shape."""
    varying = [a for a in range(-mask.ndim, 0) if bool((mask != np.take(mask, [0], a)).any())]
    lines = mask[tuple(slice(None) if a in varying else slice(1) for a in range(-mask.ndim, 0))]
    axes = [a for a in varying if a >= -fourier_ndim]
    distance = {a: _along(np.arange(lines.shape[a]) - lines.shape[a] // 2, a, mask.ndim) for a in axes}
    free = np.argwhere(lines & ~_centre(lines, distance))
    if len(free) < 2:
        raise ValueError(
            f"withheld_samples: mask {mask.shape} has {len(free)} samples or lines outside its fully sampled centre,"
            " expected two or more"
        )
    log_density = np.zeros(lines.shape)
    if choice == "gaussian":
        for a, d in distance.items():
            log_density = log_density - 0.5 * (d / (GAUSSIAN_WIDTH * lines.shape[a])) ** 2
    # The largest keys: a draw without replacement, in proportion to the density (Efraimidis and Spirakis 2006).
    keys = log_density[tuple(free.T)] + rng.gumbel(size=len(free))
    count = min(max(1, round(share * len(free))), len(free) - 1)
    chosen = np.zeros(lines.shape, bool)
    chosen[tuple(free[np.argsort(-keys, kind="stable")[:count]].T)] = True
    return chosen & mask


def _centre(lines: np.ndarray, distance: dict[int, np.ndarray]) -> np.ndarray:
    """Return the widest block around the zero frequency that is kept, equally wide along the given axes."""
    centre = np.zeros(lines.shape, bool)
    for half in range(1, WIDEST_CENTRE // 2 + 1):
        block = np.ones(lines.shape, bool)
        for d in distance.values():
            block = block & (-half <= d) & (d < half)
        if not distance or not lines[block].all() or 2 * block.sum() > lines.sum() or (block == centre).all():
            break
        centre = block
    return centre


def _along(values: np.ndarray, axis: int, ndim: int) -> np.ndarray:
    """Return values (n,) as an array of `ndim` axes with n entries along one."""
    return values.reshape([-1 if a == axis else 1 for a in range(-ndim, 0)])
